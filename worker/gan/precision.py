"""In which numbers networks are computed on this machine's processor."""

from __future__ import annotations

import torch

from worker.generators import device as devices


def best() -> torch.dtype:
    """bfloat16, within 1e-2 of float32, where the processor multiplies it itself; else float32."""
    return torch.bfloat16 if devices.bfloat16() else torch.float32


def autocast(device: str = "cpu") -> torch.autocast:
    """Within it layers compute in `best`, or in bfloat16 on another device."""
    kind = torch.device(device).type
    wanted = kind != "cpu" or best() is torch.bfloat16
    return torch.autocast(kind, torch.bfloat16, enabled=wanted)
