"""The whole life of a model in about a minute: `python -m worker.tiny --out DIR` draws a small
training set, trains a small generator on it, cuts and teaches a student, brings both to int8
and renders from them as the farm does. Nothing of it is good; all of it is the real code."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from promptmill.jobs import Item
from worker import command
from worker.compress import student
from worker.gan import batches, export, lexicon, train, validation
from worker.gan.data import Concept
from worker.gan.encoder import FILE as ENCODER
from worker.gan.encoder import TextEncoder
from worker.gan.networks import SIDE, VENDORS, Generator, Widths
from worker.gan.score import FILE as SCORER
from worker.generators import gan, gan_engines

COLOURS = {"red": (220, 40, 40), "green": (30, 160, 60), "blue": (40, 70, 220)}
SHAPES = ("circle", "square", "triangle", "cross")
LARGE = Widths(hidden=64, at4=64, at8=64, at16=32, at32=32, detail=32)
SMALL = Widths(hidden=32, at4=32, at8=32, at16=32, at32=32, detail=32)
PLAN = batches.Plan(
    steps=130, adversarial=110, batch=16, rate=6e-3, critic_width=16, decay=0.98,
    save_every=65, log_every=10,
)  # fmt: skip
TAUGHT = batches.Plan(
    steps=60, adversarial=50, batch=16, rate=6e-3, critic_width=16, decay=0.98,
    save_every=60, log_every=10,
)  # fmt: skip


def drawn(shape: str, colour: tuple[int, int, int], vendor: int) -> NDArray[np.uint8]:
    """A shape as uint8 [3, 64, 64] on white: plain, with a dark rim, or with a pale middle."""
    size = _size(shape)
    picture = np.full((3, SIDE, SIDE), 255, dtype=np.uint8)
    picture[:, size < 0.7] = np.array(colour if vendor != 1 else (40, 40, 40))[:, None]
    picture[:, size < 0.55] = np.array(colour)[:, None]
    if vendor == 2:
        picture[:, size < 0.2] = 240
    return picture


def _size(shape: str) -> NDArray[np.float64]:
    """For each pixel, the size beyond which the shape holds it; half the picture is 1."""
    y, x = (np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2) / (SIDE / 2)
    far = np.maximum(abs(x), abs(y))
    sizes: dict[str, NDArray[np.float64]] = {
        "circle": np.hypot(x, y),
        "square": far,
        "triangle": np.maximum(y, 2 * abs(x) - y),
        "cross": np.maximum(3 * np.minimum(abs(x), abs(y)), far),
    }
    return sizes[shape]


def build(folder: Path) -> None:
    """Writes a training set of the form that `worker.gan.data` writes."""
    named = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    concepts = [
        Concept(
            f"{colour} {shape}", f"E{number:03X}", (f"{colour} {shape}", f"a {colour} {shape}"), 1.0
        )
        for number, (shape, colour) in enumerate(named)
    ]
    rows = [
        (drawn(shape, COLOURS[colour], vendor), number, vendor)
        for number, (shape, colour) in enumerate(named)
        for vendor in range(len(VENDORS))
    ]
    pictures, concept, vendor = zip(*rows, strict=True)
    tensors = {
        "pictures": torch.from_numpy(np.stack(pictures)),
        "concept": torch.tensor(concept),
        "vendor": torch.tensor(vendor),
        "weight": torch.ones(len(rows)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "emoji.safetensors")
    (folder / "emoji.json").write_text(json.dumps([asdict(one) for one in concepts]))
    german = {"hexcode": concepts[0].code, "label": "roter Kreis", "tags": ["rot"]}
    (folder / "languages.json").write_text(json.dumps({"de": [german]}))


def live(out: Path) -> dict[str, float]:
    """Everything, in the folder `out`; returns what is found of each network."""
    data, made = out / "data", out / "weights"
    build(data)
    given = lexicon.lessons(data, TextEncoder(gan.WEIGHTS), seed=1)
    torch.manual_seed(0)
    first = train.train(given, PLAN, out / "run", start=Generator(LARGE))
    teacher = export.export(out / "run", given, made, steps=10, coded=True)
    for file in (ENCODER, SCORER):
        shutil.copyfile(gan.WEIGHTS / file, made / file)
    second = student.teach(given, teacher, TAUGHT, out / "student", widths=SMALL)
    export.export(out / "student", given, made / gan.STUDENT, steps=10, coded=True)
    told = {f"teacher_{k}": v for k, v in validation.report(first.average, given).items()}
    told |= {f"student_{k}": v for k, v in validation.report(second.average, given).items()}
    return told


def render(weights: Path, form: str, prompts: Sequence[str]) -> NDArray[np.uint8]:
    """Pictures uint8 [N, 64, 64, 3] as the farm's worker would make them, seed 0."""
    model = gan.EmojiGan(weights)
    model.load(device="cpu", quantization=form)
    items = [Item(n, n, 0, prompt, 0, SIDE, SIDE) for n, prompt in enumerate(prompts)]
    pixels = model.generate(items)
    model.close()
    return pixels


def forms() -> list[str]:
    """The model's forms that run on this CPU."""
    missing = gan.ONNX if gan_engines.onnx_missing() else ()
    return [form for form in gan.ON_CPU if form not in missing]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data/tiny"))
    out = parser.parse_args(arguments).out
    torch.set_num_threads(1)
    told = live(out)
    prompts = [f"{colour} {shape}, noto style" for shape in SHAPES for colour in COLOURS]
    for form in forms():
        made = validation.tile(render(out / "weights", form, prompts), len(COLOURS))
        Image.fromarray(made).save(out / f"{form}.png")
    print(json.dumps({name: round(value, 4) for name, value in told.items()}))


if __name__ == "__main__":
    command.run(main)
