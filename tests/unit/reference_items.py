"""Twenty items whose bytes and scores are kept: `python -m tests.unit.reference_items` writes
the sha256 and the score of each in every form of the model, for the platform it runs on, beside
those of other platforms."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from promptmill import errors
from promptmill.jobs import Item
from worker.generators import gan, gan_engines

FILE = Path(__file__).with_suffix(".json")
PROMPTS = (
    "red heart", "rocket, twemoji style", "rocket, fluent style", "a cat and a dog", "火箭",
    "りんご", "ein rotes Auto", "perro", "gâteau d'anniversaire", "🐳", "🇫🇷", "", "grinning face",
    "flag of Japan", "a photo of an apple on a table", "Привет", "pizza " * 40, "purple dog",
    "soccer ball, noto", "x",
)  # fmt: skip


def items() -> list[Item]:
    return [Item(n, n, 0, text, 1000 + n, 64, 64) for n, text in enumerate(PROMPTS)]


def rendered(form: str) -> tuple[list[str], list[float]]:
    """sha256 of each item's pixels, four to a batch, and its score."""
    model = gan.EmojiGan()
    model.load(device="cpu", quantization=form)
    asked = items()
    parts = [asked[at : at + 4] for at in range(0, len(asked), 4)]
    made = [model.generate(part) for part in parts]
    scores = [model.score(part, pixels) for part, pixels in zip(parts, made, strict=True)]
    digests = [hashlib.sha256(one.tobytes()).hexdigest() for pixels in made for one in pixels]
    return digests, [score for part in scores for score in part]


def kept() -> dict[str, list[dict[str, Any]]]:
    """Of each form, what platforms draw: {platform, sha256, scores}; null for what has changed
    since a platform was last seen."""
    made: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text())
    return made


def known(was: list[Any] | None, now: list[Any]) -> list[Any]:
    """What a platform drew or scored, and where it has not been seen since, what is found now."""
    return [
        there if there is not None else here for there, here in zip(was or now, now, strict=True)
    ]


def platform(form: str) -> list[str]:
    return gan_engines.platform(onnx=form in gan.ONNX, exact=form in gan.INT8)


def drawn_here() -> list[str]:
    """The forms that this processor draws with."""
    made, found = gan.EmojiGan(), []
    for form in gan.ON_CPU:
        with contextlib.suppress(errors.UnsupportedParameter):
            found += [made.resolve(device="cpu", quantization=form).quantization]
    return [form for form in gan.ON_CPU if form in found]


def write() -> None:
    found = kept()
    for form in drawn_here():
        here = platform(form)
        digests, scores = rendered(form)
        others = [one for one in found.get(form, []) if one["platform"] != here]
        own = {"platform": here, "sha256": digests, "scores": scores}
        found[form] = sorted([own, *others], key=lambda one: one["platform"])
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    write()
