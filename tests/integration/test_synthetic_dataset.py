"""The example that learns from rendered pictures alone: what it reads, and that it learns."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from examples import synthetic_dataset
from worker import tiny
from worker.gan import common


def test_pictures_are_picked_by_class() -> None:
    pictures = torch.arange(4)[:, None].expand(4, 3)
    picked, classes = synthetic_dataset.of_classes(pictures, torch.tensor([9, 5, 7, 5]), [5, 9])
    assert picked[:, 0].tolist() == [0, 1, 3] and classes.tolist() == [1, 0, 0]


def test_what_the_farm_drew_is_read_back_by_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(folder: Path) -> None:
        lines = []
        for number, prompt in enumerate((common.FIFTY[3], common.FIFTY[0])):
            Image.new("RGB", (64, 64), (number, 2, 3)).save(folder / f"{number}.png")
            lines.append(json.dumps({"file_name": f"{number}.png", "text": prompt}))
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")

    asked = []
    job = SimpleNamespace(
        id="job_1", counts=SimpleNamespace(total=2), wait=lambda: None, download=download
    )
    farm = SimpleNamespace(submit=lambda rows, name: asked.extend(rows) or job)
    monkeypatch.setattr(synthetic_dataset, "Client", lambda: nullcontext(farm))
    pictures, classes = synthetic_dataset.render(tmp_path, 7)
    assert len(asked) == 50 and {row["n"] for row in asked} == {7}
    assert classes.tolist() == [3, 0] and pictures[:, :, 0, 0].tolist() == [[0, 2, 3], [1, 2, 3]]


def test_a_classifier_learns_from_one_vendor_and_knows_another() -> None:
    torch.set_num_threads(1)

    def shapes(vendor: int) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = [tiny.drawn(shape, (40, 70, 220), vendor) for shape in tiny.SHAPES]
        return torch.stack(list(map(torch.from_numpy, drawn))), torch.arange(len(drawn))

    network = synthetic_dataset.learn(*shapes(0), steps=60, seed=0)
    assert synthetic_dataset.known(network, *shapes(1))["top1"] >= 0.75
