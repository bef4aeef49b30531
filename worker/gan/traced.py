"""A network's steps as one call without the interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


@torch.inference_mode()
def traced(network: nn.Module, sample: Tensor) -> Callable[[Tensor], Tensor]:
    """The network as torch's own program, recorded while it answers `sample` [2, ...]; any other
    number of rows serves as well. Between two steps in Python a thread has to wait until another
    lets the interpreter go, which takes up to `sys.getswitchinterval()`; this waits once.
    network: keeps nothing, and asks for no value of a tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sides that are read from a shape: they never change
        made: Callable[[Tensor], Tensor] = torch.jit.trace(  # type: ignore[no-untyped-call]
            network.eval(), sample, check_trace=False
        )
    return made


def scripted(function: Callable[..., Tensor]) -> Any:
    """The function as a part of such a program that works out shapes itself: recorded, they would
    stay those of the sample where a step takes them as plain numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(function)
