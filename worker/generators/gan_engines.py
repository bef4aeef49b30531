"""What emoji-gan's pictures are computed with: torch on the CPU or on a GPU, or ONNX Runtime
without torch. Each is imported only when it is loaded."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from worker.generators import device as devices
from worker.generators import processor
from worker.generators.base import Pixels

if TYPE_CHECKING:
    from worker.gan.encoder import TextEncoder
    from worker.gan.memory import Floats
    from worker.gan.score import Scorer

HELD = "integers in float32"  # for want of VNNI
SEED_MASK = 2**64 - 1  # torch takes 64 bits; any other integer is taken modulo 2**64


@dataclass(frozen=True, slots=True)
class Engine:
    """encoder: prompts → vectors. draws: seed → noise [16] and vendor. render: conditions
    [B, 416] → pixels [B, 64, 64, 3]. scorer: pixels and vectors → scores. digest: of the
    network's weights."""

    encoder: TextEncoder
    draws: Callable[[int], tuple[Floats, int]]
    render: Callable[[Floats], Pixels]
    scorer: Scorer
    digest: str


def by_torch(network: Path, rest: Path, *, int8: bool) -> Engine:
    """On one thread, where small pictures are fastest. network, rest: the folders of the
    network's weights, and of the text encoder's and the scorer's. int8: or the same integers in
    float32, where the processor has no VNNI."""
    import torch

    from worker.gan import integers, quantize, trunk, weights
    from worker.gan.encoder import TextEncoder
    from worker.gan.score import Scorer

    torch.set_num_threads(1)
    shipped = weights.read(network)
    scorer = Scorer(rest, trunk=trunk.usual if int8 else trunk.float32)
    kind = integers.IntegerGenerator if int8 else quantize.FloatGenerator
    drawn = kind(shipped.generator, shipped.ranges)

    def render(conditions: Floats) -> Pixels:
        made = drawn(torch.from_numpy(conditions))
        pixels: Pixels = made.permute(0, 2, 3, 1).contiguous().numpy()
        return pixels

    return Engine(TextEncoder(rest), _draws, render, scorer, shipped.digest)


def by_cuda(network: Path, rest: Path, *, device: str, bf16: bool) -> Engine:
    """The network on a GPU, in bfloat16 or float32; text, random numbers and scores on the CPU,
    on one thread."""
    import torch

    from worker.gan import cuda, trunk, weights
    from worker.gan.encoder import TextEncoder
    from worker.gan.score import Scorer

    torch.set_num_threads(1)
    shipped = weights.read(network)
    dtype = torch.bfloat16 if bf16 else torch.float32
    drawn = cuda.CudaGenerator(shipped.generator, shipped.ranges, dtype=dtype, device=device)
    scorer = Scorer(rest, trunk=trunk.float32)
    return Engine(TextEncoder(rest), _draws, drawn, scorer, shipped.digest)


def _draws(seed: int) -> tuple[Floats, int]:
    """The noise [16] and the vendor that a seed stands for, by torch's stream on the CPU."""
    import torch

    from worker.gan.inputs import NOISE, VENDORS

    chance = torch.Generator().manual_seed(seed & SEED_MASK)
    noise: Floats = torch.randn(NOISE, generator=chance).numpy()
    return noise, int(torch.randint(len(VENDORS), (), generator=chance))


def by_onnx(network: Path, rest: Path) -> Engine:
    from worker.compress import runtime
    from worker.gan import inputs, weightfile
    from worker.gan.encoder import TextEncoder
    from worker.gan.score import Scorer

    found = weightfile.read(network)
    drawn = runtime.OnnxGenerator(found)
    encoder = TextEncoder(rest, dense=runtime.dense)
    scorer = Scorer(rest, trunk=runtime.trunk, dense=runtime.dense)
    return Engine(encoder, inputs.draws, drawn, scorer, found.digest)


def onnx_missing() -> str:
    """Why ONNX Runtime cannot be used here; empty if it can."""
    if not (find_spec("onnx") and find_spec("onnxruntime")):
        return "needs onnx and onnxruntime: pip install 'promptmill[onnx]'"
    return ""


def platform(*, onnx: bool = False, exact: bool = True, device: str = "cpu") -> list[str]:
    """What beside the weights can change a bit: the kernels (processor, GPU, libraries, batch
    shape of a GPU) and the tables that fold letters. exact: the network sums integers."""
    import numpy

    if onnx:
        from worker.compress import runtime

        kernels = [processor.level(), runtime.version()]
    else:
        import torch

        from worker.gan import integers

        kernels = [torch.backends.cpu.get_cpu_capability(), str(torch.__version__)]
        if device == "cpu" and exact:
            kernels += processor.tiles() if integers.supported() else [HELD]
        elif device == "cpu":
            kernels.append(processor.make())
    if device != "cpu":
        from worker.gan import cuda

        kernels += [*devices.kernels(device), f"batches of {cuda.ROWS}"]
    return [*kernels, numpy.__version__, unicodedata.unidata_version]
