"""The whole life of a model, small: a training set drawn by code, regression, the critic, the
student, int8, and pictures from the farm's own generator."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch

from worker import tiny
from worker.compress import int8, prune
from worker.gan import checkpoint, manifest, weights
from worker.generators import gan

pytestmark = pytest.mark.timeout(600)  # beside other work


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("life")
    return out, tiny.live(out)


def test_a_shape_of_each_vendor_is_another_drawing() -> None:
    plain, rimmed, pale = (tiny.drawn("circle", (220, 40, 40), vendor) for vendor in range(3))
    assert plain[:, 32, 32].tolist() == [220, 40, 40] and plain[:, 0, 0].tolist() == [255] * 3
    assert rimmed[:, 32, 11].tolist() == [40, 40, 40] and pale[:, 32, 32].tolist() == [240] * 3


def test_both_networks_learn_what_they_are_asked(life: tuple[Path, dict[str, float]]) -> None:
    told = life[1]
    for network in ("teacher", "student"):
        assert told[f"{network}_psnr"] > 15, told
        assert told[f"{network}_found_noto"] >= 0.75, told  # chance: a twelfth


@pytest.mark.parametrize("form", tiny.forms())
def test_every_form_renders_the_colour_asked_for(
    life: tuple[Path, dict[str, float]], form: str
) -> None:
    prompts = [f"{colour} square, noto style" for colour in tiny.COLOURS]
    made = tiny.render(life[0] / "weights", form, prompts)
    middle = made[:, 28:36, 28:36].mean((1, 2))
    assert middle.argmax(1).tolist() == [0, 1, 2]
    assert (made[:, :3, :3] > 200).all() and np.ptp(middle, axis=1).min() > 60


def test_every_step_says_what_it_made_from_what_and_how_it_was_measured(
    life: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    out, made = life[0], life[0] / "weights"
    told = {
        folder: json.loads((folder / manifest.FILE).read_text())
        for folder in (made, out / "student", made / gan.STUDENT)
    }
    assert [one["what"] for one in told.values()] == ["export", "student", "export"]
    teacher, student = weights.read(made), told[out / "student"]
    assert student["from"] == {"teacher": teacher.digest}
    run = student["made"][checkpoint.TENSORS]["sha256"]
    assert told[made / gan.STUDENT]["from"] == {checkpoint.TENSORS: run}
    for folder, one in told.items():
        for name, file in one["made"].items():
            data = (folder / name).read_bytes()
            assert file == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        assert all(figure["how"] and figure["unit"] for figure in one["figures"].values())
    assert told[made]["figures"]["psnr_float32"]["value"] > 25
    assert told[made]["figures"]["psnr_int8"]["value"] > 25


def test_prune_and_int8_are_commands_with_manifests(
    life: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    data, made = ["--data", str(life[0] / "data")], life[0] / "weights"
    widths = [str(count) for count in astuple(tiny.SMALL)]
    cut, small = tmp_path / "cut", tmp_path / "small"
    prune.main([*data, "--source", str(made), "--out", str(cut), "--widths", *widths])
    int8.main([*data, "--source", str(cut), "--out", str(small), "--adapt", "2"])
    pruned, coded = (json.loads((at / manifest.FILE).read_text()) for at in (cut, small))
    assert pruned["what"] == "prune" and pruned["from"] == {"weights": weights.read(made).digest}
    assert coded["what"] == "int8" and coded["from"] == {"weights": weights.read(cut).digest}
    assert weights.read(cut).generator.widths == tiny.SMALL
    assert pruned["figures"]["parameters"]["value"] == coded["figures"]["parameters"]["value"]
    assert coded["figures"]["psnr_int8"]["value"] > pruned["figures"]["psnr_float32"]["value"]
    sizes = [one["made"][weights.NETWORK]["bytes"] for one in (pruned, coded)]
    assert sizes[1] < 0.6 * sizes[0]
