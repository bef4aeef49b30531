"""Pictures on their way into a pipeline of diffusers and out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from promptmill.jobs import Item
from worker.generators.base import Input, Pixels

if TYPE_CHECKING:
    from torch import Tensor


def given(first: Item, inputs: Sequence[Input]) -> dict[str, Any]:
    """The sources and masks as arguments of a pipeline. Raises `ValueError` for a missing mask."""
    from PIL import Image

    if not inputs:
        return {}
    found: dict[str, Any] = {"image": [Image.fromarray(one.pixels) for one in inputs]}
    masks = [one.mask for one in inputs if one.mask is not None]
    if first.task == "inpaint":
        if len(masks) != len(inputs):
            raise ValueError("inpainting needs a mask")
        found["mask_image"] = [Image.fromarray(mask) for mask in masks]
    return found


def bytes_of(images: Tensor) -> Pixels:
    """uint8 [B, H, W, 3] of floats [B, 3, H, W] from 0 to 1; black where one is no number."""
    import torch

    scaled = (images.float().nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels: Pixels = scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def keep_outside(pixels: Pixels, inputs: Sequence[Input]) -> Pixels:
    """The source's own pixels wherever the mask does not ask for new ones."""
    import numpy as np

    sources = np.stack([one.pixels for one in inputs])
    masks = np.stack([one.mask for one in inputs if one.mask is not None])
    kept: Pixels = np.where(masks[..., None] > 127, pixels, sources)
    return kept
