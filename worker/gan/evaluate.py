"""How well a generator draws: `python -m worker.gan.evaluate` prints the judge's figures for the
shipped weights as one JSON line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from worker.gan import (
    abilities,
    agreement,
    colours,
    common,
    data,
    lexicon,
    panel,
    styles,
    trunk,
    validation,
    weights,
)
from worker.gan.encoder import TextEncoder
from worker.gan.score import Scorer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Evaluate the shipped emoji GAN.")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--judge", type=Path, nargs="+", default=[Path("data/judge")])
    parser.add_argument("--weights", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--scorer", type=Path, help="folder of another scorer's weights")
    parser.add_argument("--network", type=Path, help="folder of another network's weights")
    parser.add_argument("--grid", type=Path, help="where to save the sheet of fixed prompts")
    parser.add_argument("--fifty", type=Path, help="where to save the fifty common things")
    parser.add_argument("--colours", type=Path, help="where to save things in every colour")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    network = options.network or options.weights
    encoder = TextEncoder(options.weights)
    given, toned = (lexicon.lessons(options.data, encoder, seed=1, name=name) for name in data.SETS)
    drawn = agreement.shipped(network)
    languages = data.languages_of(options.data)
    seen = panel.read(options.judge)
    scorer = Scorer(options.scorer or options.weights, trunk=trunk.usual)
    told = agreement.figures(drawn, seen, given, languages)
    told |= agreement.tones(drawn, seen, given, toned)
    told |= agreement.dyed(drawn, seen, given, toned)
    told |= abilities.scores(drawn, seen, given, scorer)
    told |= abilities.repairs(drawn, given, held=True) | abilities.repairs(drawn, given, held=False)
    told |= styles.figures(drawn, seen, given, scorer)
    if options.fifty:
        fifty = agreement.pictures(drawn, given.encoder, common.FIFTY)
        validation.save(validation.to_pixels(fifty), 10, options.fifty)
    if options.colours:
        asked = [f"a {paint} {thing}, noto" for thing in common.DYED for paint in colours.PAINTS]
        dyed = agreement.pictures(drawn, given.encoder, asked)
        validation.save(validation.to_pixels(dyed), len(colours.PAINTS), options.colours)
    if options.grid:
        validation.sheet(weights.read(network).generator, given.encoder, options.grid)
    print(json.dumps({name: round(value, 4) for name, value in told.items()}))


if __name__ == "__main__":
    main()
