"""Trains the scorer (`python -m worker.gan.scorer`) on the vendors' pictures and on drawn ones,
under right and wrong texts. It learns nine concepts of ten; the others say what it is worth.
Stop it anywhere; the same command goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from worker import command
from worker.gan import (
    batches,
    checkpoint,
    colours,
    dyes,
    eye,
    integers,
    judge,
    lexicon,
    pairs,
    precision,
    quantize,
    score,
    weights,
)
from worker.gan.disguise import disguise
from worker.gan.encoder import TextEncoder
from worker.gan.eye import Eye
from worker.gan.lexicon import Lessons
from worker.gan.networks import NOISE, TEXT, VENDORS, condition

Draw = Callable[[Tensor], Tensor]  # conditions [N, 416] -> pixels uint8 [N, 3, 64, 64]

KEPT_EVERY, KEPT_FIRST = 10, 5  # concepts that it never learns: 5, 15, 25, ...
SEEDS = range(10_000, 10_002)  # of the pictures drawn for it, in each style
NEAR = 10  # names that count as near one
NEARBY = 0.25  # their share of the wrong texts
DISGUISED = 0.5  # share of a batch
DYED = 0.25  # share of what may be in any colour
JITTER = 0.7  # length of the noise on texts, so that it learns no text by heart
RATE, DECAY, STEEPEST = 2e-3, 0.05, 5.0
SHARPNESS = 20.0  # of the comparison with all names, inverse temperature
SAVE_EVERY = 500
SAMPLE = 2048  # pictures that the ranges of int8 are taken from


@dataclass(frozen=True, slots=True)
class Course:
    """pictures uint8 [N, 3, 32, 32], those of vendors and those drawn; concept [N]: numbers of
    the concepts that are learned; odds [N]: how often each is shown; dyeable bool [N]: whether it
    may be in any colour; near [C, 10]: of each concept, those whose names are nearest; `given` has
    their texts."""

    pictures: Tensor
    concept: Tensor
    odds: Tensor
    dyeable: Tensor
    taught: Tensor
    near: Tensor
    given: Lessons

    @property
    def named(self) -> Tensor:
        """Unit vectors [C, 384] of the names of what is learned."""
        return self.given.texts.named[self.taught]


@dataclass(frozen=True, slots=True)
class Batch:
    """pictures [B, 3, 32, 32] in [0, 1]; text [B, 384]: a wording of each; concept [B]."""

    pictures: Tensor
    text: Tensor
    concept: Tensor


def taught(concepts: int) -> Tensor:
    """The numbers of the concepts that the scorer learns."""
    known = torch.arange(concepts)
    return known[known % KEPT_EVERY != KEPT_FIRST]


def course(given: Lessons, draws: Sequence[Draw], *, share: float) -> Course:
    """What is learned from: `share` of what is shown is drawn by the networks."""
    shown, learned = given.pictures, taught(len(given.pictures.concepts))
    place = torch.full((len(shown.concepts),), -1)
    place[learned] = torch.arange(len(learned))
    own = place[shown.concept] >= 0
    named = given.texts.named[learned]
    drawn = [(small(made), number) for draw in draws for made, number in _drawn(draw, named)]
    pictures = [small(shown.pictures[own]), *(made for made, _ in drawn)]
    concept = [place[shown.concept[own]], *(number for _, number in drawn)]
    real, made = len(pictures[0]), sum(map(len, pictures[1:]))
    odds = torch.cat([torch.full((real,), (1 - share) / real), torch.full((made,), share / made)])
    own = torch.isin(learned[torch.cat(concept)], torch.tensor(dyes.dyeable(shown.concepts)))
    return Course(
        torch.cat(pictures),
        torch.cat(concept),
        odds,
        own,
        learned,
        nearest(named),
        given,
    )


def nearest(named: Tensor) -> Tensor:
    """The numbers [C, 10] of the names that are nearest to each of [C, 384]."""
    close = named @ named.T - 2 * torch.eye(len(named))
    return close.topk(min(NEAR, len(named) - 1), dim=1).indices


def _drawn(draw: Draw, named: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    numbers = torch.arange(len(named))
    for seed in SEEDS:
        for vendor in range(len(VENDORS)):
            chance = torch.Generator().manual_seed(seed * len(VENDORS) + vendor)
            noise = torch.randn(len(named), NOISE, generator=chance)
            given = condition(named, torch.full_like(numbers, vendor), noise)
            yield torch.cat([draw(part) for part in torch.split(given, 32)]), numbers


def small(pictures: Tensor) -> Tensor:
    """Pictures uint8 [N, 3, 64, 64] at [N, 3, 32, 32], as `score.subjects` makes them."""
    halves = pairs.half(pictures.permute(0, 2, 3, 1).numpy())
    return torch.from_numpy(halves).permute(0, 3, 1, 2).contiguous()


def lesson(shown: Course, size: int, step: int) -> Batch:
    """The batch of a step: a function of its number alone."""
    chance = torch.Generator().manual_seed(1_000_003 + step)
    rows = torch.multinomial(shown.odds, size, replacement=True, generator=chance)
    pictures = _dyed(shown.pictures[rows], shown.dyeable[rows], chance).float() / 255
    turned = torch.rand(size, 1, 1, 1, generator=chance) < DISGUISED
    pictures = torch.where(turned, disguise(pictures, chance), pictures)
    concept = shown.concept[rows]
    texts = shown.given.texts
    said = [batches.wording(texts, number, chance) for number in shown.taught[concept].tolist()]
    return Batch(pictures, shaken(torch.stack(said), chance), concept)


def _dyed(pictures: Tensor, dyeable: Tensor, chance: torch.Generator) -> Tensor:
    """Pictures uint8 [B, 3, S, S], some of those that may be in any colour painted as the generator
    paints them: a blue apple is an apple."""
    paints = list(colours.PAINTS)
    which = torch.randint(len(paints), (len(pictures),), generator=chance).tolist()
    dyed = (dyeable & (torch.rand(len(pictures), generator=chance) < DYED)).tolist()
    asked = [paints[paint] if own else None for paint, own in zip(which, dyed, strict=True)]
    pixels = pictures.permute(0, 2, 3, 1).contiguous().numpy()
    return torch.from_numpy(colours.painted(pixels, asked)).permute(0, 3, 1, 2)


def shaken(text: Tensor, chance: torch.Generator) -> Tensor:
    noise = torch.randn(text.shape, generator=chance) * JITTER / TEXT**0.5
    return F.normalize(text + noise, dim=1)


def loss(network: Eye, batch: Batch, named: Tensor, near: Tensor) -> Tensor:
    """Cross-entropy over all names, as the judge's, and the logistic loss of single pairs, half
    of which are right: a name and a wording. Of the wrong ones a quarter is near, the names
    [B, 10] closest to the right one; the others are the wordings of the batch's other
    pictures."""
    seen = network.seen(F.pixel_unshuffle(batch.pictures * 2 - 1, 2)).float()
    close = seen @ network.said(named).T
    across = seen @ network.said(batch.text).T
    which = F.cross_entropy(SHARPNESS * close, batch.concept)
    own = network.logit(close.gather(1, batch.concept[:, None]))
    beside = network.logit(close.gather(1, near))
    worded = network.logit(across.diagonal())
    other = network.logit(across[batch.concept[:, None] != batch.concept])
    right = F.softplus(-own).mean() + F.softplus(-worded).mean()
    wrong = NEARBY * F.softplus(beside).mean() + (1 - NEARBY) * F.softplus(other).mean()
    return which + right + 2 * wrong


def teach(shown: Course, out: Path, *, steps: int, batch: int, widths: Sequence[int]) -> Eye:
    """Runs to `steps`, from the checkpoint in `out` if one is there; the rate falls to
    nothing over them."""
    torch.manual_seed(0)
    network = Eye(widths)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = judge.descent(list(network.parameters()))
    modules, optimizers = {"eye": network}, {"optimizer": optimizer}
    done = 0
    if (out / checkpoint.TENSORS).exists():
        done = checkpoint.recall(out, modules, optimizers)
    began, first = time.monotonic(), done
    for step in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100) * (1 - step / steps) + 1e-6
        given = lesson(shown, batch, step)
        chance = torch.Generator().manual_seed(step)
        named = shaken(shown.named, chance)
        with precision.autocast():
            total = loss(network, given, named, shown.near[given.concept])
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), STEEPEST)
        optimizer.step()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            checkpoint.keep(out, step + 1, modules, optimizers)
            pace = (time.monotonic() - began) / (step + 1 - first)
            print(f"step {step + 1}: loss {total.item():.3f}, {pace:.3f} s a step", flush=True)
    return network.eval().requires_grad_(False)


def save(network: Eye, folder: Path, shown: Course) -> None:
    """Writes the file that `score.Scorer` reads: batch norms folded away, 8-bit codes, the
    ranges that pictures of the course ask for, and the names."""
    folded = eye.fold(network)
    rows = torch.linspace(0, len(shown.pictures) - 1, min(SAMPLE, len(shown.pictures))).long()
    views = F.pixel_unshuffle(shown.pictures[rows].float() / 127.5 - 1, 2)
    state = folded.state_dict()
    state[score.NAMES] = shown.given.texts.named.float()
    first = state["trunk.0.0.weight"]  # its codes count from 128, half a step above the middle
    state["trunk.0.0.bias"] = state["trunk.0.0.bias"] + first.sum((1, 2, 3)) / score.LEVELS
    tensors = weights.coded_tensors(state) | {score.RANGES: torch.tensor(ranges(folded, views))}
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value.contiguous() for name, value in tensors.items()}
    checkpoint.write(folder / score.FILE, lambda path: save_file(kept, path))


@torch.no_grad()
def ranges(folded: Eye, cells: Tensor) -> list[float]:
    """The greatest value of each convolution's output that has a code: of several cuts the one
    that moves the output least."""
    found, maps = [], cells
    for part in folded.trunk:
        maps = part(maps)
        if isinstance(part, nn.Sequential):
            peaks = maps.flatten(1).amax(1)
            cuts = [max(peaks.quantile(cut).item(), 1e-6) for cut in quantize.CUTS]
            errors = [(_rounded(maps, cut) - maps).square().mean().item() for cut in cuts]
            found.append(cuts[errors.index(min(errors))])
    return found


def _rounded(maps: Tensor, greatest: float) -> Tensor:
    step = greatest / score.LEVELS
    return (maps / step).round().clamp(0, score.LEVELS) * step


def _network(folder: Path) -> Draw:
    shipped = weights.read(folder)
    return integers.IntegerGenerator(shipped.generator, shipped.ranges)


def main(arguments: Sequence[str] | None = None) -> None:
    taken = judge.parser(
        "Train the scorer on the vendors' pictures and on drawn ones.",
        out=Path("data/scorer"),
        steps=4000,
        batch=128,
    )
    taken.add_argument("--widths", type=int, nargs=3, default=eye.WIDTHS)
    taken.add_argument("--share", type=float, default=0.5, help="of drawn pictures")
    options = taken.parse_args(arguments)
    torch.set_num_threads(1)
    given = lexicon.lessons(options.data, TextEncoder(options.encoder), seed=1)
    draws = [_network(options.encoder), _network(options.encoder / "student")]
    shown = course(given, draws, share=options.share)
    print(f"{len(shown.pictures)} pictures of {len(shown.taught)} concepts", flush=True)
    network = teach(
        shown, options.out, steps=options.steps, batch=options.batch, widths=options.widths
    )
    save(network, options.out, shown)


if __name__ == "__main__":
    command.run(main)
