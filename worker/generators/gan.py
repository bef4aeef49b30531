"""`emoji-gan`: a text-conditioned GAN that draws a 64x64 emoji in one pass. Same item, same
bytes, whatever the batch; the heavy libraries are imported on `load`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptmill import errors, jobs
from promptmill.jobs import Item
from promptmill.models import Caps
from worker.generators.base import Input, OutOfMemory, Pixels, Resolved

if TYPE_CHECKING:
    from torch import Tensor

    from worker.gan.encoder import TextEncoder

log = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent.parent / "weights" / "emoji-gan"
STUDENT = "student"  # the folder of its weights, beside the teacher's
AUTO = "int8"
SEED_MASK = 2**64 - 1  # torch takes 64 bits; any other integer is taken modulo 2**64


class EmojiGan:
    """The adapter between items and the network.

    The bytes of an image depend on its own item because the text encoder sums integers,
    the noise comes from the item's own stream, and the network is either exact (int8 and
    student) or run one row at a time (none). `student` is the small network that the large
    one taught, in int8: several times faster, softer pictures. A prompt that names no style
    is drawn in one that its seed picks. A variation is the prompt with a seed of its own;
    it does not look at the source.
    A repair is drawn in each style, without the seed's shift and tint, and the one that fits
    what the mask keeps fills the hole.
    """

    name = "emoji-gan"
    caps = Caps(
        sizes=((64, 64),),
        tasks=("text2image", "variation", "repair", "inpaint"),
        batch_shapes=(1, 2, 4, 8, 16, 32),
        quantizations=("int8", "student", "none"),
        batch_invariant=True,
        portion=8,
        cost=0.002,
    )

    def __init__(self, weights: Path | None = None) -> None:
        self.weights = weights or WEIGHTS
        self._fingerprint = ""
        self._encoder: TextEncoder | None = None
        self._render: Callable[[Tensor], Tensor] | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the bytes; empty before `load`."""
        return self._fingerprint

    def resolve(self, *, device: str, quantization: str) -> Resolved:
        """ "auto" is the CPU and int8. On a processor without VNNI int8 and the student become
        "none", under another fingerprint."""
        if device not in ("auto", "cpu"):
            raise errors.UnsupportedParameter(
                f"{self.name} runs on the CPU, not on {device!r}: set PROMPTMILL_DEVICE=cpu"
            )
        form = AUTO if quantization == "auto" else quantization
        if form not in self.caps.quantizations:
            raise errors.UnsupportedParameter(
                f"{self.name} has no quantization {form!r} (it has auto, "
                f"{', '.join(self.caps.quantizations)})"
            )
        from worker.gan import quantize

        if form != "none" and not quantize.supported():
            return Resolved("cpu", "none", "this processor has no VNNI: float32 in place of int8")
        if quantization == "auto":
            return Resolved("cpu", form, "auto: this processor multiplies int8 exactly (VNNI)")
        return Resolved("cpu", form, "as it is set")

    def load(self, *, device: str = "cpu", quantization: str = "int8") -> None:
        """Reads the weights (a second) and keeps torch on one thread, where small
        pictures are fastest. What `resolve` falls back from is a warning, too."""
        wanted, chosen = quantization, self.resolve(device=device, quantization=quantization)
        import torch

        from worker.gan import quantize, weights
        from worker.gan.encoder import TextEncoder

        torch.set_num_threads(1)
        quantization = chosen.quantization
        if quantization == "none" != wanted:
            log.warning("%s: %s", self.name, chosen.why)
        student = quantization == "student"
        shipped = weights.read(self.weights / STUDENT if student else self.weights)
        self._encoder = TextEncoder(self.weights)
        self._render = (
            quantize.Int8Generator(shipped.generator, shipped.ranges)
            if quantization != "none"
            else quantize.FloatGenerator(shipped.generator, shipped.ranges)
        )
        parts = [self.name, quantization, shipped.digest, self._encoder.digest]
        self._fingerprint = _hash(parts + platform())

    def warmup(self, shapes: Sequence[int]) -> None:
        for shape in shapes:
            self.generate([_sample(number) for number in range(shape)])

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        """Pictures uint8 [B, 64, 64, 3] of the items, in order."""
        if self._encoder is None or self._render is None:
            raise errors.Error(f"{self.name} is not loaded")
        from worker.gan import repair

        conditions = self._conditions(self._encoder, items)
        try:
            if items[0].task in jobs.MASK_TASKS:
                return repair.fill(self._render, conditions, inputs)
            made = self._render(conditions)
        except RuntimeError as problem:
            if "can't allocate memory" in str(problem):
                raise OutOfMemory(str(problem)) from problem
            raise
        pixels: Pixels = made.permute(0, 2, 3, 1).contiguous().numpy()
        return pixels

    def close(self) -> None:
        self._encoder = self._render = None

    def _conditions(self, encoder: TextEncoder, items: Sequence[Item]) -> Tensor:
        """Conditions [B, 416]: each row from its item's prompt, style cue and seed."""
        import torch

        from worker.gan import captions, networks

        prompts, noise, vendors = [], [], []
        for item in items:
            plain, vendor = captions.parse(_clean(item.prompt))
            chance = torch.Generator().manual_seed(item.seed & SEED_MASK)
            noise.append(torch.randn(networks.NOISE, generator=chance))
            own = int(torch.randint(len(networks.VENDORS), (), generator=chance))
            prompts.append(plain)
            vendors.append(own if vendor is None else vendor)
        text = torch.from_numpy(encoder.encode(prompts))
        return networks.condition(text, torch.tensor(vendors), torch.stack(noise))


def _clean(prompt: str) -> str:
    """The prompt with lone surrogates, which have no bytes to hash, as question marks."""
    return prompt.encode("utf-8", "replace").decode()


def _sample(number: int) -> Item:
    return Item(0, 0, 0, prompt="red heart", seed=number, width=64, height=64)


def platform() -> list[str]:
    """What beside the weights can change a bit: the kernels (processor, libraries) and the
    tables that fold letters."""
    import unicodedata

    import numpy
    import torch

    return [
        torch.backends.cpu.get_cpu_capability(),
        torch.__version__,
        numpy.__version__,
        unicodedata.unidata_version,
    ]


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
