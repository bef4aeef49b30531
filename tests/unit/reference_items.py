"""Twenty items whose bytes are kept: `python -m tests.unit.reference_items` prints their
sha256 in every form of the model, for the platform it runs on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from promptmill.jobs import Item
from worker.generators import gan, gan_engines

PROMPTS = (
    "red heart", "rocket, twemoji style", "rocket, fluent style", "a cat and a dog", "火箭",
    "りんご", "ein rotes Auto", "perro", "gâteau d'anniversaire", "🐳", "🇫🇷", "", "grinning face",
    "flag of Japan", "a photo of an apple on a table", "Привет", "pizza " * 40, "purple dog",
    "soccer ball, noto", "x",
)  # fmt: skip


def items() -> list[Item]:
    return [Item(n, n, 0, text, 1000 + n, 64, 64) for n, text in enumerate(PROMPTS)]


def rendered(form: str) -> list[str]:
    """sha256 of each item's pixels, four to a batch."""
    model = gan.EmojiGan()
    model.load(device="cpu", quantization=form)
    asked = items()
    batches = [model.generate(asked[at : at + 4]) for at in range(0, len(asked), 4)]
    return [hashlib.sha256(picture.tobytes()).hexdigest() for made in batches for picture in made]


def told() -> dict[str, Any]:
    forms = {form: rendered(form) for form in gan.ON_CPU}
    return {"platform": {form: platform(form) for form in forms}, "sha256": forms}


def platform(form: str) -> list[str]:
    return gan_engines.platform(onnx=form in gan.ONNX)


if __name__ == "__main__":
    print(json.dumps(told(), indent=1))
