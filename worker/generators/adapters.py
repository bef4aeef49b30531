"""Adapters (LoRA): where the file of one is."""

from __future__ import annotations

from pathlib import Path

from promptmill import errors, models
from worker.generators import hub


def alone(folder: Path) -> bool:
    """Whether a folder holds an adapter and no checkpoint."""
    known = ("model_index.json", "config.json")
    files = list(folder.glob("*.safetensors"))
    return len(files) == 1 and not any((folder / name).exists() for name in known)


def find(place: str) -> Path:
    """The adapter's file. Raises `errors.Error` unless there is exactly one."""
    path = (
        hub.cached(models.served_name(place), place.partition("@")[2] or None)
        if place.startswith(models.HUB)
        else Path(place).expanduser()
    )
    if path.is_file() and path.suffix == ".safetensors":
        return path
    found = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    if len(found) != 1:
        raise errors.Error(f"an adapter must be one .safetensors file, {place} has {len(found)}")
    return found[0]
