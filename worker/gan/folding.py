"""Batch norms folded into the convolutions before them, and unfolded again for training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from worker.gan.networks import Generator


def fold(generator: Generator) -> Generator:
    """The same function without batch norms: w' = w g / s, b' = beta - m g / s with the
    running mean m and deviation s (Jacob et al. 2018, section 3.2)."""
    trained = copy.deepcopy(generator).eval()
    plain = Generator(trained.widths, normed=False).eval().requires_grad_(False)
    for name in ("map", "seed", "detail", "pixels"):
        getattr(plain, name).load_state_dict(getattr(trained, name).state_dict())
    for name in ("at4", "at8", "at16", "at32"):
        old, new = getattr(trained, name), getattr(plain, name)
        for place in range(0, len(old), 3):
            fused = fuse_conv_bn_eval(old[place], old[place + 1])
            new[place].load_state_dict(fused.state_dict())
    return plain


def layers(plain: Generator) -> dict[str, nn.Module]:
    """The layers of a folded generator, named by the stage that their output is."""
    return {
        "map": plain.map[0],
        "seed": plain.seed[0],
        "detail": plain.detail[0],
        "at4": plain.at4[0],
        "at8": plain.at8[0],
        "at16": plain.at16[0],
        "at32": plain.at32[0],
        "at32b": plain.at32[3],
        "pixels": plain.pixels,
    }


@torch.no_grad()
def unfold(plain: Generator, conditions: Tensor) -> Generator:
    """The same function with batch norms again, for training: each norm's statistics are
    those of conditions [N, 416], and its gain and bias undo them (the inverse of
    `fold`)."""
    normed = Generator(plain.widths).eval().requires_grad_(False)
    for name in ("map", "seed", "detail", "pixels"):
        getattr(normed, name).load_state_dict(getattr(plain, name).state_dict())
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> object:
        def see(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            value = output.transpose(0, 1).flatten(1)
            found[name] = (value.mean(1), value.var(1))

        return see

    known = layers(plain)
    convolutions = {n: known[n] for n in ("at4", "at8", "at16", "at32", "at32b")}
    handles = [m.register_forward_hook(watch(n)) for n, m in convolutions.items()]  # type: ignore[arg-type]
    plain(conditions)
    for handle in handles:
        handle.remove()
    places = {"at4": (normed.at4, 0), "at8": (normed.at8, 0), "at16": (normed.at16, 0),
              "at32": (normed.at32, 0), "at32b": (normed.at32, 3)}  # fmt: skip
    for name, (sequence, at) in places.items():
        mean, variance = found[name]
        bias = convolutions[name].bias
        if not isinstance(bias, Tensor):
            raise TypeError("only a folded generator, whose layers have biases, can be unfolded")
        convolution, norm = sequence[at], sequence[at + 1]
        convolution.load_state_dict({"weight": convolutions[name].weight})
        norm.load_state_dict(
            {
                "running_mean": mean - bias,
                "running_var": variance,
                "weight": torch.sqrt(variance + 1e-5),
                "bias": mean,
                "num_batches_tracked": torch.tensor(1),
            }
        )
    return normed
