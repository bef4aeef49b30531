"""A network's large component compiled: each batch shape and size by itself, and by rules
alone, so that two workers with one fingerprint run the same kernels whatever they rendered
first."""

from __future__ import annotations

from typing import Any

KINDS = 512  # of block, batch shape, size and adapter that one process may compile


def compile(part: Any) -> None:
    """Compiles the blocks that the component repeats, or all of it with CUDA graphs. It
    happens at the first picture of each shape."""
    import torch._dynamo
    import torch._inductor

    # beyond its limit a shape would run uncompiled, in other bits
    torch._dynamo.config.recompile_limit = KINDS
    torch._dynamo.config.accumulated_recompile_limit = KINDS
    # else what was faster when it was tried decides how sums are taken
    torch._inductor.config.deterministic = True
    # a shape compiled for all sizes would depend on which came first
    if getattr(part, "_repeated_blocks", None):
        part.compile_repeated_blocks(fullgraph=True, dynamic=False)
    else:
        part.compile(mode="reduce-overhead", dynamic=False)
