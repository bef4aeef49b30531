"""The scorer's convolutions (`worker.gan.score`) as an ONNX graph in static int8, put together
from the shipped weights without torch."""

from __future__ import annotations

from worker.compress.graph import Graph, serialized
from worker.gan import inputs, score
from worker.gan.score import Tensors
from worker.gan.weightfile import Contents

CELLS, MAPS = "cells", "maps"
SIDE = inputs.SIDE // 4


def build(tensors: Tensors) -> bytes:
    """The model: uint8 cells [B, 12, 16, 16] to uint8 maps [B, 128, 4, 4], any B."""
    from onnx import TensorProto, helper

    stages = score.convolutions(tensors)
    ends = {name: (0.0, step * score.LEVELS) for name, _, step in stages}
    half = 2 / score.LEVELS
    ends[CELLS] = (-score.ZERO * half, (score.LEVELS - score.ZERO) * half)
    g = Graph(Contents({}, ends, tensors, 0, ""))
    codes = source = CELLS
    for name, halved, _ in stages:
        if halved:
            codes = g.node("MaxPool", [codes], f"{name}.half", kernel_shape=[2, 2], strides=[2, 2])
        codes, source = g.layer(codes, source, name, name, f"{name}.codes"), name
    g.node("Identity", [codes], MAPS)
    given = helper.make_tensor_value_info(
        CELLS, TensorProto.UINT8, ["batch", score.CELLS, SIDE, SIDE]
    )
    channels = len(tensors[f"{source}.weight"])
    made = helper.make_tensor_value_info(MAPS, TensorProto.UINT8, ["batch", channels, 4, 4])
    return serialized(g, "scorer", given, made)
