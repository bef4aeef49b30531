"""Structured pruning: a generator with fewer channels cut out of a larger one. Zeroed weights
alone would make nothing faster; here whole channels go, and the tensors shrink with them.
`python -m worker.compress.prune` does it to shipped weights; `worker.compress.student` begins
with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from promptmill import errors
from worker import command
from worker.gan import batches, export, folding, lexicon, manifest, quantize, weights
from worker.gan.encoder import TextEncoder
from worker.gan.lexicon import Lessons
from worker.gan.networks import Generator, Widths
from worker.gan.weights import Shipped

STEP = 32  # channels that kernels take at once
Kept = dict[str, Tensor]  # stage -> the channels that stay, ascending


@torch.no_grad()
def prune(plain: Generator, widths: Widths, conditions: Tensor) -> Generator:
    """A folded generator of `widths` from a folded one at least as wide. A channel's worth is
    its mean absolute activation over conditions [N, 416] times the norm of the weights that
    read it (first-order view of Molchanov et al. 2017, eq. 5, without gradients). Raises as
    `allow` does."""
    allow(widths, plain.widths)
    kept = choose(plain, widths, conditions)
    small = Generator(widths, normed=False).eval().requires_grad_(False)
    known, new = folding.layers(plain), folding.layers(small)
    for name, layer in known.items():
        _fill(new[name], *_cut(layer, _outputs(name, kept), _inputs(name, kept, plain.widths)))
    return small


def allow(widths: Widths, source: Widths) -> None:
    """Raises `errors.Error` naming the stage that `source` cannot be cut to."""
    for field in fields(Widths):
        count, most = getattr(widths, field.name), getattr(source, field.name)
        if count <= 0 or count % STEP:
            raise errors.Error(f"{field.name} of {count}: widths are multiples of {STEP}")
        if count > most:
            raise errors.Error(f"{field.name} of {count}: the source has {most} channels there")


def choose(plain: Generator, widths: Widths, conditions: Tensor) -> Kept:
    """The channels that stay at each stage."""
    acts = _activations(plain, conditions)
    read = {name: _reads(plain, name) for name in acts}
    most = {
        "map": widths.hidden, "seed": widths.at4, "detail": widths.detail, "at4": widths.at4,
        "at8": widths.at8, "at16": widths.at16, "at32": widths.at32, "at32b": widths.at32,
    }  # fmt: skip
    return {
        name: (acts[name] * read[name]).topk(count).indices.sort().values
        for name, count in most.items()
    }


def _activations(plain: Generator, conditions: Tensor) -> dict[str, Tensor]:
    """Mean activation after ReLU of each channel of each stage."""
    found: dict[str, Tensor] = {}
    cells = {"seed": 16, "detail": 64}

    def watch(name: str) -> object:
        def see(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            value = output.relu()
            if name in cells:
                value = value.reshape(len(value), -1, cells[name])
            found[name] = value.transpose(0, 1).flatten(1).mean(1)

        return see

    stages = {n: layer for n, layer in folding.layers(plain).items() if n != "pixels"}
    handles = [m.register_forward_hook(watch(n)) for n, m in stages.items()]  # type: ignore[arg-type]
    plain(conditions)
    for handle in handles:
        handle.remove()
    return found


def _reads(plain: Generator, name: str) -> Tensor:
    """The norm, for each channel of a stage, of the weights that read it."""
    known, wide = folding.layers(plain), plain.widths.at4
    if name == "map":
        weights = torch.cat([_weight(known["seed"]), _weight(known["detail"])])
        norm: Tensor = weights.norm(dim=0)
        return norm
    reader = {"seed": "at4", "at4": "at8", "detail": "at8", "at8": "at16", "at16": "at32",
              "at32": "at32b", "at32b": "pixels"}[name]  # fmt: skip
    norms: Tensor = _weight(known[reader]).transpose(0, 1).flatten(1).norm(dim=1)
    return {"at4": norms[:wide], "detail": norms[wide:]}.get(name, norms)


def _outputs(name: str, kept: Kept) -> Tensor | None:
    """Rows of a layer that stay: all of the pixels, whole cells of the dense maps."""
    if name == "pixels":
        return None
    cells = {"seed": 16, "detail": 64}.get(name, 1)
    return (kept[name][:, None] * cells + torch.arange(cells)).flatten()


def _inputs(name: str, kept: Kept, widths: Widths) -> Tensor | None:
    """Columns of a layer that stay."""
    source = {"seed": "map", "detail": "map", "at4": "seed", "at16": "at8", "at32": "at16",
              "at32b": "at32", "pixels": "at32b"}  # fmt: skip
    if name == "at8":
        return torch.cat([kept["at4"], kept["detail"] + widths.at4])
    return kept[source[name]] if name in source else None


def _cut(layer: nn.Module, rows: Tensor | None, columns: Tensor | None) -> tuple[Tensor, Tensor]:
    weight, bias = _weight(layer), layer.bias
    if not isinstance(bias, Tensor):
        raise TypeError("only a folded generator, whose layers have biases, can be pruned")
    if rows is not None:
        weight, bias = weight[rows], bias[rows]
    return (weight if columns is None else weight[:, columns]), bias


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    if not isinstance(weight, Tensor):
        raise TypeError(f"{layer} has no weight")
    return weight.detach()


def _fill(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    layer.load_state_dict({"weight": weight.contiguous(), "bias": bias.contiguous()})


def cut(source: Path, given: Lessons, out: Path, widths: Widths) -> Shipped:
    """Writes the weights in `source` pruned to `widths`, with their manifest, to `out`. They
    draw badly until they are taught."""
    shipped = weights.read(source)
    seen = torch.cat(export.unseen(given))
    small = prune(shipped.generator, widths, seen)
    weights.write(out, small, quantize.observe(small, [seen]), step=shipped.step)
    manifest.write(
        out,
        "prune",
        made=weights.FILES,
        source={"weights": shipped.digest},
        settings={"widths": list(astuple(widths))},
        figures=export.figures(weights.read(out), shipped.generator, given),
    )
    return weights.read(out)


def main(arguments: Sequence[str] | None = None) -> None:
    names = [field.name for field in fields(Widths)]
    parser = argparse.ArgumentParser(description="Cut channels out of shipped weights.")
    parser.add_argument("--source", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--encoder", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument(
        "--widths", type=int, nargs=len(names), metavar=tuple(names), required=True,
        help=f"channels that stay at each stage, multiples of {STEP}",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    widths = Widths(*options.widths)
    allow(widths, weights.read(options.source).generator.widths)  # before a minute of reading
    given = lexicon.lessons(options.data, TextEncoder(options.encoder), seed=batches.Plan().seed)
    made = cut(options.source, given, options.out, widths)
    print(f"{options.out}: digest {made.digest}")


if __name__ == "__main__":
    command.run(main)
