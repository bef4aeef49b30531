"""Image generators of transformers that draw token by token: Janus and Janus-Pro, Emu3. A
batch is many prompts at one length, each with a stream of random numbers and a guidance of its
own. Nothing is imported before `load`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from promptmill import errors
from promptmill.jobs import Item
from promptmill.models import Caps
from worker.generators import device as devices
from worker.generators import hub, offers, quantization
from worker.generators.base import Input, Pixels, Resolved, Watch
from worker.generators.checkpoint import TRANSFORMERS, Checkpoint
from worker.generators.options import Options
from worker.generators.tokens import Prompts, Sampler

if TYPE_CHECKING:
    from torch import Tensor

MOST_GUIDANCE = 30.0


class Family(Protocol):
    """What differs between the models: prompts to token ids, and ids to pictures."""

    parameters: tuple[str, ...]
    guidance: float  # the usual one
    kept: tuple[str, ...]  # modules that are not quantized: all but the language model

    def sizes(self) -> tuple[tuple[int, int], ...]: ...

    def tokens(self, width: int, height: int) -> int:
        """Tokens of a picture, each a step."""
        ...

    def draw(self, items: Sequence[Item], prompts: Prompts, sample: Sampler) -> Tensor:
        """Pictures [B, H, W, 3], from -1 to 1."""
        ...


class Autoregressive:
    """One model. An image depends on its item alone at a given batch shape: prompts are padded
    to one length whatever the neighbours, and each row has its own random numbers."""

    def __init__(self, found: Checkpoint, options: Options) -> None:
        self.checkpoint = found
        self.options = options
        self.name = found.name
        self.caps = Caps(sizes=options.sizes or ((384, 384),), batch_shapes=options.batch_shapes)
        self.watch: Watch | None = None
        self._fingerprint = ""
        self._device = "cpu"
        self._family: Family | None = None
        self._prompts: Prompts | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the bytes; empty before `load`."""
        return self._fingerprint

    def load(self, *, device: str, quantization: str) -> None:
        """Reads the model from safetensors alone, without the network."""
        hub.go_offline()
        self._device = devices.choose(device)
        plan = self._plan(quantization)
        needed = int(self.checkpoint.parameters() * plan.bytes)
        devices.require_room(self.name, needed, self._device)
        model, tokenizer = devices.run(lambda: _read(self.checkpoint, plan, self._device))
        self._family = _family(model, tokenizer, self.options)
        self._prompts = Prompts(tokenizer, self.options.prompt_tokens, self._device)
        self.caps = self._caps(self._family)
        self._fingerprint = self._digest(plan)

    def resolve(self, *, device: str, quantization: str) -> Resolved:
        self._device = devices.choose(device)
        plan = self._plan(quantization)
        return Resolved(self._device, plan.name, self._why(quantization))

    def _why(self, name: str) -> str:
        return quantization.why(name, self._where())

    def _plan(self, name: str) -> quantization.Plan:
        return quantization.plan(name, self._where(), quantization.Model(TRANSFORMERS))

    def _where(self) -> quantization.Device:
        kind = self._device.partition(":")[0]
        return quantization.Device(kind, devices.capability(self._device))

    def _caps(self, family: Family) -> Caps:
        sizes = self.options.sizes or family.sizes()
        for size in sizes:
            _require_size(family, size)
        model = quantization.Model(TRANSFORMERS)
        return Caps(
            sizes=sizes,
            parameters=family.parameters,
            guidance=self.options.guidance or (0.0, family.guidance, MOST_GUIDANCE),
            batch_shapes=self.options.batch_shapes,
            quantizations=quantization.possible(self._where(), model),
            batch_invariant=False,
            bucket_fields=("task", "width", "height"),
            budget=sizes[0][0] * sizes[0][1] * self.options.batch_shapes[-1],
            cost=0.01 * family.tokens(*sizes[0]),
        )

    def _digest(self, plan: quantization.Plan) -> str:
        import torch
        import transformers

        parts = ["transformers", self.checkpoint.digest(), self.checkpoint.revision, plan.name]
        parts += [str(self.options.prompt_tokens), devices.name(self._device)]
        parts += [torch.__version__, transformers.__version__, quantization.version(plan)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def warmup(self, shapes: Sequence[int]) -> None:
        """One picture; the engine measures the other shapes bucket by bucket."""
        width, height = self.caps.sizes[0]
        item = Item(0, 0, 0, "red heart", 0, width, height, guidance=self.caps.guidance[1])
        self.generate([item] * min(shapes))

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        """Pictures uint8 [B, H, W, 3] of the items, in order."""
        return devices.run(lambda: self._render(items))

    def _render(self, items: Sequence[Item]) -> Pixels:
        import torch

        if self._family is None or self._prompts is None:
            raise errors.Error(f"{self.name} is not loaded")
        steps = self._family.tokens(items[0].width, items[0].height)
        sample = Sampler(items, steps=steps, device=self._device, watch=self.watch)
        with devices.inference(self._device):
            made = self._family.draw(items, self._prompts, sample)
            scaled = ((made.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        pixels: Pixels = scaled.contiguous().cpu().numpy()
        return pixels

    def room(self) -> float:
        return devices.room(self._device)

    def close(self) -> None:
        self._family = self._prompts = None
        devices.free_cache()


class Janus:
    """Janus and Janus-Pro: one size; the model doubles the batch and masks the prompt for its
    unconditional half by itself."""

    parameters = ("guidance",)
    guidance = 5.0
    kept = (
        *("model.vision_model", "model.aligner", "model.vqmodel", "model.generation_embeddings"),
        *("model.generation_aligner", "model.generation_head", "lm_head"),
    )

    def __init__(self, model: Any, tokenizer: Any, options: Options) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.begin = _token(tokenizer, "boi_token", "<begin_of_image>")
        told = model.generation_config
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(told, name) is None:
                setattr(told, name, getattr(tokenizer, name))
        # a reloaded configuration may have lost it
        told.generation_kwargs = {"boi_token_id": tokenizer.convert_tokens_to_ids(self.begin)}
        self.top_k, self.temperature = _sampling(told, top_k=0)

    def sizes(self) -> tuple[tuple[int, int], ...]:
        codes = self.model.config.vq_config
        side = round(self.tokens(0, 0) ** 0.5) * 2 ** (len(codes.channel_multiplier) - 1)
        return ((side, side),)

    def tokens(self, width: int, height: int) -> int:
        return int(self.model.config.vision_config.num_image_tokens)

    def draw(self, items: Sequence[Item], prompts: Prompts, sample: Sampler) -> Tensor:
        sample.top_k, sample.temperature = self.top_k, self.temperature
        ids, mask = prompts.encode([_asked(self.tokenizer, i.prompt) + self.begin for i in items])
        codes = self.model.generate(
            ids,
            attention_mask=mask,
            generation_mode="image",
            do_sample=False,
            guidance_scale=1,  # ours, per row
            logits_processor=_processors(lambda ids, scores: sample.noisy(sample.guide(scores))),
        )
        made: Tensor = self.model.decode_image_tokens(codes)
        return made


class Emu3:
    """Emu3: any size; a grammar of rows, and an unconditional half that sees the negative
    prompt and is given the same tokens."""

    parameters = ("guidance", "negative_prompt")
    guidance = 3.0
    kept = ("model.vqmodel", "lm_head")
    side, cell = 720, 8

    def __init__(self, model: Any, tokenizer: Any, options: Options) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.begin = _token(tokenizer, "boi_token", "<|image start|>")
        self.wrapper = _token(tokenizer, "image_wrapper_token", "<|image token|>")
        self.room = int(model.config.text_config.max_position_embeddings) - options.prompt_tokens
        words = model.vocabulary_mapping
        self.visual, self.line = list(words.image_tokens), int(words.eol_token_id)
        self.top_k, self.temperature = _sampling(model.generation_config, top_k=2048)

    def sizes(self) -> tuple[tuple[int, int], ...]:
        found = offers.sizes(self.side, self.cell)
        return tuple(size for size in found if self.tokens(*size) <= self.room)

    def tokens(self, width: int, height: int) -> int:
        if width % self.cell or height % self.cell:
            raise errors.SettingInvalid(f"sizes of Emu3 are multiples of {self.cell}")
        found = height // self.cell * (width // self.cell + 1)
        if found > self.room:
            raise errors.SettingInvalid(f"{width}x{height} takes {found} tokens of {self.room}")
        return found

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
            logits_processor=_processors(choose),
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


FAMILIES: dict[str, Any] = {"janus": Janus, "emu3": Emu3}


def _read(found: Checkpoint, plan: quantization.Plan, device: str) -> tuple[Any, Any]:
    """(model, tokenizer). Raises `errors.Error` for a model that makes no images."""
    import torch
    import transformers

    logging: Any = transformers.utils.logging  # whose functions are not typed
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options: dict[str, Any] = {}
    try:
        kind = _class(transformers, found)
        kept = FAMILIES[kind.config_class.model_type].kept
        if (config := quantization.config(plan, TRANSFORMERS, kept)) is not None:
            options = {"quantization_config": config, "device_map": device}
        tokenizer = transformers.AutoTokenizer.from_pretrained(found.folder, local_files_only=True)
        model = kind.from_pretrained(
            found.folder,
            dtype=getattr(torch, plan.dtype),
            use_safetensors=True,
            local_files_only=True,
            **options,
        )
    except (OSError, ValueError, KeyError) as error:
        raise errors.Error(f"{found.folder} cannot be loaded: {error}") from error
    return (model if options else model.to(device)).eval(), tokenizer


def _class(transformers: Any, found: Checkpoint) -> Any:
    """The class of the checkpoint, if it puts out images and its tokens are known here."""
    config = transformers.AutoConfig.from_pretrained(found.folder, local_files_only=True)
    mapping = transformers.AutoModelForMultimodalLM._model_mapping
    kind = mapping.get(type(config), None)
    if "image" not in getattr(kind, "output_modalities", ()):
        raise errors.Error(f"{found.folder} is a {config.model_type}: it makes no images")
    if config.model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise errors.Error(
            f"{found.folder} is a {config.model_type}, whose image tokens promptmill cannot "
            f"read (it can those of {known})"
        )
    return kind


def _family(model: Any, tokenizer: Any, options: Options) -> Family:
    family: Family = FAMILIES[model.config.model_type](model, tokenizer, options)
    return family


def _require_size(family: Family, size: tuple[int, int]) -> None:
    family.tokens(*size)
    if isinstance(family, Janus) and size not in family.sizes():
        [(width, height)] = family.sizes()
        raise errors.SettingInvalid(f"this model draws {width}x{height} only")


def _token(tokenizer: Any, name: str, usual: str) -> str:
    """The text of a special token, by the tokenizer's own name for it."""
    return str(getattr(tokenizer, name, None) or usual)


def _asked(tokenizer: Any, prompt: str) -> str:
    """The prompt as the checkpoint's conversation puts it."""
    if not tokenizer.chat_template:
        return prompt
    said = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
    return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))


def _sampling(told: Any, *, top_k: int) -> tuple[int, float]:
    """(top k, temperature) of the checkpoint's generation_config.json."""
    held = getattr(told, "top_k", None)
    return (top_k if held is None else int(held)), float(getattr(told, "temperature", 1.0) or 1.0)


def _processors(choose: Any) -> Any:
    from transformers import LogitsProcessor, LogitsProcessorList

    class Chosen(LogitsProcessor):
        def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
            chosen: Tensor = choose(ids, scores)
            return chosen

    return LogitsProcessorList([Chosen()])
