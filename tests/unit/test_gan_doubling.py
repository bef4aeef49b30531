"""A convolution of a doubled map without doubling it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from worker.gan import doubling
from worker.gan.networks import double


@pytest.mark.parametrize("side", [1, 4, 7])
def test_it_is_the_convolution_of_the_doubled_map(side: int) -> None:
    chance = torch.Generator().manual_seed(side)
    maps = torch.randn(3, 5, side, side, generator=chance, dtype=torch.float64)
    weight = torch.randn(6, 5, 3, 3, generator=chance, dtype=torch.float64)
    bias = torch.randn(6, generator=chance, dtype=torch.float64)
    truth = F.conv2d(double(maps), weight, bias, padding=1)
    four = F.conv2d(maps, doubling.kernels(weight), bias.repeat(4), padding=1)
    made = doubling.together(four, torch.full_like(truth, torch.nan), outputs=6, side=side)
    torch.testing.assert_close(made, truth)


@pytest.mark.filterwarnings("ignore")  # the quantized dtypes are announced to leave
def test_codes_stay_what_they_are() -> None:
    codes = torch.randint(0, 256, (2, 8, 4, 4), dtype=torch.uint8)
    maps = torch._make_per_tensor_quantized_tensor(codes, 0.25, 0)
    shape = (2, 2, 6, 6)
    made = torch._empty_affine_quantized(shape, scale=0.25, zero_point=0, dtype=torch.quint8)
    plain = doubling.together(codes, codes.new_empty(shape), outputs=2, side=3)
    assert torch.equal(doubling.together(maps, made, outputs=2, side=3).int_repr(), plain)
