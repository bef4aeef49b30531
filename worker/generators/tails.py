"""Element-wise functions on the CPU whose result does not depend on an element's place. torch
takes a tensor in blocks of two vectors, and what is left at its end one by one with another
`exp`: the last elements, which are the last image's, may differ in their last bit from what
they would be anywhere else in the batch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

BLOCK = 128  # bytes: two of the widest vectors (AVX-512); a multiple of every narrower block


class Tailless(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, a function of one tensor gets whole blocks, filled up with ones.
    Functions of several tensors (sums, products) round alike in a block and after it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if _of_one_tensor(func) and _has_tail(args[0]):
            return _in_blocks(func, args[0], args[1:], kwargs or {})
        return func(*args, **kwargs or {})


@cache
def _of_one_tensor(func: Any) -> bool:
    if torch.Tag.pointwise not in func.tags:
        return False
    kinds = [str(argument.type) for argument in func._schema.arguments]
    return kinds[0] == "Tensor" and not any("Tensor" in kind for kind in kinds[1:])


def _has_tail(x: torch.Tensor) -> bool:
    plain = type(x) is torch.Tensor and x.is_floating_point()
    return plain and x.numel() * x.element_size() % BLOCK > 0


def _in_blocks(
    func: Any, x: torch.Tensor, more: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> torch.Tensor:
    order = sorted(range(x.dim()), key=x.stride, reverse=True)
    laid = x.permute(order)  # as it lies in memory
    if not laid.is_contiguous():  # with gaps torch goes row by row, each alike
        gapped: torch.Tensor = func(x, *more, **kwargs)
        return gapped
    missing = -x.numel() % (BLOCK // x.element_size())
    filled = torch.cat([laid.view(-1), x.new_ones(missing)])
    made = func(filled, *more, **kwargs)[: x.numel()].view(laid.shape)
    made = made.permute([order.index(k) for k in range(x.dim())])
    return x.copy_(made) if func._schema.is_mutable else made
