"""A generator without a model, for tests, benchmarks and trying the farm: the picture is
a pattern hashed from the item. `steps` is the number of milliseconds that a batch takes.
Words in a prompt make it misbehave: `!raise`, `!exit`, `!hang`, `!oom4` (out of memory
above a batch of 4). A source shows through the pattern by 1 - `strength`, or where the mask
says that it stays."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from collections.abc import Sequence

from promptmill.jobs import Item
from promptmill.models import Caps
from worker.generators.base import Input, OutOfMemory, Pixels, Resolved

_OOM = re.compile(r"!oom(\d+)")


class Stub:
    name = "stub"
    caps = Caps(
        sizes=((64, 64), (128, 128), (256, 256)),
        tasks=("text2image", "img2img", "inpaint", "variation"),
        parameters=("steps", "negative_prompt", "guidance", "strength"),
        steps=(0, 0, 600_000),
        guidance=(0.0, 0.0, 100.0),
        batch_shapes=(1, 2, 4, 8, 16, 32),
        quantizations=("none",),
        batch_invariant=True,
        scores=True,
        bucket_fields=("task", "width", "height", "steps"),
        cost=0.001,
    )
    fingerprint = "stub-1"

    def resolve(self, *, device: str, quantization: str) -> Resolved:
        return Resolved("cpu", "none", "a pattern has no weights")

    def load(self, *, device: str, quantization: str) -> None:
        import numpy

        self._numpy = numpy

    def warmup(self, shapes: Sequence[int]) -> None:
        """Nothing to warm up."""

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        for item in items:
            _misbehave(item.prompt, len(items))
        if items[0].steps:
            time.sleep(items[0].steps / 1000)
        pictures = [self._picture(item) for item in items]
        if inputs:
            pictures = list(map(self._over, items, inputs, pictures))
        return self._numpy.stack(pictures)

    def _over(self, item: Item, given: Input, picture: Pixels) -> Pixels:
        """The pattern over the source of its item."""
        np = self._numpy
        if item.task == "variation":
            return picture
        if given.mask is None:
            kept = given.pixels * (1 - item.strength) + picture * item.strength
            mixed: Pixels = np.rint(kept).astype(np.uint8)
            return mixed
        filled: Pixels = np.where(given.mask[..., None] > 0, picture, given.pixels)
        return filled

    def _picture(self, item: Item) -> Pixels:
        """8x8 coloured squares: enough to tell two items apart at a glance."""
        np = self._numpy
        text = f"{item.prompt}\0{item.negative_prompt}\0{item.guidance}\0{item.seed}"
        digest = hashlib.shake_128(text.encode()).digest(8 * 8 * 3)
        squares = np.frombuffer(digest, dtype=np.uint8).reshape(8, 8, 3)
        scale = np.ones((item.height // 8, item.width // 8, 1), dtype=np.uint8)
        picture: Pixels = np.kron(squares, scale)
        return picture

    def score(self, items: Sequence[Item], pixels: Pixels) -> list[float]:
        """The mean brightness from 0 to 1: any picture has one, and seeds differ in it."""
        return [float(picture.mean() / 255) for picture in pixels]

    def close(self) -> None:
        """Nothing to free."""


def _misbehave(prompt: str, batch: int) -> None:
    if "!" not in prompt:
        return
    if "!raise" in prompt:
        raise ValueError("this prompt cannot be rendered")
    if "!exit" in prompt:
        os.kill(os.getpid(), signal.SIGKILL)
    if "!hang" in prompt:
        time.sleep(3600)
    if (found := _OOM.search(prompt)) and batch > int(found[1]):
        raise OutOfMemory(f"{batch} images do not fit")
