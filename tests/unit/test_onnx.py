"""int8 by ONNX Runtime: the graph, its bytes, how near its pictures are to torch's, and that it
needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from promptmill import errors
from tests.unit import reference_items
from tests.unit.test_gan_generator import item
from worker.compress import graph, runtime
from worker.gan import inputs, integers, manifest, networks, weightfile
from worker.gan.encoder import TextEncoder
from worker.generators import gan, gan_engines, processor
from worker.generators.base import Input

STUDENT = gan.WEIGHTS / gan.STUDENT


@pytest.fixture(scope="module", params=gan.ONNX)
def model(request: pytest.FixtureRequest) -> gan.EmojiGan:
    made = gan.EmojiGan()
    made.load(device="cpu", quantization=request.param)
    return made


def test_the_file_is_small_static_and_the_same_each_time(tmp_path: Path) -> None:
    graph.main(["--source", str(STUDENT), "--out", str(tmp_path)])
    data = (tmp_path / graph.FILE).read_bytes()
    assert len(data) < 4e6 and data == graph.build(weightfile.read(STUDENT))
    told = json.loads((tmp_path / manifest.FILE).read_text())
    assert told["what"] == "onnx" and told["made"][graph.FILE]["bytes"] == len(data)
    assert told["from"] == {"weights": weightfile.read(STUDENT).digest}
    assert told["figures"]["psnr_torch_int8"]["value"] > 40
    made = onnx.load_from_string(data).graph
    large = [t for t in made.initializer if np.prod(t.dims) > 10_000]
    assert large and {t.data_type for t in large} == {TensorProto.INT8}
    kinds = [node.op_type for node in made.node]
    assert kinds.count("QuantizeLinear") == 10 and "DynamicQuantizeLinear" not in kinds


def test_an_image_is_the_same_in_any_batch_and_place(model: gan.EmojiGan) -> None:
    alone = [model.generate([item(number)])[0] for number in range(32)]
    for size in (2, 3, 8, 32):
        for at in range(0, 32, size):
            made = model.generate([item(n) for n in range(at, min(at + size, 32))])
            assert np.array_equal(made, np.stack(alone[at : at + size])), size
    order = np.random.default_rng(1).permutation(32)
    made = model.generate([item(int(number)) for number in order])
    assert np.array_equal(made, np.stack([alone[number] for number in order]))


@pytest.mark.parametrize(("form", "like"), [("onnx", "int8"), ("student-onnx", "student")])
def test_its_pictures_are_nearly_those_of_torch(form: str, like: str) -> None:
    both = []
    for name in (form, like):
        made = gan.EmojiGan()
        made.load(device="cpu", quantization=name)
        both.append(made.generate(reference_items.items()).astype(float))
    assert both[0].shape == (20, 64, 64, 3)
    assert 10 * np.log10(255**2 / np.square(both[0] - both[1]).mean()) > 40


def test_a_repair_touches_only_the_hole(model: gan.EmojiGan) -> None:
    (whole,) = model.generate([item(0, "red heart, noto style", 3)])
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[20:44, 20:44] = 255
    spoilt = np.where(mask[..., None] > 0, np.uint8(0), whole)
    asked = [reference_items.Item(0, 0, 0, "red heart", 3, 64, 64, task="repair")]
    (made,) = model.generate(asked, [Input(spoilt, mask)])
    assert np.array_equal(made[mask == 0], whole[mask == 0])
    assert made[32, 32, 0] > 150 > made[32, 32, 2]


def test_rendering_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from promptmill.jobs import Item\n"
        "from worker.generators.gan import EmojiGan\n"
        "model = EmojiGan(); model.load(device='cpu', quantization='student-onnx')\n"
        "model.warmup((1, 2))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_conditions_without_torch_are_the_same_bits() -> None:
    chance = torch.Generator().manual_seed(0)
    text, noise = torch.randn(7, 384, generator=chance), torch.randn(7, 16, generator=chance) * 3
    vendor = torch.arange(7) % 3
    made = inputs.condition(text.numpy(), vendor.numpy(), noise.numpy())
    assert np.array_equal(made, networks.condition(text, vendor, noise).numpy())


@pytest.mark.parametrize("seed", [0, 1, -1, 77, 2**31, 2**32 + 5, 2**53 - 1, -(2**70), 2**80 + 3])
def test_random_numbers_without_torch_are_torchs_to_the_last_bits(seed: int) -> None:
    chance = torch.Generator().manual_seed(seed & gan_engines.SEED_MASK)
    noise, vendor = inputs.draws(seed)
    assert np.allclose(noise, torch.randn(16, generator=chance), rtol=0, atol=5e-7)
    assert vendor == int(torch.randint(3, (), generator=chance))


def test_texts_without_torch_are_the_same_bits() -> None:
    ours, theirs = TextEncoder(gan.WEIGHTS, dense=runtime.dense), TextEncoder(gan.WEIGHTS)
    prompts = reference_items.PROMPTS
    assert np.array_equal(ours.encode(prompts), theirs.encode(prompts))
    assert np.array_equal(ours.encode(prompts[3:4])[0], theirs.encode(prompts)[3])


def test_it_is_refused_where_its_libraries_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = gan.EmojiGan()
    monkeypatch.setattr(gan_engines, "find_spec", lambda _: None)
    with pytest.raises(errors.UnsupportedParameter, match=r"pip install 'promptmill\[onnx\]'"):
        fresh.resolve(device="cpu", quantization="student-onnx")


@pytest.mark.parametrize(
    ("machine", "flags", "level"),
    [
        ("x86_64", "fpu avx2 avx512f avx512_vnni", "x86_64 avx512_vnni"),
        ("AMD64", "avx2 avx_vnni", "amd64 avx_vnni"),
        ("x86_64", "avx2 avx512f", "x86_64 avx512f"),
        ("x86_64", "sse4_2", "x86_64 sse"),
        ("aarch64", "", "aarch64"),
    ],
)
def test_what_a_processor_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, flags: str, level: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    monkeypatch.setattr(processor, "INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    processor.level.cache_clear()
    try:
        assert processor.level() == level
    finally:
        processor.level.cache_clear()


def test_a_matrix_unit_is_another_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor, "INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(integers, "supported", lambda: True)
    found = []
    for flags in ("avx512_vnni", "avx512_vnni amx_int8 amx_tile"):
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
        found.append(set(gan_engines.platform(exact=True)))
    assert found[1] - found[0] == {"amx_int8"} and not found[0] - found[1]


def test_this_processor_is_seen_as_torch_sees_it() -> None:
    if processor.level().startswith("x86_64"):
        assert processor.level().endswith("vnni") == bool(torch.cpu._is_vnni_supported())
