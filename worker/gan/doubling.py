"""A 3x3 convolution of a doubled map (nearest neighbour) without doubling it: each of its four
pixels looks at 2x2 pixels of the map itself, 16 products where there were 36. One convolution
makes all four, and they are put beside one another."""

from __future__ import annotations

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


def together(maps: Tensor, made: Tensor, *, outputs: int, side: int) -> Tensor:
    """What a convolution with `kernels` gives, [B, 4 O, S + 1, S + 1], put into `made`
    [B, O, 2 S, 2 S]. Outputs O and side S are told, since a program that is recorded would work
    them out anew each time."""
    for down in range(2):
        for across in range(2):
            first = (2 * down + across) * outputs
            made[:, :, down::2, across::2] = maps[
                :, first : first + outputs, down : down + side, across : across + side
            ]
    return made
