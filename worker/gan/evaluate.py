"""How well a generator draws: `python -m worker.gan.evaluate` prints the judge's figures for the
shipped weights as one JSON line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from worker import command
from worker.gan import (
    abilities,
    agreement,
    captions,
    colours,
    common,
    data,
    lexicon,
    panel,
    phrases,
    styles,
    trunk,
    validation,
    weights,
)
from worker.gan.encoder import TextEncoder
from worker.gan.score import Scorer


def sheets(options: argparse.Namespace, network: Path, encoder: TextEncoder) -> None:
    """Writes those sheets of pictures that are asked for."""
    dyed = [f"a {paint} {thing}, noto" for thing in common.DYED for paint in colours.PAINTS]
    toned = [f"{one}, {tone}, noto" for one in common.SKINNED for tone in captions.TONES]
    for path, prompts, columns in (
        (options.fifty, common.FIFTY, 10),
        (options.colours, dyed, len(colours.PAINTS)),
        (options.tones, toned, len(captions.TONES)),
    ):
        if path:
            made = agreement.pictures(agreement.shipped(network), encoder, prompts)
            validation.save(validation.to_pixels(made), columns, path)
    if options.grid:
        validation.sheet(weights.read(network).generator, encoder, options.grid)


def figures(options: argparse.Namespace, network: Path, encoder: TextEncoder) -> dict[str, float]:
    """All that the judge says of the network in a folder."""
    seen = panel.read(options.judge)
    given, toned = (lexicon.lessons(options.data, encoder, seed=1, name=name) for name in data.SETS)
    drawn, languages = agreement.shipped(network), data.languages_of(options.data)
    scorer = Scorer(options.scorer or options.weights, trunk=trunk.usual)
    told = agreement.figures(drawn, seen, given, languages)
    told |= phrases.share(encoder, given.pictures.concepts, languages)
    told |= agreement.tones(drawn, seen, given, toned)
    told |= agreement.dyed(drawn, seen, given, toned)
    told |= abilities.scores(drawn, seen, given, scorer)
    told |= abilities.repairs(drawn, given, held=True) | abilities.repairs(drawn, given, held=False)
    return told | styles.figures(drawn, seen, given, scorer)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Evaluate the shipped emoji GAN.")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--judge", type=Path, nargs="+", default=[Path("data/judge")])
    parser.add_argument("--weights", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--scorer", type=Path, help="folder of another scorer's weights")
    parser.add_argument("--network", type=Path, help="folder of another network's weights")
    pictured = parser.add_argument_group("pictures, which are written first")
    pictured.add_argument("--grid", type=Path, help="where to save the sheet of fixed prompts")
    pictured.add_argument("--fifty", type=Path, help="where to save the fifty common things")
    pictured.add_argument("--colours", type=Path, help="where to save things in every colour")
    pictured.add_argument("--tones", type=Path, help="where to save people in every skin tone")
    pictured.add_argument("--pictures-only", action="store_true", help="these without the figures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    network, encoder = options.network or options.weights, TextEncoder(options.weights)
    sheets(options, network, encoder)
    if not options.pictures_only:
        told = figures(options, network, encoder)
        print(json.dumps({name: round(value, 4) for name, value in told.items()}))


if __name__ == "__main__":
    command.run(main)
