"""What the judge says of a generator's pictures: do they show what the text says, how close
are they to real ones as a set, how much do seeds differ. Figures only; draws nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.gan import (
    asking,
    captions,
    colours,
    common,
    composing,
    corpus,
    data,
    dyes,
    integers,
    lexicon,
    pairs,
    panel,
    weights,
)
from worker.gan.encoder import TextEncoder
from worker.gan.lexicon import Lessons
from worker.gan.networks import NOISE, SIDE, VENDORS, condition
from worker.gan.panel import Panel

Draw = Callable[[Tensor], Tensor]  # conditions [N, 416] -> pictures [N, 3, 64, 64]
LANGUAGES = ("zh", "es", "de", "fr", "ja")
SEEDS = 8
COPY = 0.0015  # mean squared error to a training picture below which one is a near-copy


def shipped(folder: Path) -> Draw:
    """What the weights in a folder draw, in int8 where this processor can."""
    found = weights.read(folder)
    small = integers.IntegerGenerator(found.generator, found.ranges)
    return lambda given: torch.cat([small(part) for part in torch.split(given, 32)]).float() / 255


def figures(
    draw: Draw, seen: Panel, given: Lessons, languages: dict[str, list[dict[str, Any]]]
) -> dict[str, float]:
    """All figures by name. rank1, rank5: share of pictures whose right name is the nearest,
    or among the five nearest, of all names; `real_…` the same of the vendors' own pictures;
    `still_…` of pictures without a seed's noise."""
    shown, texts = given.pictures, given.texts
    named = _names_of(seen, given)
    held = torch.arange(data.HELD_FIRST, len(shown.concepts), data.HELD_EVERY)
    taught = _taught(given)
    made = drawn(draw, texts.named[taught])
    told = _ranks("seen", seen.vectors(made), named, taught)
    still = seen.vectors(drawn(draw, texts.named[taught], noisy=False))
    told |= _ranks("still", still, named, taught)
    real = torch.isin(shown.concept, taught)
    told |= _ranks("real", seen.vectors(shown.pictures[real]), named, shown.concept[real])
    told |= _ranks("held", _judged(draw, seen, texts.named[held]), named, held)
    wording = {number: text for text, number in corpus.held(shown.concepts, random.Random(1))}
    asked = lexicon.embed(given.encoder, [wording[n] for n in taught.tolist()])
    told |= _ranks("sentence", _judged(draw, seen, asked), named, taught)
    for language in LANGUAGES:
        called = _names(shown.concepts, languages[language])
        wanted = torch.tensor([n for n in taught.tolist() if n in called])
        asked = lexicon.embed(given.encoder, [called[n] for n in wanted.tolist()])
        told |= _ranks(language, _judged(draw, seen, asked), named, wanted)
    told |= fifty(draw, seen, given)
    told |= _both(draw, seen, given)
    told["frechet"] = frechet(seen.features(made), seen.features(shown.pictures[real]))
    told |= _spread(draw, seen, given, taught)
    told["near_copies"] = near_copies(made, shown.pictures)
    return told


def compared(
    draws: Mapping[str, Draw], seen: Panel, given: Lessons, *, every: int = 1
) -> dict[str, dict[str, float]]:
    """Of each form of a generator `rank5` and `frechet` as `figures` has them, of one taught name
    in `every`, all forms with the same texts, styles and noise. The distance of fewer pictures is
    larger, so that it compares forms and nothing else."""
    names, shown = _taught(given)[::every], given.pictures
    real = seen.features(shown.pictures[torch.isin(shown.concept, names)])
    found = {}
    for form, draw in draws.items():
        made = drawn(draw, given.texts.named[names])
        ranked = _ranks("seen", seen.vectors(made), _names_of(seen, given), names)
        distance = frechet(seen.features(made), real)
        found[form] = {"rank5": ranked["seen_rank5"], "frechet": distance}
    return found


def tones(draw: Draw, seen: Panel, given: Lessons, toned: Lessons) -> dict[str, float]:
    """Agreement with subjects in skin tones, among the names of all concepts and of all these, as
    the farm draws them:
    `tone_…` of those that training saw together, `held_tone_…` of those that it did not,
    `real_held_tone_…` of the vendors' own pictures of these."""
    apart = torch.tensor([concept.weight == 0 for concept in toned.pictures.concepts])
    first, shown = len(given.pictures.concepts), toned.pictures
    told: dict[str, float] = {}
    for kind, numbers in (
        ("tone", (~apart).nonzero().flatten()),
        ("held_tone", apart.nonzero().flatten()),
    ):
        asked = _named([toned.pictures.concepts[n] for n in numbers])
        looked = seen.vectors(pictures(draw, given.encoder, asked))
        told |= _ranks(kind, looked, seen.named, first + numbers)
    real = apart[shown.concept]
    looked = seen.vectors(shown.pictures[real])
    return told | _ranks("real_held_tone", looked, seen.named, first + shown.concept[real])


def dyed(draw: Draw, seen: Panel, given: Lessons, toned: Lessons) -> dict[str, float]:
    """Agreement with things in colours that training showed none of them in, asked for as "a blue
    apple" and drawn as the farm draws them, each thing in one: among all names, these in every
    paint and as they are (`dyed_…`), and among names alone (`dyed_name_…`)."""
    known = [*given.pictures.concepts, *toned.pictures.concepts]
    numbers = [n for n in dyes.dyeable(known) if n % data.HELD_EVERY != data.HELD_FIRST]
    paints = list(colours.PAINTS)
    colour = torch.tensor([n % len(paints) + 1 for n in numbers])
    names = zip(numbers, _named([known[n] for n in numbers]), strict=True)
    prompts = [f"a {paints[n % len(paints)]} {name}" for n, name in names]
    made, wanted = pictures(draw, given.encoder, prompts), torch.tensor(numbers)
    rank = seen.dyed_ranks(made, wanted, colour)
    found = {f"dyed_rank{k}": (rank < k).float().mean().item() for k in (1, 5)}
    return found | _ranks("dyed_name", seen.vectors(made), seen.named, wanted)


def _named(concepts: Sequence[data.Concept]) -> list[str]:
    """Prompts that name the concepts, in the styles by turns."""
    return [
        f"{captions.names(concept.label, ())[0]}, {VENDORS[number % len(VENDORS)]}"
        for number, concept in enumerate(concepts)
    ]


def fifty(draw: Draw, seen: Panel, given: Lessons) -> dict[str, float]:
    """Of the fifty prompts of common things, drawn once with the first seed each (0), in the
    style that it picks: how many pictures are closest to their own of the fifty; and the share
    of the vendors' own pictures of these that are."""
    shown = given.pictures
    meant = torch.tensor(data.meant(common.FIFTY, shown.concepts))
    named, own = _names_of(seen, given)[meant], torch.arange(len(meant))
    looked = seen.vectors(pictures(draw, given.encoder, common.FIFTY))
    rank = panel.ranks(looked, named, own)
    place = (shown.concept[:, None] == meant).int()
    rows = place.any(1)
    real = seen.vectors(shown.pictures[rows])
    real_rank = panel.ranks(real, named, place[rows].argmax(1))
    return {
        "fifty_right": (rank < 1).sum().item(),
        "fifty_of_five": (rank < 5).sum().item(),
        "fifty_real_rank1": (real_rank < 1).float().mean().item(),
    }


def pictures(draw: Draw, encoder: TextEncoder, prompts: Sequence[str], seed: int = 0) -> Tensor:
    """Pictures [N, 3, 64, 64] in [0, 1] of prompts as the farm draws them with one seed."""
    chance = torch.Generator().manual_seed(seed)
    noise = torch.randn(NOISE, generator=chance)
    own = int(torch.randint(len(VENDORS), (), generator=chance))
    asked = [asking.asked(prompt, encoder.naming) for prompt in prompts]
    plan = composing.planned(asked, encoder)
    vendor = torch.tensor([own if each.style is None else each.style for each in asked])
    text = torch.from_numpy(plan.texts)
    made = draw(condition(text, vendor[plan.items], noise.expand(len(text), NOISE)))
    pixels = (made * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    joined = torch.from_numpy(plan.composed(pixels))
    return joined.permute(0, 3, 1, 2).float() / 255


def drawn(draw: Draw, text: Tensor, seed: int = 0, *, noisy: bool = True) -> Tensor:
    """One picture for each text [N, 384], in a style that chance picks."""
    chance = torch.Generator().manual_seed(seed)
    vendor = torch.randint(len(VENDORS), (len(text),), generator=chance)
    noise = torch.randn(len(text), NOISE, generator=chance)
    return draw(condition(text, vendor, noise if noisy else torch.zeros_like(noise)))


def _taught(given: Lessons) -> Tensor:
    """Numbers of the concepts that training saw."""
    numbers = torch.arange(len(given.pictures.concepts))
    return numbers[numbers % data.HELD_EVERY != data.HELD_FIRST]


def _names_of(seen: Panel, given: Lessons) -> Tensor:
    """The judge's vectors [C, 384] of the concepts, without those in skin tones."""
    return seen.named[: len(given.pictures.concepts)]


def _judged(draw: Draw, seen: Panel, text: Tensor) -> Tensor:
    return seen.vectors(drawn(draw, text))


def _ranks(name: str, seen: Tensor, named: Tensor, wanted: Tensor) -> dict[str, float]:
    rank = panel.ranks(seen, named, wanted)
    return {
        f"{name}_rank1": (rank < 1).float().mean().item(),
        f"{name}_rank5": (rank < 5).float().mean().item(),
    }


def _names(chosen: Sequence[data.Concept], entries: list[dict[str, Any]]) -> dict[int, str]:
    numbers = {concept.code: number for number, concept in enumerate(chosen)}
    return {numbers[e["hexcode"]]: e["label"] for e in entries if e["hexcode"] in numbers}


def _both(draw: Draw, seen: Panel, given: Lessons) -> dict[str, float]:
    """Of prompts of two subjects, each in every style, the share whose picture has both names
    among the ten nearest: five of its left half and five of its right, each seen as large as a
    picture; and the same of a vendor's own two pictures side by side."""
    shown = given.pictures
    asked = corpus.pairs(shown.concepts, corpus.HELD_PAIRS, random.Random(1))
    wanted = torch.tensor([[one, other] for _, one, other in asked])
    first = [int((shown.concept == number).nonzero()[0]) for number in wanted.flatten()]
    two = shown.pictures[first].permute(0, 2, 3, 1).numpy()
    real = torch.from_numpy(pairs.join(two, [2] * len(asked))).permute(0, 3, 1, 2) / 255
    styled = [f"{text}, {vendor}" for vendor in VENDORS for text, _, _ in asked]
    made, named = pictures(draw, given.encoder, styled), _names_of(seen, given)
    return {
        "pairs_both_of_10": _found(seen, named, made, wanted.repeat(len(VENDORS), 1)),
        "real_pairs_both_of_10": _found(seen, named, real, wanted),
    }


def _found(seen: Panel, named: Tensor, made: Tensor, wanted: Tensor) -> float:
    middle = made[:, :, SIDE // 4 : SIDE - SIDE // 4]
    halves = torch.cat(torch.split(middle, SIDE // 2, dim=3))
    large = F.interpolate(halves, scale_factor=2.0, mode="bilinear")
    near = (seen.vectors(large) @ named.T).topk(5, dim=1).indices
    near = torch.cat(near.chunk(2), dim=1)
    both = (near[:, :, None] == wanted[:, None]).any(1).all(1)
    return both.float().mean().item()


def _spread(draw: Draw, seen: Panel, given: Lessons, taught: Tensor) -> dict[str, float]:
    """Mean distance of features between `SEEDS` seeds of one text, and between the vendors'
    own pictures of one concept."""
    sample = taught[:: max(1, len(taught) // 200)]
    text = given.texts.named[sample]
    shots = torch.stack([seen.features(drawn(draw, text, n)) for n in range(SEEDS)], 1)
    shown, between = given.pictures, []
    for concept in sample.tolist():
        own = seen.features(shown.pictures[shown.concept == concept])
        if len(own) > 1:
            between.append(torch.pdist(own).mean())
    seeds = torch.stack([torch.pdist(one).mean() for one in shots]).mean().item()
    return {"seed_distance": seeds, "vendor_distance": torch.stack(between).mean().item()}


def frechet(one: Tensor, other: Tensor) -> float:
    """Fréchet distance between two sets of features [N, D] taken as normal (Heusel et al.
    2017, section 4): |m - n|^2 + tr(S + T - 2 (S T)^1/2)."""
    first, second = one.double().T.cov(), other.double().T.cov()
    roots = torch.linalg.eigvals(first @ second).real.clamp_min(0).sqrt().sum()
    means = (one.mean(0) - other.mean(0)).square().sum()
    distance: float = (means + first.trace() + second.trace() - 2 * roots).item()
    return distance


def near_copies(made: Tensor, real: Tensor) -> float:
    """Share of pictures whose mean squared error to some training picture is below `COPY`."""
    small = F.avg_pool2d
    own, shelf = small(made, 2).flatten(1), small(real.float() / 255, 2).flatten(1)
    error = torch.cat([torch.cdist(part, shelf).amin(1) for part in torch.split(own, 256)])
    return (error.square() / own.shape[1] < COPY).float().mean().item()
