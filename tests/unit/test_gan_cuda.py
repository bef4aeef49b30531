"""`emoji-gan` on a GPU, as far as a CPU can show it: what the settings come to, calls as runs of
one shape, and the network as a GPU is given it. `tests/gpu/test_emoji_gan.py` has the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from promptmill import errors
from promptmill.jobs import Item
from worker.gan import cuda, integers, quantize, weights
from worker.gan.inputs import CONDITION, SIDE, VENDORS, Floats
from worker.generators import device as devices
from worker.generators import gan
from worker.generators.base import Input, Pixels

HOPPER, TURING = (9, 0), (7, 5)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A GPU that torch says it sees; what settles its kernels is put back."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(devices, "capability", lambda device: HOPPER)
    monkeypatch.setattr(devices, "name", lambda device: "GPU A")
    for flag in ("benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, flag, getattr(torch.backends.cudnn, flag))
    yield monkeypatch


@pytest.mark.parametrize(
    ("device", "quantization", "resolved"),
    [
        ("auto", "auto", ("cuda", "bf16")),
        ("auto", "none", ("cuda", "none")),
        ("cuda", "bf16", ("cuda", "bf16")),
        ("cuda:1", "auto", ("cuda:1", "bf16")),
        ("cpu", "none", ("cpu", "none")),
        ("auto", "int8", ("cpu", "int8")),
        ("auto", "student", ("cpu", "student")),
    ],
)
def test_what_the_settings_come_to_beside_a_gpu(
    gpu: pytest.MonkeyPatch, device: str, quantization: str, resolved: tuple[str, str]
) -> None:
    gpu.setattr(integers, "supported", lambda: True)
    found = gan.EmojiGan().resolve(device=device, quantization=quantization)
    assert (found.device, found.quantization) == resolved
    assert found.why.startswith("auto: this GPU") == (quantization == "auto")


def test_a_gpu_without_bfloat16_draws_in_float32_and_says_so(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(devices, "capability", lambda device: TURING)
    found = gan.EmojiGan().resolve(device="auto", quantization="auto")
    assert (found.device, found.quantization) == ("cuda", "none")
    assert "in software" in found.why
    with pytest.raises(errors.UnsupportedParameter, match="bf16 is refused: this GPU"):
        gan.EmojiGan().resolve(device="auto", quantization="bf16")


@pytest.mark.parametrize("quantization", gan.INT8)
def test_int8_is_refused_on_a_gpu_with_the_reason(
    gpu: pytest.MonkeyPatch, quantization: str
) -> None:
    with pytest.raises(
        errors.UnsupportedParameter, match=f"{quantization} is refused: int8 is a CPU's form"
    ):
        gan.EmojiGan().resolve(device="cuda", quantization=quantization)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_bf16_is_refused_on_a_cpu_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(errors.UnsupportedParameter, match="bf16 is refused: it is a GPU's form"):
        gan.EmojiGan().resolve(device=device, quantization="bf16")
    with pytest.raises(errors.UnsupportedParameter, match="torch sees no GPU here"):
        gan.EmojiGan().resolve(device="cuda", quantization="bf16")


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 70])
def test_any_number_of_rows_is_runs_of_one_shape(count: int) -> None:
    runs: list[Floats] = []

    def run(conditions: Floats) -> Pixels:
        runs.append(conditions)
        marks = conditions[:, :1].astype(np.uint8)
        return np.broadcast_to(marks[:, :, None, None], (len(marks), 4, 4, 3)).copy()

    given = np.repeat(np.arange(1, count + 1, dtype=np.float32)[:, None], 5, axis=1)
    made = cuda.in_shape(run, given)
    assert made.shape == (count, 4, 4, 3) and (made[:, 0, 0, 0] == np.arange(1, count + 1)).all()
    assert [one.shape for one in runs] == [(32, 5)] * math.ceil(count / 32)
    sent = np.concatenate(runs)
    assert (sent[:count] == given).all() and not sent[count:].any()


@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float32, 50), (torch.bfloat16, 30)], ids=["float32", "bfloat16"]
)
def test_the_network_draws_what_it_draws_in_float_on_the_cpu(
    dtype: torch.dtype, least: float
) -> None:
    shipped = weights.read(gan.WEIGHTS)
    conditions = torch.from_numpy(_conditions(4))
    draw = cuda.drawing(shipped.generator, shipped.ranges, dtype=dtype, device="cpu")
    made = draw(conditions).detach()
    assert made.shape == (4, SIDE, SIDE, 3) and made.dtype == torch.uint8 and made.is_contiguous()
    truth = quantize.FloatGenerator(shipped.generator, shipped.ranges)(conditions)
    error = (made.permute(0, 3, 1, 2).float() - truth.float()).square().mean().item()
    assert 10 * math.log10(255**2 / max(error, 1e-12)) > least


def _conditions(count: int) -> Floats:
    model = gan.EmojiGan()
    model.load(device="cpu", quantization="none")
    assert model._engine is not None
    items = [_item(n, text) for n, text in enumerate(("red heart", "sun", "pizza", "dog"))]
    plan = gan._plan(model._engine, items[:count])
    return gan._conditions(model._engine, items[:count], plan)


def _item(number: int, prompt: str, task: str = "text2image") -> Item:
    return Item(number, number, 0, prompt, number, SIDE, SIDE, task=task)


class Fake:
    """In place of the network on a GPU: a picture is a hash of its condition. It counts runs."""

    runs = 0

    def __init__(self, plain: object, ranges: object, *, dtype: torch.dtype, device: str) -> None:
        assert (dtype, device) == (torch.bfloat16, "cuda")

    def __call__(self, conditions: Floats) -> Pixels:
        assert conditions.shape[1] == CONDITION and conditions.dtype == np.float32
        return cuda.in_shape(self.run, conditions)

    def run(self, conditions: Floats) -> Pixels:
        Fake.runs += 1
        assert len(conditions) == cuda.ROWS
        chances = [np.random.default_rng(list(row.tobytes())) for row in conditions]
        return np.stack([c.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for c in chances])


@pytest.fixture
def model(gpu: pytest.MonkeyPatch) -> gan.EmojiGan:
    gpu.setattr(cuda, "CudaGenerator", Fake)
    gpu.setattr(Fake, "runs", 0)
    made = gan.EmojiGan()
    made.load(device="auto", quantization="auto")
    return made


def test_more_drawings_than_a_run_holds_are_several_runs(model: gan.EmojiGan) -> None:
    items = [_item(n, "a cat and a dog") for n in range(20)]
    together = model.generate(items)
    assert Fake.runs == 2 and together.shape == (20, SIDE, SIDE, 3)
    assert np.array_equal(together[19], model.generate([items[19]])[0])


def test_a_repair_draws_in_each_style(model: gan.EmojiGan) -> None:
    source = np.full((SIDE, SIDE, 3), 200, dtype=np.uint8)
    hole = np.zeros((SIDE, SIDE), dtype=np.uint8)
    hole[20:40, 20:40] = 255
    (made,) = model.generate([_item(0, "sun", "repair")], [Input(source, hole)])
    assert Fake.runs == len(VENDORS)
    assert (made[hole == 0] == 200).all() and (made[hole == 255] != 200).any()


def test_the_fingerprint_knows_the_gpu_and_the_shape(
    gpu: pytest.MonkeyPatch, model: gan.EmojiGan
) -> None:
    def fingerprint() -> str:
        again = gan.EmojiGan()
        again.load(device="cuda", quantization="bf16")
        return again.fingerprint

    assert fingerprint() == model.fingerprint
    gpu.setattr(devices, "name", lambda device: "GPU B")
    other = fingerprint()
    gpu.setattr(cuda, "ROWS", 64)
    assert len({model.fingerprint, other, fingerprint()}) == 3


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2 MiB",
        "can't allocate memory",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_too_little_memory_is_told_in_the_protocols_word(
    model: gan.EmojiGan, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    def fail(self: Fake, conditions: Floats) -> Pixels:
        raise RuntimeError(said)

    monkeypatch.setattr(Fake, "run", fail)
    with pytest.raises(gan.OutOfMemory, match=re.escape(said)):
        model.generate([_item(0, "sun")])
    assert devices.is_out_of_memory(RuntimeError(said))
    model.close()
