"""Convolutions whose result depends on the place of an image in its batch, as those of cuDNN do
at some shapes (the last bits of a sum that is split differently from tile to tile): found out
on numbers of their own, and then run in parts in which no place differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Layer = Callable[["Tensor"], "Tensor"]  # [B, ...] → [B, ...], each row of its own
Settled = Callable[..., "Tensor"]  # the same, with further arguments that all rows share


def settle(part: Any) -> None:
    """Makes every convolution of a network in which an image's place decides a bit run in
    parts. Which parts depends on the layer, the shape and the device alone, so that all workers
    of a fingerprint choose the same."""
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

    for layer in part.modules():
        if not isinstance(layer, _ConvNd):
            continue
        # a causal convolution's forward takes a cache and pads before it sums
        name = "forward" if isinstance(layer, _ConvTransposeNd) else "_conv_forward"
        if name not in vars(layer):
            setattr(layer, name, Parts(getattr(layer, name)))


class Parts:
    """A layer that runs a batch in the largest equal parts in which no row's place differs."""

    def __init__(self, layer: Settled) -> None:
        self._layer = layer
        self._sizes: dict[tuple[Any, ...], int] = {}

    def __call__(self, rows: Tensor, *shared: Any) -> Tensor:
        import torch

        def run(some: Tensor) -> Tensor:
            return self._layer(some, *shared)

        key = (tuple(rows.shape), tuple(rows.stride()), rows.dtype)
        if (size := self._sizes.get(key)) is None:
            size = self._sizes[key] = largest(run, rows)
        if size == len(rows):
            return run(rows)
        return torch.cat([run(rows[n : n + size]) for n in range(0, len(rows), size)])


def largest(layer: Layer, like: Tensor) -> int:
    """Rows of the largest equal parts of a batch like this one in which no row's place
    decides a bit; 1 for an image at a time."""
    import torch

    chance = torch.Generator(like.device).manual_seed(0)
    drawn = torch.empty_like(like)  # keeps the strides, which decide the kernel
    drawn.copy_(torch.randn(like.shape, generator=chance, device=like.device))
    count = len(like)
    for size in range(count, 1, -1):
        if count % size == 0 and _placeless(layer, drawn[:size]):
            return size
    return 1


def _placeless(layer: Layer, rows: Tensor) -> bool:
    import torch

    moved = torch.empty_like(rows)
    moved.copy_(rows.roll(1, 0))
    return bool(torch.equal(layer(rows).roll(1, 0), layer(moved)))
