"""Janus and Janus-Pro of transformers: one size of picture, a fixed number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from promptmill import errors
from promptmill.jobs import Item
from worker.generators import tokens
from worker.generators.options import Options
from worker.generators.tokens import Prompts, Sampler

if TYPE_CHECKING:
    from torch import Tensor


class Janus:
    """Janus and Janus-Pro: one size; the model doubles the batch and masks the prompt for its
    unconditional half by itself."""

    parameters: tuple[str, ...] = ("guidance",)
    guidance = 5.0
    kept: tuple[str, ...] = (
        *("model.vision_model", "model.aligner", "model.vqmodel", "model.generation_embeddings"),
        *("model.generation_aligner", "model.generation_head", "lm_head"),
    )

    def __init__(self, model: Any, tokenizer: Any, options: Options) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.begin = tokens.special(tokenizer, "boi_token", "<begin_of_image>")
        told = model.generation_config
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(told, name) is None:
                setattr(told, name, getattr(tokenizer, name))
        # a reloaded configuration may have lost it
        told.generation_kwargs = {"boi_token_id": tokenizer.convert_tokens_to_ids(self.begin)}
        self.top_k, self.temperature = tokens.sampling(told, top_k=0)
        self.count = int(model.config.vision_config.num_image_tokens)

    def sizes(self) -> tuple[tuple[int, int], ...]:
        codes = self.model.config.vq_config
        side = round(self.count**0.5) * 2 ** (len(codes.channel_multiplier) - 1)
        return ((side, side),)

    def tokens(self, width: int, height: int) -> int:
        [(own_width, own_height)] = self.sizes()
        if (width, height) != (own_width, own_height):
            raise errors.SettingInvalid(f"this model draws {own_width}x{own_height} only")
        return self.count

    def draw(self, items: Sequence[Item], prompts: Prompts, sample: Sampler) -> Tensor:
        sample.top_k, sample.temperature = self.top_k, self.temperature
        ids, mask = prompts.encode([_asked(self.tokenizer, i.prompt) + self.begin for i in items])
        codes = self.model.generate(
            ids,
            attention_mask=mask,
            generation_mode="image",
            do_sample=False,
            guidance_scale=1,  # ours, per row
            logits_processor=tokens.processors(
                lambda ids, scores: sample.noisy(sample.guide(scores))
            ),
        )
        made: Tensor = self.model.decode_image_tokens(codes)
        return made


def _asked(tokenizer: Any, prompt: str) -> str:
    """The prompt as the checkpoint's conversation puts it, begun as its tokenizer begins a text:
    the unconditional half is that token and the picture's, the rest of it masked."""
    said = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
    text, start = prompt, tokenizer.bos_token or ""
    if tokenizer.chat_template:
        text = str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))
    return text if text.startswith(start) else start + text
