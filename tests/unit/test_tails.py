"""An element's place in a tensor decides no bit of what is computed from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from worker.generators.tails import Tailless

FUNCTIONS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    torch.sigmoid,
    torch.exp,
    torch.tanh,
    torch.sin,
    torch.nn.functional.silu,
    torch.nn.functional.gelu,
    lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    lambda x: x.abs() ** 0.3,
    lambda x: x.clone().sigmoid_(),
    lambda x: torch.nn.functional.silu(x.clone(), inplace=True),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_equal_rows_stay_equal_in_every_place(
    function: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype
) -> None:
    """Rows of 37 are no whole number of vectors, so that the last ends in a tail."""
    stream = torch.Generator().manual_seed(0)
    with torch.inference_mode(), Tailless():
        for _ in range(100):
            rows = torch.randn(1, 37, generator=stream).to(dtype).repeat(4, 1)
            made = function(rows)
            assert (made == made[:1]).all()


def test_it_changes_neither_shape_nor_layout_nor_value() -> None:
    flat = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    for x in (
        flat,
        flat.to(memory_format=torch.channels_last),
        flat.transpose(1, 3),
        flat[:, :, 1:],
        flat[0, 0, 0, 0],
        flat[:0],
    ):
        plain = torch.sigmoid(x)
        with torch.inference_mode(), Tailless():
            made = torch.sigmoid(x)
            held = x.clone()
            assert held.sigmoid_() is held
        assert made.shape == plain.shape
        assert made.stride() == plain.stride()
        torch.testing.assert_close(made, plain)
        torch.testing.assert_close(held, plain)
