"""`emoji-gan` on a GPU: the same bytes in every company, by graph or without, close to what a CPU
draws. It takes no fixture of `tests/conftest.py`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from promptmill.jobs import Item
from worker.generators import gan
from worker.generators.base import Input, Pixels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
    pytest.mark.filterwarnings("default"),
]

TEXTS = (
    "red heart", "rocket, twemoji style", "", "a cat and a dog", "火箭", "größer Hund", "pizza " * 30,
    "flag of Japan", "🚀", "a pizza and the sun", "grinning face, noto", "x",
)  # fmt: skip
COUNT = 32


def items(count: int = COUNT) -> list[Item]:
    return [Item(n, n, 0, TEXTS[n % len(TEXTS)], n * 7919, 64, 64) for n in range(count)]


def loaded(quantization: str, device: str = "cuda") -> gan.EmojiGan:
    made = gan.EmojiGan()
    made.load(device=device, quantization=quantization)
    made.warmup((1, 2))
    return made


@pytest.fixture(scope="module", params=["bf16", "none"])
def model(request: pytest.FixtureRequest) -> Iterator[gan.EmojiGan]:
    made = loaded(request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def alone(model: gan.EmojiGan) -> Pixels:
    return np.concatenate([model.generate([item]) for item in items()])


@pytest.fixture(scope="module")
def on_cpu() -> Pixels:
    return np.concatenate([loaded("none", "cpu").generate(items())])


def form(model: gan.EmojiGan) -> str:
    assert model._engine is not None
    dtype = model._engine.render.dtype  # type: ignore[attr-defined]
    return {torch.bfloat16: "bf16", torch.float32: "none"}[dtype]


def psnr(one: Pixels, other: Pixels) -> float:
    error = np.square(one.astype(float) - other).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def differing(one: Pixels, other: Pixels) -> list[int]:
    """The rows in which two batches differ."""
    assert one.shape == other.shape
    return [row for row in range(len(one)) if not np.array_equal(one[row], other[row])]


def test_auto_is_bfloat16_on_the_gpu() -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU computes bfloat16 in software")
    found = gan.EmojiGan().resolve(device="auto", quantization="auto")
    assert (found.device, found.quantization) == ("cuda", "bf16")


def test_one_condition_in_every_row_is_one_picture(model: gan.EmojiGan) -> None:
    """Whether a kernel treats rows differently shows here without any text or padding."""
    assert model._engine is not None
    conditions = gan._conditions(model._engine, items(4), gan._plan(model._engine, items(4)))
    for one in conditions:
        made = model._engine.render(np.repeat(one[None], COUNT, axis=0))
        assert differing(made, np.repeat(made[:1], COUNT, axis=0)) == []


@pytest.mark.parametrize("size", range(1, COUNT + 1))
def test_a_batch_of_any_size_has_the_bytes_of_each_alone(
    model: gan.EmojiGan, alone: Pixels, size: int
) -> None:
    for start in (0, (COUNT - size) // 2, COUNT - size):
        made = model.generate(items()[start : start + size])
        assert differing(made, alone[start : start + size]) == []


def test_neighbours_and_places_change_nothing(model: gan.EmojiGan, alone: Pixels) -> None:
    chance, asked = np.random.default_rng(0), items()
    for _ in range(20):
        order = chance.permutation(COUNT)
        made = model.generate([asked[number] for number in order])
        assert differing(made, alone[order]) == []
    for place in range(COUNT):
        batch = [Item(n, n, 0, f"stranger {n}", n, 64, 64) for n in range(COUNT)]
        batch[place] = asked[3]
        assert np.array_equal(model.generate(batch)[place], alone[3]), f"at place {place}"


def test_another_load_makes_the_same_bytes(model: gan.EmojiGan, alone: Pixels) -> None:
    again = loaded(form(model))
    assert again.fingerprint == model.fingerprint
    assert differing(again.generate(items()), alone) == []
    again.close()


def elsewhere(code: str, form: str) -> tuple[list[str], str]:
    """What another process says after `code` has made `model` draw the items: the sha256 of the
    pictures and the fingerprint; and what it wrote on stderr."""
    whole = (
        "import hashlib, sys\n"
        "from tests.gpu.test_emoji_gan import gan, items, loaded\n"
        f"{code}"
        "made = model.generate(items())\n"
        "print(hashlib.sha256(made.tobytes()).hexdigest(), model.fingerprint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", whole, form], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-2:], done.stderr


def sha256(pixels: Pixels) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def test_another_process_makes_the_same_bytes(model: gan.EmojiGan, alone: Pixels) -> None:
    told, _ = elsewhere("model = loaded(sys.argv[1])\n", form(model))
    assert told == [sha256(alone), model.fingerprint]


def test_without_a_graph_the_bytes_are_the_same(model: gan.EmojiGan, alone: Pixels) -> None:
    """The work asks the GPU for a number, which no capture allows. In a process of its own:
    a capture that failed must not help or harm the other tests."""
    code = (
        "import torch\n"
        "model = gan.EmojiGan()\n"
        "model.load(device='cuda', quantization=sys.argv[1])\n"
        "network = model._engine.render\n"
        "draw = network._draw\n"
        "network._draw = lambda given: (given.sum().item(), draw(given))[1]\n"
        "model.generate(items(1))\n"
        "assert torch.cuda.current_stream() == torch.cuda.default_stream()\n"
    )
    told, said = elsewhere(code, form(model))
    assert "without a CUDA graph" in said
    assert told == [sha256(alone), model.fingerprint]


def test_it_draws_what_a_cpu_draws(model: gan.EmojiGan, alone: Pixels, on_cpu: Pixels) -> None:
    assert alone.shape == (COUNT, 64, 64, 3) and alone.dtype == np.uint8
    assert psnr(alone, on_cpu) > {"none": 50, "bf16": 30}[form(model)]


def test_a_graph_is_captured_and_taken(
    model: gan.EmojiGan, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = loaded(form(model))
    assert "without a CUDA graph" not in caplog.text
    assert fresh._engine is not None
    launch = fresh._engine.render._launch  # type: ignore[attr-defined]
    assert isinstance(launch.__self__, torch.cuda.CUDAGraph)
    fresh.close()


def test_calls_take_no_more_memory(model: gan.EmojiGan, alone: Pixels) -> None:
    before = torch.cuda.memory_allocated()
    for _ in range(50):
        model.generate(items(3))
    assert torch.cuda.memory_allocated() == before


def test_two_subjects_stand_side_by_side(model: gan.EmojiGan) -> None:
    both, dog = model.generate(
        [Item(0, 0, 0, text, 7, 64, 64) for text in ("a cat and a dog", "dog")]
    )
    sums = dog.reshape(32, 2, 32, 2, 3).sum((1, 3), dtype=np.int32)
    assert np.array_equal(both[16:48, 32:], ((sums + 2) // 4).astype(np.uint8))
    assert (both[:16] == 255).all()


def test_a_repair_fills_the_hole_alone_as_in_a_batch(model: gan.EmojiGan, alone: Pixels) -> None:
    hole = np.zeros((64, 64), dtype=np.uint8)
    hole[16:48, 16:40] = 255
    asked = [
        Item(n, n, 0, text, n, 64, 64, task="repair")
        for n, text in enumerate(("red heart", "sun", "pizza"))
    ]
    sources = [Input(alone[n], hole) for n in range(3)]
    together = model.generate(asked, sources)
    for row, (item, source) in enumerate(zip(asked, sources, strict=True)):
        assert np.array_equal(together[row][hole == 0], source.pixels[hole == 0])
        assert not np.array_equal(together[row][hole > 0], source.pixels[hole > 0])
        assert np.array_equal(model.generate([item], [source])[0], together[row])
