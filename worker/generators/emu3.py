"""Emu3 of transformers: pictures of any size, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from promptmill import errors
from promptmill.jobs import Item
from worker.generators import offers, tokens
from worker.generators.options import Options
from worker.generators.tokens import Prompts, Sampler

if TYPE_CHECKING:
    from torch import Tensor


class Emu3:
    """Emu3: any size; a grammar of rows, and an unconditional half that sees the negative
    prompt and is given the same tokens."""

    parameters: tuple[str, ...] = ("guidance", "negative_prompt")
    guidance = 3.0
    kept: tuple[str, ...] = ("model.vqmodel", "lm_head")
    side, cell = 720, 8

    def __init__(self, model: Any, tokenizer: Any, options: Options) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.begin = tokens.special(tokenizer, "boi_token", "<|image start|>")
        self.wrapper = tokens.special(tokenizer, "image_wrapper_token", "<|image token|>")
        self.room = int(model.config.text_config.max_position_embeddings) - options.prompt_tokens
        words = model.vocabulary_mapping
        self.visual, self.line = list(words.image_tokens), int(words.eol_token_id)
        self.top_k, self.temperature = tokens.sampling(model.generation_config, top_k=2048)

    def sizes(self) -> tuple[tuple[int, int], ...]:
        found = offers.sizes(self.side, self.cell)
        fits = tuple(size for size in found if self._count(*size) <= self.room)
        if not fits:
            raise errors.SettingInvalid(
                f"PROMPTMILL_MODEL_OPTIONS: beside the prompt {self.room} tokens are left, too few "
                "for any usual size: name smaller `sizes` or fewer `prompt_tokens`",
                param="PROMPTMILL_MODEL_OPTIONS",
            )
        return fits

    def tokens(self, width: int, height: int) -> int:
        if width % self.cell or height % self.cell:
            raise errors.SettingInvalid(f"sizes of Emu3 are multiples of {self.cell}")
        found = self._count(width, height)
        if found > self.room:
            raise errors.SettingInvalid(
                f"{width}x{height} takes {found} tokens of {self.room}: name smaller `sizes` or "
                "fewer `prompt_tokens` in PROMPTMILL_MODEL_OPTIONS"
            )
        return found

    def _count(self, width: int, height: int) -> int:
        """One token for each cell, and one at the end of each row."""
        return height // self.cell * (width // self.cell + 1)

    def draw(self, items: Sequence[Item], prompts: Prompts, sample: Sampler) -> Tensor:
        import torch

        high, wide = items[0].height // self.cell, items[0].width // self.cell
        sample.top_k, sample.temperature = self.top_k, self.temperature
        ids, mask = prompts.encode(
            [self._text(item.prompt, high, wide) for item in items]
            + [self._text(item.negative_prompt, high, wide) for item in items]
        )

        def choose(ids: Tensor, scores: Tensor) -> Tensor:
            end = (sample.step + 1) % (wide + 1) == 0
            allowed = torch.full_like(scores[:1], float("-inf"))
            allowed[:, self.line if end else self.visual] = 0
            guided = sample.guide(torch.log_softmax(scores.float(), dim=-1))
            return sample.noisy(guided + allowed).repeat(2, 1)  # the same token for both halves

        made = self.model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=sample.steps,
            cache_implementation="static",
            disable_compile=True,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=None,
            logits_processor=tokens.processors(choose),
        )
        codes = made[: len(items), ids.shape[1] :]
        closed = torch.cat([codes, codes[:, :3]], dim=1)  # it drops the three closing tokens
        pixels: Tensor = self.model.decode_image_tokens(
            image_tokens=closed, height=high, width=wide
        )
        return pixels.reshape(len(items), *pixels.shape[-3:]).permute(0, 2, 3, 1)

    def _text(self, prompt: str, high: int, wide: int) -> str:
        start = self.tokenizer.bos_token or ""
        return f"{start}{prompt}{self.begin}{high}*{wide}{self.wrapper}"
