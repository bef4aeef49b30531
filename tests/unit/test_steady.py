"""Layers in which an image's place decides a bit are found and run in parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptmill.jobs import Item
from worker import shapes
from worker.generators import quantization, steady
from worker.generators.checkpoint import TRANSFORMERS
from worker.generators.stub import Stub


def splitting(most: int) -> steady.Layer:
    """A layer that takes the last row of every batch of more than `most` otherwise."""

    def run(rows: torch.Tensor) -> torch.Tensor:
        made = rows * 3
        if len(rows) > most:
            made[-1] = rows[-1] * 3.0001
        return made

    return run


@pytest.mark.parametrize(("most", "size"), [(1, 1), (2, 2), (3, 3), (5, 3), (6, 6), (9, 6)])
def test_the_largest_parts_in_which_no_place_differs(most: int, size: int) -> None:
    layer, rows = splitting(most), torch.rand(6, 2, 4, 4)
    assert steady.largest(layer, rows) == size
    made = steady.Parts(layer)(rows)
    assert torch.equal(made, rows * 3)
    assert made.shape == rows.shape


def test_the_memory_format_of_a_batch_is_kept() -> None:
    strides = []

    def layer(rows: torch.Tensor) -> torch.Tensor:
        strides.append(rows.stride())
        return rows * 3

    steady.largest(layer, torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last))
    assert set(strides) == {(48, 1, 12, 3)}


def test_every_convolution_of_a_network_is_seen_to_once() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv1d(4, 4, 1)
    )
    rows = torch.rand(4, 3, 4, 6)
    before = network[0](rows)
    steady.settle(network)
    first = network[0]._conv_forward
    steady.settle(network)
    assert network[0]._conv_forward is first
    assert isinstance(network[2]._conv_forward, steady.Parts)
    assert not isinstance(network[1].forward, steady.Parts)
    assert torch.equal(network[0](rows), before)


def test_a_transposed_convolution_is_seen_to_and_stays_what_it_was() -> None:
    layer, rows = torch.nn.ConvTranspose2d(3, 4, 3, stride=2), torch.rand(4, 3, 4, 6)
    before, wide = layer(rows), layer(rows, [10, 14])
    steady.settle(layer)
    assert isinstance(layer.forward, steady.Parts)
    assert torch.equal(layer(rows), before)
    assert torch.equal(layer(rows, [10, 14]), wide)


@pytest.mark.parametrize("kind", ["AutoencoderKLQwenImage", "AutoencoderKLWan"])
def test_convolutions_that_look_back_in_time_decode_and_encode_as_before(kind: str) -> None:
    import diffusers

    torch.manual_seed(0)
    vae = getattr(diffusers, kind)(
        base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        attn_scales=[], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ).eval()  # fmt: skip
    rows = torch.rand(2, 4, 1, 4, 4)
    with torch.inference_mode():
        before = vae.decode(rows).sample
        latent = vae.encode(before).latent_dist.mean
        steady.settle(vae)
        assert torch.equal(vae.decode(rows).sample, before)
        assert torch.equal(vae.encode(before).latent_dist.mean, latent)
    sizes = [
        layer._conv_forward._sizes for layer in vae.modules() if hasattr(layer, "padding_mode")
    ]
    assert any(sizes)


class Placed(Stub):
    """Draws another picture in the last place of every batch of four."""

    caps = replace(Stub.caps, batch_shapes=(1, 2, 4, 8))

    def generate(self, items, inputs=()):  # type: ignore[no-untyped-def]
        pixels = np.zeros((len(items), 8, 8, 3), np.uint8)
        pixels[-1] = len(items) == 4
        return pixels


def test_a_batch_shape_in_which_copies_differ_is_not_chosen() -> None:
    found = shapes.find(Placed(), Item(0, 0, 0, "x", 1, 8, 8), None, most=8)
    assert 4 not in found.rates
    assert {1, 2} <= set(found.rates)


def test_what_draws_token_by_token_has_no_eight_bits_on_a_gpu() -> None:
    gpu = quantization.Device("cuda", (9, 0))
    assert quantization.possible(gpu, quantization.Model(TRANSFORMERS)) == ("none", "bf16", "nf4")
