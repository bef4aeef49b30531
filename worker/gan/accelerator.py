"""Where a network learns: the device that a command was asked for, and what a GPU is given that a
CPU is not: batches from pinned memory and compiled networks."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.gan import parallel

COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run takes place. compiled: with compiled networks, whose steps round otherwise."""

    device: str = "cpu"
    compiled: bool = False


CPU = Place()


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option `--device`."""
    told = "auto (the GPU if there is one), cpu or cuda"
    parser.add_argument("--device", type=device, default="auto", help=told)


def add_place(parser: argparse.ArgumentParser) -> None:
    """The options that `place` reads."""
    add_device(parser)
    told = "leave the networks as they are; on a CPU they are never compiled"
    parser.add_argument("--no-compile", dest="compile", action="store_false", help=told)


def place(device: str, compile: bool) -> Place:
    """What the options come to. A GPU without a compiler goes on without one, and says so."""
    if not device.startswith("cuda") or not compile:
        return Place(device)
    missing = compiler_missing(device)
    if missing:
        print(f"networks are not compiled: {missing}", flush=True)
    return Place(device, not missing)


def device(asked: str) -> str:
    """`auto` is the GPU if there is one and this process is alone. What cannot be had is
    refused in the parser's words."""
    here, alone = torch.cuda.is_available(), parallel.alone()
    if asked == "auto":
        return "cuda" if here and alone else "cpu"
    kind, _, number = asked.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise argparse.ArgumentTypeError(f"{asked!r}: there is auto, cpu and cuda")
    if kind == "cpu":
        return kind
    if not here:
        raise argparse.ArgumentTypeError(f"{asked!r}: torch sees no GPU here")
    if number and int(number) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"{asked!r}: torch sees {torch.cuda.device_count()} GPUs")
    if not alone:
        raise argparse.ArgumentTypeError(f"{asked!r}: several processes share batches on the CPU")
    return asked


def compiler_missing(device: str) -> str:
    """Why torch cannot compile for this GPU; empty if it can."""
    if torch.cuda.get_device_capability(device) < (7, 0):
        return "Triton takes compute capability 7.0 or more"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return "" if any(map(shutil.which, COMPILERS)) else "there is no C compiler"


def compile(network: nn.Module) -> None:
    """Compiles calls of a network, for the one batch shape that it is given; its `forward` stays
    as it is. It happens at the first call."""
    network.compile(dynamic=False)


def moved(tensor: Tensor, device: str) -> Tensor:
    """The tensor of a batch on the device. A copy to a GPU goes on while the CPU does."""
    if device == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
