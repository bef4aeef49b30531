"""A 3x3 convolution of a doubled map (nearest neighbour) without doubling it: each of its four
pixels looks at 2x2 pixels of the map itself, 16 products where there were 36. One convolution
makes all four, and they are put beside one another."""

from __future__ import annotations

import torch
from torch import Tensor

# Which rows of a 3x3 kernel fall on one row of the map, for even and for odd rows of the output.
_TAPS = (((0,), (1, 2)), ((0, 1), (2,)))


def kernels(weight: Tensor) -> Tensor:
    """Of a weight [O, I, 3, 3] the four kernels [4 O, I, 2, 2]: of the upper left pixels, the
    upper right, the lower left and the lower right. To be applied with a padding of 1."""
    outputs, inputs, _, _ = weight.shape
    made = weight.new_zeros(2, 2, outputs, inputs, 2, 2)
    for down, rows in enumerate(_TAPS):
        for across, columns in enumerate(_TAPS):
            for y, of_y in enumerate(rows):
                for x, of_x in enumerate(columns):
                    taps = weight[:, :, of_y][:, :, :, of_x]
                    made[down, across, :, :, y, x] = taps.sum((2, 3))
    return made.reshape(4 * outputs, inputs, 2, 2)


def together(maps: Tensor) -> Tensor:
    """What a convolution with `kernels` gives, [B, 4 O, S + 1, S + 1], as [B, O, 2 S, 2 S]; the
    channels of both lie together in memory. Pixel (2 y + d, 2 x + a) is at (y + d, x + a) of the
    kernel (d, a), so each step through the result is a step of one length through the maps."""
    count, channels, high, _ = maps.shape
    outputs, side = channels // 4, high - 1
    row = high * channels
    cells = maps.contiguous(memory_format=torch.channels_last).as_strided(
        [count, side, 2, side, 2, outputs],
        [high * row, row, row + 2 * outputs, channels, channels + outputs, 1],
    )
    return cells.reshape(count, 2 * side, 2 * side, outputs).permute(0, 3, 1, 2)
