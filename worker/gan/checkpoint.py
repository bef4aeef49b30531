"""One object names all that a training run saves; files are safetensors and JSON, written
whole or not at all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from promptmill import errors
from worker.gan.networks import Discriminator, Generator, Widths

TENSORS = "state.safetensors"
STEP = "step"  # stands among the tensors: two files could be of two steps
FACTS = "state.json"


@dataclass(slots=True)
class Checkpoint:
    """A run between two steps. Randomness is not part of it: each step seeds its own from
    the run's seed and the step's number."""

    step: int
    generator: Generator
    average: Generator  # exponential moving average of the generator: what ships
    critic: Discriminator
    generator_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer

    @staticmethod
    def fresh(
        seed: int,
        *,
        rate: float,
        critic_rate: float,
        widths: Widths | None = None,
        critic_width: int = 48,
        names: int = 0,
        start: Generator | None = None,
        device: str = "cpu",
    ) -> Checkpoint:
        """names: how many concepts the critic's head tells apart, if it has one. On any device
        both players begin as they would on the CPU."""
        torch.manual_seed(seed)
        generator = (
            copy.deepcopy(start).requires_grad_(True).train() if start else Generator(widths)
        )
        critic = Discriminator(critic_width, names)
        for network in (generator, critic):
            network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = copy.deepcopy(generator).eval().requires_grad_(False)
        slow = torch.optim.AdamW(
            generator.parameters(), rate, (0.9, 0.99), weight_decay=1e-4, fused=True
        )
        fast = torch.optim.Adam(critic.parameters(), critic_rate, (0.0, 0.99), fused=True)
        return Checkpoint(0, generator, average, critic, slow, fast)

    def save(self, folder: Path) -> None:
        keep(folder, self.step, self._modules(), self._optimizers())

    def restore(self, folder: Path) -> None:
        """Fills this object from `folder`; raises `errors.Error` when it is unreadable."""
        self.step = recall(folder, self._modules(), self._optimizers())

    def follow(self, decay: float) -> None:
        """Moves the average towards the generator, batch-norm statistics included."""
        with torch.no_grad():
            pairs = zip(
                self.average.state_dict().values(),
                self.generator.state_dict().values(),
                strict=True,
            )
            for slow, new in pairs:
                if slow.is_floating_point():
                    slow.lerp_(new, 1 - decay)
                else:
                    slow.copy_(new)

    def _modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "average": self.average, "critic": self.critic}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"slow": self.generator_optimizer, "fast": self.critic_optimizer}


Modules = Mapping[str, nn.Module]
Optimizers = Mapping[str, torch.optim.Optimizer]


def keep(folder: Path, step: int, modules: Modules, optimizers: Optimizers) -> None:
    """Saves a run as it is after a step."""
    tensors = {STEP: torch.tensor(step)}
    for part, module in modules.items():
        tensors |= {f"{part}.{k}": v.cpu().contiguous() for k, v in module.state_dict().items()}
    for part, optimizer in optimizers.items():
        for number, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"{part}.{number}.{k}": v.cpu().contiguous() for k, v in slots.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / TENSORS, lambda path: save_file(tensors, path))
    write(folder / FACTS, lambda path: path.write_text(json.dumps({"step": step})))


def recall(folder: Path, modules: Modules, optimizers: Optimizers) -> int:
    """Fills both, on the devices where they are, with what `keep` saved, and returns its step;
    raises `errors.Error` when it is unreadable or of other networks."""
    try:
        tensors = load_file(folder / TENSORS)
        step = int(tensors[STEP]) if STEP in tensors else step_of(folder)
    except (OSError, ValueError, KeyError, SafetensorError) as problem:
        raise errors.Error(f"cannot resume from {folder}: {problem}") from problem
    for part, module in modules.items():
        try:
            module.load_state_dict(_under(tensors, part))
        except RuntimeError as problem:
            told = " ".join(str(problem).split())
            raise errors.Error(
                f"cannot resume from {folder}, whose {part} differs: {told}"
            ) from None
    for part, optimizer in optimizers.items():
        _restore_optimizer(optimizer, _under(tensors, part))
    return step


def step_of(folder: Path) -> int:
    """The step that `state.json` tells people of."""
    return int(json.loads((folder / FACTS).read_text())["step"])


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Fills a file beside `path`, then renames it: a reader sees the old or the new one."""
    beside = path.with_name(path.name + ".part")
    fill(beside)
    beside.replace(path)


def _under(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    start = part + "."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """A moment takes its parameter's memory layout: the fused kernels walk both as they lie
    in memory, and files hold every tensor in plain order."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        number, _, slot = name.partition(".")
        like = parameters[int(number)]
        laid = torch.empty_like(like.detach()).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[slot] = laid
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
