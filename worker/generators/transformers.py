"""Image generators of transformers that draw token by token. A batch is many prompts at one
length, each with a stream of random numbers and a guidance of its own. A further family is one
file beside janus.py and emu3.py and one entry here. Nothing is imported before `load`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from promptmill import errors
from promptmill.jobs import Item
from promptmill.models import Caps
from worker.generators import device as devices
from worker.generators import hub, quantization, reading, steady
from worker.generators.base import Input, Pixels, Rejected, Resolved, Watch, broken
from worker.generators.checkpoint import TRANSFORMERS, Checkpoint
from worker.generators.emu3 import Emu3
from worker.generators.janus import Janus
from worker.generators.options import Options
from worker.generators.tokens import Prompts, Sampler

if TYPE_CHECKING:
    from torch import Tensor

# what becomes of an item before and after the model: how its prompt is put and begins, guidance and
# sampling, how pixels are rounded, tails and settled layers
RULES = "1"
MOST_GUIDANCE = 30.0


class Family(Protocol):
    """What differs between the models: prompts to token ids, and ids to pictures."""

    parameters: tuple[str, ...]
    guidance: float  # the usual one
    kept: tuple[str, ...]  # modules that are not quantized: all but the language model

    def sizes(self) -> tuple[tuple[int, int], ...]: ...

    def tokens(self, width: int, height: int) -> int:
        """Tokens of a picture, each a step. Raises `errors.SettingInvalid` for a size that
        it does not draw."""
        ...

    def draw(self, items: Sequence[Item], prompts: Prompts, sample: Sampler) -> Tensor:
        """Pictures [B, H, W, 3], from -1 to 1."""
        ...


FAMILIES: dict[str, type[Janus] | type[Emu3]] = {"janus": Janus, "emu3": Emu3}


class Autoregressive:
    """One model. An image depends on its item alone at a given batch shape: prompts are padded
    to one length whatever the neighbours, and each row has its own random numbers."""

    def __init__(self, found: Checkpoint, options: Options) -> None:
        """Raises `errors.ModelInvalid` for a model that makes no images."""
        _require_family(found)
        for name in ("loras", "steps"):
            if getattr(options, name):
                raise errors.SettingInvalid(
                    f"PROMPTMILL_MODEL_OPTIONS: {name} are of pipelines of diffusers, and "
                    f"{found.name} has none",
                    param="PROMPTMILL_MODEL_OPTIONS",
                )
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
        model, tokenizer = reading.run(
            lambda: _read(self.checkpoint, plan, self._device), self.name, self._device
        )
        if self._device != "cpu":
            steady.settle(model)
        self._family = FAMILIES[model.config.model_type](model, tokenizer, self.options)
        self._prompts = Prompts(tokenizer, self.options.prompt_tokens, self._device)
        self.caps = self._caps(self._family)
        self._fingerprint = self._digest(plan)

    def resolve(self, *, device: str, quantization: str) -> Resolved:
        self._device = devices.choose(device)
        plan = self._plan(quantization)
        return Resolved(self._device, plan.name, self._why(quantization))

    def _why(self, name: str) -> str:
        return quantization.why(name, devices.described(self._device))

    def _plan(self, name: str) -> quantization.Plan:
        return quantization.plan(
            name, devices.described(self._device), quantization.Model(TRANSFORMERS)
        )

    def _caps(self, family: Family) -> Caps:
        sizes = self.options.sizes or family.sizes()
        for size in sizes:
            family.tokens(*size)
        model = quantization.Model(TRANSFORMERS)
        return Caps(
            sizes=sizes,
            parameters=family.parameters,
            guidance=self.options.guidance or (0.0, family.guidance, MOST_GUIDANCE),
            batch_shapes=self.options.batch_shapes,
            quantizations=quantization.possible(devices.described(self._device), model),
            batch_invariant=False,
            bucket_fields=("task", "width", "height"),
            budget=sizes[0][0] * sizes[0][1] * self.options.batch_shapes[-1],
            cost=0.01 * family.tokens(*sizes[0]),
        )

    def _digest(self, plan: quantization.Plan) -> str:
        import torch
        import transformers

        weights = [self.checkpoint.digest(), self.checkpoint.revision]
        parts = ["transformers", RULES, *weights, plan.format]
        parts += [str(self.options.prompt_tokens), *devices.kernels(self._device)]
        parts += [torch.__version__, transformers.__version__, quantization.version(plan)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def warmup(self, shapes: Sequence[int]) -> None:
        """One picture; the engine measures the other shapes bucket by bucket."""
        width, height = self.caps.sizes[0]
        item = Item(0, 0, 0, "red heart", 0, width, height, guidance=self.caps.guidance[1])
        reading.tried(self.checkpoint.folder, lambda: self.generate([item] * min(shapes)))

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
            lost = sorted({*broken(made), *sample.lost()})
            whole = made.float().nan_to_num(-1).clamp(-1, 1)
            scaled = ((whole + 1) * 127.5).round().to(torch.uint8)
        pixels: Pixels = scaled.contiguous().cpu().numpy()
        if lost:
            raise Rejected({}, pixels, broken=lost)
        return pixels

    def room(self) -> float:
        return devices.room(self._device)

    def close(self) -> None:
        self._family = self._prompts = None
        devices.free_cache()


def _read(found: Checkpoint, plan: quantization.Plan, device: str) -> tuple[Any, Any]:
    """(model, tokenizer)."""
    import torch
    import transformers

    logging: Any = transformers.utils.logging  # whose functions are not typed
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options: dict[str, Any] = {}
    with reading.told(found.folder):
        config = transformers.AutoConfig.from_pretrained(
            found.folder, local_files_only=True, trust_remote_code=False
        )
        kinds: Any = transformers.AutoModelForMultimodalLM._model_mapping  # not typed
        kind = kinds[type(config)]
        kept = FAMILIES[config.model_type].kept
        if (held := quantization.config(plan, TRANSFORMERS, kept)) is not None:
            options = {"quantization_config": held, "device_map": device}
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            found.folder, local_files_only=True, trust_remote_code=False
        )
        model, told = kind.from_pretrained(
            found.folder,
            dtype=getattr(torch, plan.dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    reading.require_all(found.folder, told["missing_keys"])
    return (model if options else model.to(device)).eval(), tokenizer


def _require_family(found: Checkpoint) -> None:
    kind = found.config("config.json").get("model_type", "model of no type")
    if kind not in FAMILIES:
        raise errors.ModelInvalid(
            f"{found.folder} is a {kind}: it makes no images, or none whose tokens promptmill can "
            f"read (it can those of {', '.join(FAMILIES)})"
        )
