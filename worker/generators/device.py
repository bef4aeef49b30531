"""The device that a checkpoint runs on: which one, how much memory it has, what it says when
there is too little, and what of it decides a bit of a picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from promptmill import errors
from worker.generators import processor
from worker.generators.base import OutOfMemory
from worker.generators.quantization import Device

T = TypeVar("T")
NO_MEMORY = ("allocate memory", "out of memory", "_ALLOC_FAILED")  # a CPU, a GPU, its libraries
SEED_MASK = 2**64 - 1  # torch takes 64 bits; any other integer is taken modulo 2**64


def choose(device: str) -> str:
    """`auto` is the GPU if there is one. On the CPU torch keeps to one thread: the bytes of
    a picture must not depend on how many cores a machine has. Raises
    `errors.UnsupportedParameter` for a device that is not here."""
    import torch

    here = torch.cuda.is_available()
    chosen = ("cuda" if here else "cpu") if device == "auto" else device
    if chosen.partition(":")[0] not in ("cpu", "cuda"):
        raise errors.UnsupportedParameter(f"PROMPTMILL_DEVICE={device!r}: there is cpu and cuda")
    if chosen.startswith("cuda") and not here:
        raise errors.UnsupportedParameter(f"PROMPTMILL_DEVICE={device!r}: torch sees no GPU here")
    if chosen == "cpu":
        torch.set_num_threads(1)
    else:
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cuda.matmul.allow_tf32 = False
    return chosen


@contextmanager
def inference(device: str) -> Iterator[None]:
    """Computes without gradients, and on the CPU so that the place of an image in its batch
    decides no bit of it; on a GPU `steady` sees to that."""
    import torch

    with torch.inference_mode():
        if device.startswith("cuda"):
            yield
            return
        from worker.generators import tails

        with tails.Tailless():  # type: ignore[no-untyped-call]
            yield


def name(device: str) -> str:
    """What the device is, as a fingerprint must know it."""
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"cpu {processor.make()} {torch.backends.cpu.get_cpu_capability()}"


def kernels(device: str) -> list[str]:
    """What the device is, and on a GPU the library of its convolutions."""
    import torch

    if not device.startswith("cuda"):
        return [name(device)]
    version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return [name(device), f"cuDNN {version}"]


def capability(device: str) -> tuple[int, int]:
    """Compute capability of a GPU; (0, 0) of a CPU."""
    import torch

    if not device.startswith("cuda"):
        return (0, 0)
    major, minor = torch.cuda.get_device_capability(device)
    return int(major), int(minor)


def bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself, four times as fast as float32. Where it is
    imitated (AVX2) a product of matrices takes eight times as long as in float32, a convolution
    ninety times."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def described(device: str) -> Device:
    """The device as the choice of a number format must know it."""
    kind = device.partition(":")[0]
    return Device(kind, capability(device), kind != "cpu" or bfloat16())


def memory(device: str) -> tuple[int, int]:
    """(free, all) bytes of the device; of a CPU, of the machine."""
    import torch

    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return int(free), int(total)
    page = os.sysconf("SC_PAGE_SIZE")
    return os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page


def require_room(what: str, needed: int, device: str) -> None:
    """Raises `errors.TooLarge` when weights of `needed` bytes cannot fit."""
    total = memory(device)[1]
    if needed > total * 0.9:
        raise errors.TooLarge(
            f"{what} needs about {needed / 1e9:.1f} GB, {device} has {total / 1e9:.1f} GB: choose "
            "a smaller PROMPTMILL_QUANTIZATION or a larger device"
        )


def run(call: Callable[[], T]) -> T:
    """What `call` answers; too little memory, in the protocol's word. The failure is dropped
    before the cache is emptied: its frames hold the tensors that did not fit."""
    try:
        return call()
    except RuntimeError as problem:  # of which torch.OutOfMemoryError is one
        if not is_out_of_memory(problem):
            raise
        text = str(problem)
    free_cache()
    raise OutOfMemory(text)


def is_out_of_memory(problem: BaseException) -> bool:
    """Asks no library, since ONNX Runtime's generators do without torch."""
    named = type(problem).__name__ == "OutOfMemoryError"
    return named or any(words in str(problem) for words in NO_MEMORY)


def free_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def room(device: str) -> float:
    """The share of a GPU's memory that was free at the worst moment since the last call; of
    a CPU, 1: the system pages before it refuses."""
    import torch

    if not device.startswith("cuda"):
        return 1.0
    free, total = torch.cuda.mem_get_info(device)
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return float(free + torch.cuda.memory_reserved(device) - peak) / float(total)
