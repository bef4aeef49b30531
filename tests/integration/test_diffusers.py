"""The diffusers adapter on a tiny checkpoint: adapters by name, the safety checker's verdict, a
pipeline whose neighbours leak. Weights that are refused on load, also those of transformers."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from api.submissions.fields import LEAST_STRENGTH
from promptmill import errors
from promptmill.jobs import Item
from tests import checkpoints
from worker.generators import device as devices
from worker.generators import (
    diffusers,
    diffusers_loading,
    diffusers_pixels,
    registry,
    transformers,
)
from worker.generators.base import Input, Pixels
from worker.generators.diffusers import Diffusers
from worker.generators.transformers import Autoregressive
from worker.outcomes import REJECTED, Fault, Picture
from worker.render import Renderer

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
ITEM = Item(0, 0, 0, "a red heart", 1, 64, 64, steps=2, guidance=2.0)


def write_lora(sd: Path, place: Path) -> Path:
    """An adapter of the checkpoint's network, strong enough to be seen."""
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(sd, subfolder="unet")
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    with torch.no_grad():
        for name, weights in unet.named_parameters():
            if "lora" in name:
                weights.normal_()
    StableDiffusionPipeline.save_lora_weights(place, get_peft_model_state_dict(unet))
    return next(place.glob("*.safetensors"))


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Diffusers]:
    folder = tmp_path_factory.mktemp("sd")
    made = checkpoints.make("sd", folder / "sd")
    adapter = write_lora(made, folder / "lora")
    options = folder / "options.json"
    options.write_text(
        json.dumps({"sizes": ["64x64"], "batch_shapes": [2], "loras": {"bold": str(adapter)}})
    )
    generator = registry.create(str(made), str(options))
    assert isinstance(generator, Diffusers)
    generator.load(device="cpu", quantization="none")
    yield generator
    generator.close()


def test_an_adapter_is_active_for_its_own_bucket_alone(generator: Diffusers) -> None:
    assert generator.caps.loras == ("bold",)
    assert "lora=bold" in generator.caps.bucket(replace(ITEM, lora="bold"))
    plain = generator.generate([ITEM] * 2)
    bold = generator.generate([replace(ITEM, lora="bold")] * 2)
    again = generator.generate([ITEM] * 2)
    assert (plain == again).all()
    assert (plain != bold).any()


def test_an_adapter_of_another_model_or_a_damaged_one_is_refused(
    generator: Diffusers, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    own = generator.options.loras["bold"]
    held = {key: torch.cat([value] * 2, 1) for key, value in load_file(own).items()}
    flux = "transformer.single_transformer_blocks.0.attn.to_q"
    save_file(held, tmp_path / "wide.safetensors")
    save_file(
        {f"{flux}.lora_A.weight": torch.ones(2, 32), f"{flux}.lora_B.weight": torch.ones(32, 2)},
        tmp_path / "flux.safetensors",
    )
    (tmp_path / "cut.safetensors").write_bytes(Path(own).read_bytes()[:-8])
    held = load_file(own)
    lost = next(key for key in held if "lora.down" in key or "lora_A" in key)
    save_file({k: v for k, v in held.items() if k != lost}, tmp_path / "less.safetensors")
    moved = {f"extra.{k}" if k == lost else k: v for k, v in held.items()}
    save_file(moved, tmp_path / "moved.safetensors")
    for name, told in (
        ("flux", "is one of another model"),
        ("wide", "cannot be loaded"),
        ("cut", "cannot be loaded"),
        ("less", "is incomplete, fetch it again: it lacks unet.*lora_A.*"),
        ("moved", "is incomplete, fetch it again: it lacks unet.*lora_A.*"),
    ):
        path = tmp_path / f"{name}.safetensors"
        with pytest.raises(
            errors.ModelInvalid, match=rf"adapter {name} \({path}\) {told}"
        ) as raised:
            diffusers_loading.load_loras(
                diffusers_loading.read(generator.checkpoint, generator._plan("none")),
                {name: str(path)},
            )
        assert len(str(raised.value)) < 700


@pytest.mark.parametrize("strength", [LEAST_STRENGTH, 1 / 161])
def test_the_weakest_strengths_leave_a_step(generator: Diffusers, strength: float) -> None:
    item = replace(ITEM, task="img2img", strength=strength)
    source = Input(np.full((64, 64, 3), 128, np.uint8))
    assert generator.generate([item] * 2, [source] * 2).shape == (2, 64, 64, 3)


def test_what_the_checkpoints_own_checker_flags_is_rejected_alone(
    generator: Diffusers, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = generator._pipes["text2image"]

    class Flagging(type(pipe)):  # type: ignore[misc]
        def __call__(self, **arguments: Any) -> Any:
            made = super().__call__(**arguments)
            flags = ["nude" in prompt for prompt in arguments["prompt"]]
            return SimpleNamespace(images=made.images, nsfw_content_detected=flags)

    monkeypatch.setattr(pipe, "__class__", Flagging)
    kept, flagged = Renderer(generator).render("b", [ITEM, replace(ITEM, prompt="nude")])
    assert isinstance(kept, Picture)
    assert flagged == Fault(REJECTED, "the checkpoint's safety checker")


def test_numbers_that_are_no_picture_fail_alone(
    generator: Diffusers, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = generator._pipes["text2image"]

    class Spoilt(type(pipe)):  # type: ignore[misc]
        @functools.wraps(type(pipe).__call__)  # whose arguments are asked for
        def __call__(self, **arguments: Any) -> Any:
            images = super().__call__(**arguments).images.clone()
            for place, prompt in enumerate(arguments["prompt"]):
                if "spoilt" in prompt:
                    images[place, 0, 0, 0] = float("nan")
            return SimpleNamespace(images=images)

    [wanted] = Renderer(generator).render("b", [ITEM])
    monkeypatch.setattr(pipe, "__class__", Spoilt)
    kept, spoilt = Renderer(generator).render("b", [ITEM, replace(ITEM, prompt="spoilt")])
    assert isinstance(kept, Picture) and isinstance(wanted, Picture)
    assert (kept.pixels == wanted.pixels).all()
    assert isinstance(spoilt, Fault) and spoilt.code == "render_failed"
    assert "NaN" in spoilt.text


def test_a_pipeline_that_leaks_between_neighbours_is_found_out(
    generator: Diffusers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generator._steady()

    def leaking(items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        longest = max(len(item.prompt) for item in items)
        return np.full((len(items), 64, 64, 3), longest % 256, np.uint8)

    monkeypatch.setattr(generator, "generate", leaking)
    assert not generator._steady()


def test_an_image_is_the_same_to_the_last_bit_in_every_place(
    generator: Diffusers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared before they are rounded to bytes, which hides most differences. The width of 37
    in the text encoder is no whole number of vectors."""
    made: list[Any] = []
    to_bytes = diffusers_pixels.bytes_of

    def spy(images: Any) -> Pixels:
        made.append(images.clone())
        return to_bytes(images)

    monkeypatch.setattr(diffusers_pixels, "bytes_of", spy)
    prompts = [f"a house by the sea {'and a cat ' * k}" for k in (0, 1, 5, 6)]
    items = [replace(ITEM, prompt=prompt, seed=k) for k, prompt in enumerate(prompts)]
    for item, other in itertools.pairwise([*items, items[0]]):
        made.clear()
        generator.generate([item, other])
        generator.generate([other, item])
        assert (made[0][0] == made[1][1]).all()
        assert (made[0][1] == made[1][0]).all()


@pytest.mark.parametrize(
    ("name", "part", "tensor"),
    [
        ("sd", "unet", "conv_in.weight"),
        ("sd", "text_encoder", "final_layer_norm.weight"),
        ("flux_schnell", "text_encoder_2", "shared.weight"),
        ("janus", ".", "lm_head.weight"),
    ],
)
def test_a_checkpoint_that_lacks_a_tensor_is_refused(
    tmp_path: Path, name: str, part: str, tensor: str
) -> None:
    """The libraries fill it with random numbers, others at each load."""
    from safetensors.torch import load_file, save_file

    made = checkpoints.make(name, tmp_path / name)
    [path] = (made / part).glob("*.safetensors")
    held = load_file(path)
    assert held.keys() >= {tensor}
    save_file({key: value for key, value in held.items() if key != tensor}, path, {"format": "pt"})
    with pytest.raises(errors.Error, match=rf"{made / part} is incomplete.* lacks.*{tensor}$"):
        registry.create(str(made)).load(device="cpu", quantization="none")


@pytest.mark.parametrize(
    ("name", "part", "config"),
    [
        ("sd", "unet", '"cross_attention_dim": 32'),
        ("sd", "text_encoder", '"vocab_size": 514'),
        ("janus", ".", '"vocab_size": 512'),
    ],
)
def test_weights_that_are_cut_off_or_of_another_shape_are_refused(
    tmp_path: Path, name: str, part: str, config: str
) -> None:
    made = checkpoints.make(name, tmp_path / name)
    path = made / part / "config.json"
    plain = path.read_text()
    assert config in plain
    path.write_text(plain.replace(config, f"{config.partition(':')[0]}: 400"))
    with pytest.raises(errors.Error, match=f"{made} cannot be loaded"):
        registry.create(str(made)).load(device="cpu", quantization="none")
    path.write_text(plain)
    [weights] = (made / part).glob("*.safetensors")
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(errors.ModelInvalid, match=f"{weights} is damaged, fetch it again"):
        registry.create(str(made)).load(device="cpu", quantization="none")


@pytest.mark.parametrize("name", ["sd", "janus"])
def test_too_little_memory_for_the_weights_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import torch

    def full(self: Any, *args: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    made = checkpoints.make(name, tmp_path / name)
    with pytest.raises(errors.TooLarge, match=f"{name} does not fit .*QUANTIZATION.*of memory"):
        registry.create(str(made)).load(device="cpu", quantization="none")


def test_rules_and_libraries_are_part_of_the_fingerprint(
    generator: Diffusers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    (tmp_path / "config.json").write_text('{"model_type": "janus"}')
    plan, loras = generator._plan("none"), {"bold": "00"}
    other = Autoregressive(
        replace(generator.checkpoint, folder=tmp_path), replace(generator.options, loras={})
    )
    found: list[tuple[str, str]] = []

    def tell() -> None:
        found.append((generator._digest(plan, loras), other._digest(plan)))

    tell()
    monkeypatch.setattr(diffusers, "RULES", "0")
    monkeypatch.setattr(transformers, "RULES", "0")
    tell()
    monkeypatch.setattr(devices, "name", lambda device: "a GPU")
    for each in (generator, other):
        monkeypatch.setattr(each, "_device", "cuda")
    for version in (90000, 91000):
        monkeypatch.setattr(torch.backends.cudnn, "version", lambda version=version: version)
        tell()
    assert [len(set(each)) for each in zip(*found, strict=True)] == [4, 4]
    plain = generator._digest(plan, {})
    monkeypatch.setattr(diffusers.metadata, "version", lambda name: f"another {name}")
    assert generator._digest(plan, loras) != found[-1][0]
    assert generator._digest(plan, {}) == plain


@pytest.mark.parametrize(
    ("name", "size", "cell"), [("flux_schnell", "66x64", 4), ("sd", "64x65", 2)]
)
def test_a_size_that_the_pipeline_would_round_is_refused_on_load(
    tmp_path: Path, name: str, size: str, cell: int
) -> None:
    options = tmp_path / "options.json"
    options.write_text(json.dumps({"sizes": ["64x64", size]}))
    other = registry.create(str(checkpoints.make(name, tmp_path / name)), str(options))
    with pytest.raises(errors.SettingInvalid, match=f"{size}: .* multiples of {cell}"):
        other.load(device="cpu", quantization="none")


def test_formats_that_bring_nothing_here_are_refused_on_load(generator: Diffusers) -> None:
    assert generator.caps.quantizations == ("none", "bf16")
    other = Diffusers(generator.checkpoint, generator.options)
    with pytest.raises(errors.UnsupportedParameter, match="linear layers"):
        other.load(device="cpu", quantization="int8")
    with pytest.raises(errors.UnsupportedParameter, match="no GPU here"):
        other.load(device="cuda", quantization="none")
