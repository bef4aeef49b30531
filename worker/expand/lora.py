"""Low-rank adaptation of the query and value projections: W + B A * (ALPHA / RANK), with A
and B the only weights that train (Hu et al., LoRA, equation 3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

RANK = 8
ALPHA = 16.0
TARGETS = ("q_proj", "v_proj")


def projections(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """(name, linear layer) of each that is adapted."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in TARGETS:
            yield name, module


def attach(model: nn.Module, *, seed: int) -> dict[str, torch.nn.Parameter]:
    """Freezes the model and adds trainable A (small noise) and B (zero) to each projection:
    at first it answers as before. The parameters by the names that `merge` reads."""
    import torch
    from torch import nn

    model.requires_grad_(False)
    chance = torch.Generator().manual_seed(seed)
    made: dict[str, nn.Parameter] = {}
    for name, layer in list(projections(model)):
        down = torch.randn(RANK, layer.in_features, generator=chance) / layer.in_features**0.5
        a, b = nn.Parameter(down), nn.Parameter(torch.zeros(layer.out_features, RANK))
        made |= {f"{name}.A": a, f"{name}.B": b}
        layer.register_forward_hook(_added(a, b))
    return made


def _added(a: Tensor, b: Tensor) -> Any:
    def hook(layer: Any, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        low = given[0].to(a.dtype) @ a.T @ b.T
        return out + (low * (ALPHA / RANK)).to(out.dtype)

    return hook


def merge(model: nn.Module, adapter: Path) -> None:
    """Adds a trained adapter to the weights themselves."""
    import torch
    from safetensors.torch import load_file

    held = load_file(str(adapter))
    with torch.no_grad():
        for name, layer in projections(model):
            change = held[f"{name}.B"].float() @ held[f"{name}.A"].float() * (ALPHA / RANK)
            layer.weight.copy_((layer.weight.float() + change).to(layer.weight.dtype))


def fits(adapter: Path, config: Path) -> bool:
    """Whether an adapter is one of the model that this file, its `config.json`, describes: as
    many layers, as wide."""
    from safetensors import safe_open

    told = json.loads(config.read_text())
    with safe_open(str(adapter), "np") as held:
        downs = [name for name in held.keys() if name.endswith(".A")]  # noqa: SIM118
        widths = {held.get_slice(name).get_shape()[1] for name in downs}
    return len(downs) == len(TARGETS) * told["num_hidden_layers"] and widths == {
        told["hidden_size"]
    }
