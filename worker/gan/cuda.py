"""The generator on a GPU: one batch shape, whose work is captured once as a CUDA graph and
replayed at every call. Knows no files and no text."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.gan import quantize
from worker.gan.inputs import CONDITION, SIDE, Floats
from worker.gan.networks import Generator

log = logging.getLogger(__name__)

ROWS = 32  # conditions in each run of the network, whatever is asked
FIRST_RUNS = 3  # before the capture: libraries choose kernels and take memory in them

Pixels = NDArray[np.uint8]


def in_shape(run: Callable[[Floats], Pixels], conditions: Floats, *, rows: int = ROWS) -> Pixels:
    """Pictures [N, 64, 64, 3] of conditions [N, 416] by runs of exactly `rows`, the last filled
    up with zeros. A GPU computes with other kernels, and so other bits, in another shape."""
    made = []
    for start in range(0, len(conditions), rows):
        part = conditions[start : start + rows]
        filled = np.zeros((rows, conditions.shape[1]), dtype=np.float32)
        filled[: len(part)] = part
        made.append(run(filled)[: len(part)])
    return np.concatenate(made)


def drawing(
    plain: Generator, ranges: quantize.Ranges, *, dtype: torch.dtype, device: str
) -> Callable[[Tensor], Tensor]:
    """A folded generator as a function from conditions float32 [B, 416] to pixels uint8
    [B, 64, 64, 3], both on `device`; computed in `dtype` with channels last, saturating where
    int8 does, as `quantize.FloatGenerator` is."""
    network = quantize.clipped(plain, ranges).to(device=device, dtype=dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def draw(conditions: Tensor) -> Tensor:
        made = network(conditions.to(dtype)).float().clamp(0, 1)
        codes: Tensor = (made * quantize.LEVELS).round().to(torch.uint8)
        return codes.permute(0, 2, 3, 1).contiguous()

    return draw


def settle_kernels() -> None:
    """For the process: float32 in full where it is asked for, and kernels that are chosen by
    rule and add in a fixed order."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


class CudaGenerator:
    """A folded generator on a GPU. The host's sides of the copies are pinned, and what comes
    back is bytes. The graph is captured by the first call; where that fails, the same work is
    launched piece by piece: the same pictures, slower. For one thread at a time."""

    def __init__(
        self,
        plain: Generator,
        ranges: quantize.Ranges,
        *,
        dtype: torch.dtype,
        device: str,
        rows: int = ROWS,
    ) -> None:
        settle_kernels()
        self.device, self.dtype, self.rows = device, dtype, rows
        self._draw = drawing(plain, ranges, dtype=dtype, device=device)
        self._sent = torch.zeros(rows, CONDITION).pin_memory()
        self._given = torch.zeros(rows, CONDITION, device=device)
        self._made = torch.zeros(rows, SIDE, SIDE, 3, dtype=torch.uint8, device=device)
        self._received = torch.zeros(rows, SIDE, SIDE, 3, dtype=torch.uint8).pin_memory()
        self._launch: Callable[[], None] | None = None

    def __call__(self, conditions: Floats) -> Pixels:
        """Conditions [N, 416] to pixels uint8 [N, 64, 64, 3], any N."""
        # not inference mode: what a capture keeps of it could not be used outside it again
        with torch.no_grad(), torch.cuda.device(self.device):
            return in_shape(self._run, conditions, rows=self.rows)

    def _run(self, conditions: Floats) -> Pixels:
        if self._launch is None:
            self._launch = self._captured()
        self._sent.copy_(torch.from_numpy(conditions))
        self._given.copy_(self._sent, non_blocking=True)
        self._launch()
        self._received.copy_(self._made, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return self._received.numpy().copy()

    def _work(self) -> None:
        self._made.copy_(self._draw(self._given))

    def _captured(self) -> Callable[[], None]:
        """What does the work: its graph, or, with a warning, the work itself."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        # the capture stands in here, too: one that fails may leave its stream the current one
        with torch.cuda.stream(side):
            for _ in range(FIRST_RUNS):
                self._work()
            side.synchronize()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                    self._work()
            except RuntimeError as problem:
                log.warning("drawing without a CUDA graph, which is slower: %s", problem)
                return self._work
        return graph.replay
