"""Smaller numbers that run on a CPU, by the libraries themselves: tiny checkpoints loaded with
each, what is held smaller and what is not, the same bytes beside any neighbours."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promptmill import errors
from promptmill.jobs import Item
from tests import checkpoints
from worker.generators import device as devices
from worker.generators import quantization, registry
from worker.generators.diffusers import Diffusers
from worker.generators.transformers import Autoregressive

pytestmark = [
    pytest.mark.timeout(400),
    # of torchao and its neighbours, at their import
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantized")


def opened(folder: Path, name: str) -> Any:
    place, options = folder / name, folder / "options.json"
    if not place.exists():
        if name == "flux_gguf":
            write_gguf(checkpoints.make("flux_schnell", place))
        else:
            checkpoints.make(name, place)
    options.write_text(json.dumps({"sizes": ["64x64"], "batch_shapes": [1, 2, 4]}))
    return registry.create(str(place), str(options))


def write_gguf(flux: Path) -> None:
    """The transformer as such checkpoints bring it: one file of 8-bit blocks, no other weights."""
    import gguf
    from diffusers import FluxTransformer2DModel

    eight = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(str(flux / "flux-q8_0.gguf"), arch="flux")
    for name, weights in (
        FluxTransformer2DModel.from_pretrained(flux, subfolder="transformer").state_dict().items()
    ):
        array = weights.float().numpy()
        if array.ndim == 2 and array.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(array, eight), raw_dtype=eight)
        else:
            writer.add_tensor(name, array)
    for write in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{write}_to_file")()
    writer.close()
    for path in (flux / "transformer").glob("*.safetensors"):
        path.unlink()


def held(generator: Any) -> Counter[str]:
    """How many matrices of the large component are held as what."""
    if isinstance(generator, Diffusers):
        part = generator._pipes["text2image"].transformer
    else:
        assert isinstance(generator, Autoregressive)
        part = generator._family.model  # type: ignore[union-attr]
    found = (m.weight for m in part.modules() if "Linear" in type(m).__name__)
    return Counter(type(weight).__name__ for weight in found)


@pytest.mark.parametrize(
    ("name", "setting", "kind"),
    [
        ("janus", "int8", "Int8Tensor"),
        ("janus", "nf4", "Params4bit"),
        ("emu3", "int8", "Int8Tensor"),
        ("emu3", "nf4", "Params4bit"),
        ("flux_schnell", "int8", "Int8Tensor"),
        ("flux_gguf", "gguf", "GGUFParameter"),
    ],
)
def test_it_loads_renders_and_stays_the_same_beside_any_neighbours(
    folder: Path, name: str, setting: str, kind: str
) -> None:
    generator = opened(folder, name)
    generator.load(device="cpu", quantization=setting)
    try:
        assert setting in generator.caps.quantizations
        assert generator.caps.batch_shapes == (1, 2, 4)
        assert held(generator)[kind] >= 14
        items = [
            Item(k, k, 0, f"a heart {'and a cat ' * k}", k, 64, 64, guidance=2.0) for k in range(6)
        ]
        items = [replace(item, steps=2) for item in items] if "flux" in name else items
        one, other = generator.generate(items[:4]), generator.generate(items[5:3:-1] + items[:2])
        assert (one[:2] == other[2:]).all()
        assert len({picture.tobytes() for picture in one}) == 4
        fingerprint = generator.fingerprint
    finally:
        generator.close()
    plain = opened(folder, "flux_schnell" if "flux" in name else name)
    plain.load(device="cpu", quantization="bf16" if devices.bfloat16() else "none")
    near = plain.generate(items[:4])
    plain.close()
    assert plain.fingerprint != fingerprint
    if "flux" in name:  # a token, in contrast, is the same or quite another
        assert 0 < abs(near.astype(int) - one).max() <= 8


def test_what_reads_and_draws_pictures_keeps_its_numbers(folder: Path) -> None:
    generator = opened(folder, "janus")
    generator.load(device="cpu", quantization="nf4")
    model = generator._family.model
    named = {
        name: type(m.weight).__name__
        for name, m in model.named_modules()
        if "Linear" in type(m).__name__
    }
    generator.close()
    small = {name for name, kind in named.items() if kind == "Params4bit"}
    assert small == {name for name in named if name.startswith("model.language_model.")}
    assert len(small) < len(named)


def test_diffusers_itself_has_no_nf4_without_a_gpu(folder: Path) -> None:
    """Why the setting is refused: when this fails, the refusal can go."""
    import diffusers

    generator = opened(folder, "flux_schnell")
    with pytest.raises(errors.UnsupportedParameter, match="needs a GPU"):
        generator.load(device="cpu", quantization="nf4")
    config = quantization.config(quantization.Plan("nf4", "bfloat16", "bitsandbytes"), "diffusers")
    with pytest.raises(RuntimeError, match="No GPU found"):
        diffusers.FluxTransformer2DModel.from_pretrained(
            folder / "flux_schnell", subfolder="transformer", quantization_config=config
        )


def test_a_gguf_checkpoint_of_no_other_weights_says_what_it_needs(folder: Path) -> None:
    generator = opened(folder, "flux_gguf")
    with pytest.raises(errors.Error, match="cannot be loaded"):
        generator.load(device="cpu", quantization="none")


def test_eight_bit_floats_scale_each_row_alone() -> None:
    from torchao import quantization as torchao

    fp8 = quantization._torchao(torchao, quantization._PLANS["fp8"])
    assert {type(each).__name__ for each in fp8.granularity} == {"PerRow"}
    assert not fp8.set_inductor_config
