"""`emoji-gan`: a text-conditioned GAN that draws a 64x64 emoji in one pass. Same item, same
bytes, whatever the batch; the heavy libraries are imported on `load`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptmill import errors, jobs
from promptmill.jobs import Item
from promptmill.models import Caps
from worker.generators import device as devices
from worker.generators import gan_engines
from worker.generators import quantization as formats
from worker.generators.base import Input, OutOfMemory, Pixels, Resolved

if TYPE_CHECKING:
    from worker.gan.asking import Asked
    from worker.gan.composing import Plan
    from worker.gan.memory import Floats
    from worker.generators.gan_engines import Engine

log = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent.parent / "weights" / "emoji-gan"
STUDENT = "student"  # the folder of its weights, beside the teacher's
AUTO = STUDENT  # on a CPU
STYLE = "style"  # the task
RULES = "11"  # what becomes of a prompt before and after the network
ONNX = ("onnx", "student-onnx")  # the forms that ONNX Runtime draws, in int8
TORCH_INT8 = ("int8", STUDENT)
INT8 = (*TORCH_INT8, *ONNX)
TEACHER = ("int8", "onnx")  # the forms that the large network draws
ON_CPU, ON_GPU = (*INT8, "none"), ("bf16", "none")


class EmojiGan:
    """The adapter between items and the network.

    The bytes of an image depend on its own item because the text encoder sums integers,
    the noise comes from the item's own stream, and the network is exact (int8 and student),
    or run one row at a time (none), or, on a GPU (bf16, none), always in one shape.
    `student` is the small network that the large one and the pictures taught, in int8: several
    times faster, and better; `none` and `bf16` are the same in float. `int8` is the large one.
    `onnx` and `student-onnx` are the two in int8 by ONNX Runtime, without torch: nearly the same
    pictures. A prompt that names no style is drawn in one that its seed picks.
    A variation is the prompt with a seed of its own; it does not look at the source.
    A prompt of two subjects is two drawings side by side.
    A style is what its source shows, as far as the scorer knows it, drawn in the style that the
    prompt names; nothing else of the prompt counts.
    A repair is drawn in each style, without the seed's shift and tint, and the one that fits
    what the mask keeps fills the hole.
    A score is the chance that a picture shows what its prompt says; of two subjects, the worse.
    """

    name = "emoji-gan"
    caps = Caps(
        sizes=((64, 64),),
        tasks=("text2image", "variation", "style", "repair", "inpaint"),
        batch_shapes=(1, 2, 4, 8, 16, 32),
        quantizations=tuple(dict.fromkeys((*ON_CPU, *ON_GPU))),
        batch_invariant=True,
        scores=True,
        portion=4,
        cost=0.002,
    )

    def __init__(self, weights: Path | None = None) -> None:
        self.weights = weights or WEIGHTS
        self._fingerprint = ""
        self._engine: Engine | None = None
        self._device = "cpu"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the bytes; empty before `load`."""
        return self._fingerprint

    def resolve(self, *, device: str, quantization: str) -> Resolved:
        """ "auto" is a GPU and bf16, or the CPU and the student; a form of int8 on "auto" is the
        CPU. On a processor without VNNI int8 and the student hold their integers in float32: the
        same pictures, under another fingerprint."""
        if quantization not in ("auto", *self.caps.quantizations):
            raise errors.UnsupportedParameter(
                f"{self.name} has no quantization {quantization!r} (it has auto, "
                f"{', '.join(self.caps.quantizations)})"
            )
        if device == "cpu" or (device == "auto" and quantization in INT8):
            return _on_cpu(quantization)
        chosen = devices.choose(device)
        return _on_cpu(quantization) if chosen == "cpu" else _on_gpu(chosen, quantization)

    def load(self, *, device: str = "cpu", quantization: str = "int8") -> None:
        """Reads the weights (a second). What is slower than it could be is a warning, too."""
        chosen = self.resolve(device=device, quantization=quantization)
        form = chosen.quantization
        if form in TORCH_INT8 and not _int8():
            log.warning("%s: %s", self.name, chosen.why)
        self._engine = self._made(chosen)
        self._device = chosen.device
        engine = self._engine
        parts = [self.name, RULES, form, engine.digest, engine.encoder.digest, engine.scorer.digest]
        platform = gan_engines.platform(onnx=form in ONNX, exact=form in INT8, device=chosen.device)
        self._fingerprint = _hash(parts + platform)

    def _made(self, chosen: Resolved) -> Engine:
        form = chosen.quantization
        network = self.weights if form in TEACHER else self.weights / STUDENT
        if chosen.device != "cpu":
            bf16 = form == "bf16"
            return gan_engines.by_cuda(network, self.weights, device=chosen.device, bf16=bf16)
        if form in ONNX:
            return gan_engines.by_onnx(network, self.weights)
        return gan_engines.by_torch(network, self.weights, int8=form != "none")

    def warmup(self, shapes: Sequence[int]) -> None:
        for shape in shapes:
            items = [_sample(number) for number in range(shape)]
            self.score(items, self.generate(items))

    def prepare(self, items: Sequence[Item]) -> None:
        """Reads the prompts."""
        _plan(self._loaded, items)

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        """Pictures uint8 [B, 64, 64, 3] of the items, in order."""
        from worker.gan import repair

        network, plan = self._loaded.render, _plan(self._loaded, items, inputs)
        conditions = _conditions(self._loaded, items, plan)

        def render(conditions: Floats) -> Pixels:
            return plan.composed(network(conditions))

        try:
            if items[0].task in jobs.MASK_TASKS:
                return repair.fill(render, conditions, inputs)
            return render(conditions)
        except RuntimeError as problem:
            if devices.is_out_of_memory(problem):
                raise OutOfMemory(str(problem)) from problem
            raise

    def score(self, items: Sequence[Item], pixels: Pixels) -> list[float]:
        """For each picture the chance, in [0, 1], that it shows what its item asks for. A style
        that the prompt names does not count; of a style, the chance of what it shows likeliest."""
        plan, scorer = _plan(self._loaded, items), self._loaded.scorer
        texts = scorer.likeliest(pixels) if items[0].task == STYLE else plan.shown
        return scorer(pixels, texts, plan.counts)

    @property
    def _loaded(self) -> Engine:
        if self._engine is None:
            raise errors.Error(f"{self.name} is not loaded")
        return self._engine

    def close(self) -> None:
        self._engine = None
        if self._device != "cpu":
            devices.free_cache()


def _on_cpu(quantization: str) -> Resolved:
    form = AUTO if quantization == "auto" else quantization
    if form not in ON_CPU:
        raise _refused(form, "it is a GPU's form, and a CPU draws faster in int8: use auto")
    if form in ONNX and (missing := gan_engines.onnx_missing()):
        raise _refused(form, missing)
    if form in TORCH_INT8 and not _int8():
        return Resolved(
            "cpu", form, "this processor has no VNNI: the same integers in float32, slower"
        )
    if quantization == "auto":
        return Resolved("cpu", form, "auto: this processor multiplies int8 exactly (VNNI)")
    return Resolved("cpu", form, "as it is set")


def _on_gpu(device: str, quantization: str) -> Resolved:
    if quantization in INT8:
        raise _refused(
            quantization, "int8 is a CPU's form: on a GPU use bf16, or set PROMPTMILL_DEVICE=cpu"
        )
    where = formats.Device("cuda", devices.capability(device))
    plan = formats.plan(quantization, where, formats.Model("emoji-gan"))
    return Resolved(device, plan.name, formats.why(quantization, where))


def _refused(form: str, reason: str) -> errors.UnsupportedParameter:
    return errors.UnsupportedParameter(f"PROMPTMILL_QUANTIZATION={form} is refused: {reason}")


def _int8() -> bool:
    from worker.gan import integers

    return integers.supported()


def _conditions(engine: Engine, items: Sequence[Item], plan: Plan) -> Floats:
    """Conditions [D, 416], one for each drawing of a plan, from its text and its item's style cue
    and seed."""
    import numpy as np

    from worker.gan import inputs as conditioning

    noise, own = zip(*(engine.draws(item.seed) for item in items), strict=True)
    styles = [one.style for one in _asked(engine, items)]
    vendors = [mine if style is None else style for style, mine in zip(styles, own, strict=True)]
    vendor, view = np.array(vendors)[plan.items], np.stack(noise)[plan.items]
    made = conditioning.condition(plan.texts, vendor, view)
    return conditioning.emphatic(made) if items[0].task == STYLE else made


def _plan(engine: Engine, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Plan:
    """What is drawn for the items. A style is given to what a source shows, whatever the prompt
    says beside it."""
    import numpy as np

    from worker.gan import composing

    plan = composing.planned(_asked(engine, items), engine.encoder)
    if items[0].task != STYLE or not inputs:
        return plan
    shown = engine.scorer.likeliest(np.stack([given.pixels for given in inputs]))
    return dataclasses.replace(plan, texts=shown)


def _asked(engine: Engine, items: Sequence[Item]) -> list[Asked]:
    """What the prompt of each item asks for: for a style, no more than that style."""
    from worker.gan import asking

    found = [asking.asked(_clean(item.prompt), engine.encoder.naming) for item in items]
    if items[0].task != STYLE:
        return found
    return [asking.Asked(("",), (None,), each.style) for each in found]


def _clean(prompt: str) -> str:
    """The prompt with lone surrogates, which have no bytes to hash, as question marks."""
    return prompt.encode("utf-8", "replace").decode()


def _sample(number: int) -> Item:
    return Item(0, 0, 0, prompt="red heart", seed=number, width=64, height=64)


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
