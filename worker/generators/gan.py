"""`emoji-gan`: a text-conditioned GAN that draws a 64x64 emoji in one pass. Same item, same
bytes, whatever the batch; the heavy libraries are imported on `load`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptmill import errors
from promptmill.jobs import Item
from promptmill.models import Caps
from worker.generators.base import OutOfMemory, Pixels

if TYPE_CHECKING:
    from torch import Tensor

    from worker.gan.conditioner import Conditioner

log = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent.parent / "weights" / "emoji-gan"
SEED_MASK = 2**64 - 1  # torch takes 64 bits; any other integer is taken modulo 2**64


class EmojiGan:
    """The adapter between items and the network.

    The bytes of an image depend on its own item because the text encoder runs fixed
    shapes, the noise comes from the item's own stream, and the network is either exact
    (int8) or run one row at a time (none).
    """

    name = "emoji-gan"
    caps = Caps(
        sizes=((64, 64),),
        batch_shapes=(1, 2, 4, 8, 16, 32),
        quantizations=("int8", "none"),
        batch_invariant=True,
        cost=0.002,
    )

    def __init__(self, weights: Path | None = None) -> None:
        self.weights = weights or WEIGHTS
        self._fingerprint = ""
        self._conditioner: Conditioner | None = None
        self._render: Callable[[Tensor], Tensor] | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the bytes; empty before `load`."""
        return self._fingerprint

    def load(self, *, device: str = "cpu", quantization: str = "int8") -> None:
        """Reads the weights (two seconds) and keeps torch on one thread, where small
        pictures are fastest. "auto" is the CPU and int8. On a processor without VNNI int8
        becomes "none", with a warning and another fingerprint."""
        device = "cpu" if device == "auto" else device
        quantization = "int8" if quantization == "auto" else quantization
        if device != "cpu":
            raise errors.UnsupportedParameter(
                f"{self.name} runs on the CPU, not on {device!r}: set PROMPTMILL_DEVICE=cpu"
            )
        if quantization not in self.caps.quantizations:
            raise errors.UnsupportedParameter(
                f"{self.name} has no quantization {quantization!r} (it has "
                f"{', '.join(self.caps.quantizations)})"
            )
        import torch

        from worker.gan import quantize, weights
        from worker.gan.conditioner import Conditioner

        torch.set_num_threads(1)
        if quantization == "int8" and not quantize.supported():
            log.warning("this processor has no VNNI: %s runs without int8", self.name)
            quantization = "none"
        shipped = weights.read(self.weights)
        self._conditioner = Conditioner()
        self._render = (
            quantize.Int8Generator(shipped.generator, shipped.ranges)
            if quantization == "int8"
            else quantize.FloatGenerator(shipped.generator, shipped.ranges)
        )
        parts = [self.name, quantization, shipped.digest, self._conditioner.fingerprint()]
        self._fingerprint = _hash(parts + _platform())

    def warmup(self, shapes: Sequence[int]) -> None:
        for shape in shapes:
            self.generate([_sample(number) for number in range(shape)])

    def generate(self, items: Sequence[Item]) -> Pixels:
        """Pictures uint8 [B, 64, 64, 3] of the items, in order."""
        if self._conditioner is None or self._render is None:
            raise errors.Error(f"{self.name} is not loaded")
        try:
            made = self._render(self._conditions(self._conditioner, items))
        except RuntimeError as problem:
            if "can't allocate memory" in str(problem):
                raise OutOfMemory(str(problem)) from problem
            raise
        pixels: Pixels = made.permute(0, 2, 3, 1).contiguous().numpy()
        return pixels

    def close(self) -> None:
        self._conditioner = self._render = None

    def _conditions(self, conditioner: Conditioner, items: Sequence[Item]) -> Tensor:
        """Conditions [B, 416]: each row from its item's prompt, style cue and seed."""
        import torch

        from worker.gan import captions, networks

        plain, vendors = zip(*(captions.parse(_clean(item.prompt)) for item in items), strict=True)
        noise = [
            torch.randn(
                networks.NOISE, generator=torch.Generator().manual_seed(item.seed & SEED_MASK)
            )
            for item in items
        ]
        return networks.condition(
            conditioner.encode(plain), torch.tensor(vendors), torch.stack(noise)
        )


def _clean(prompt: str) -> str:
    """The prompt with lone surrogates, which no tokenizer takes, as question marks."""
    return prompt.encode("utf-8", "replace").decode()


def _sample(number: int) -> Item:
    return Item(0, 0, 0, prompt="red heart", seed=number, width=64, height=64)


def _platform() -> list[str]:
    """What beside the weights can change a bit: the kernels (processor, library), the
    tokenizer and the names of characters."""
    import unicodedata

    import tokenizers
    import torch
    import transformers

    return [
        torch.backends.cpu.get_cpu_capability(),
        torch.__version__,
        transformers.__version__,
        tokenizers.__version__,
        unicodedata.unidata_version,
    ]


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
