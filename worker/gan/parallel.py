"""Training shared by several processes (`torchrun`, gloo): each takes its rows of a step's
batch, and gradients, batch-norm statistics and logged figures are those of the whole batch.
With one process every function here is the identity."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from promptmill import errors


def alone() -> bool:
    """Whether `torchrun` started no process beside this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) < 2


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that `torchrun` started with this one, if it did."""
    if alone():
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Whether this process is the one that writes files and logs."""
    return not dist.is_initialized() or dist.get_rank() == 0


def rows(count: int) -> slice:
    """This process's rows of a batch of `count`. Raises `errors.Error` unless all get equally
    many: means over a batch would not be means of the means."""
    if count % size():
        raise errors.Error(f"a batch of {count} cannot be shared by {size()} processes equally")
    share = count // size()
    start = dist.get_rank() * share if size() > 1 else 0
    return slice(start, start + share)


def roll(values: Tensor) -> Tensor:
    """`values.roll(1, 0)` of the whole batch, of which each process holds its rows [B, ...]."""
    if size() == 1:
        return values.roll(1, 0)
    parts = [torch.empty_like(values) for _ in range(size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts).roll(1, 0)[rows(size() * len(values))]


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Each gradient becomes its mean over the processes, in one exchange."""
    if size() == 1:
        return
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in found])
    dist.all_reduce(flat)
    flat /= size()
    parts = torch.split(flat, [gradient.numel() for gradient in found])
    for gradient, part in zip(found, parts, strict=True):
        gradient.copy_(part.reshape(gradient.shape))


def average_figures(told: Mapping[str, float]) -> dict[str, float]:
    """Each figure's mean over the processes, all of which tell of the same names."""
    if size() == 1:
        return dict(told)
    values = torch.tensor(list(told.values()), dtype=torch.float64)
    dist.all_reduce(values)
    return dict(zip(told, (values / size()).tolist(), strict=True))


def any_of(wanted: bool) -> bool:
    """Whether some process wants it: all then do it at the same step."""
    if size() == 1:
        return wanted
    votes = torch.tensor(int(wanted))
    dist.all_reduce(votes)
    return bool(votes.item())


def wait() -> None:
    """Returns once every process is here."""
    if size() > 1:
        dist.barrier()


class _Sum(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        return _summed(values.detach())

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    if size() > 1:
        dist.all_reduce(total)
    return total


class SharedNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are those of all processes' rows, in float32."""

    def forward(self, given: Tensor) -> Tensor:
        if not self.training:
            return super().forward(given)
        values = given.float()
        mean = _mean(values)
        variance = _mean((values - mean[:, None, None]).square())
        self._remember(mean.detach(), variance.detach(), size() * values[:, 0].numel())
        scale = self.weight / torch.sqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normed = values * scale[:, None, None] + shift[:, None, None]
        return normed.to(given.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


def _mean(values: Tensor) -> Tensor:
    """Mean of each channel of [B, C, S, S] over all processes."""
    total: Tensor = _Sum.apply(values.mean((0, 2, 3)))  # type: ignore[no-untyped-call]
    return total / size()


def share_norms(network: nn.Module) -> None:
    """Makes every batch norm of a network a `SharedNorm` with the same parameters. One process
    keeps torch's own, which is faster."""
    if size() == 1:
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedNorm
