"""The scorer's network (`worker.gan.eye`) as an ONNX graph of one fixed shape, put together from
the shipped weights without torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.compress.graph import IR, OPSET
from worker.gan import inputs, score
from worker.gan.score import Tensors

if TYPE_CHECKING:
    from onnx import NodeProto

CELLS, TEXTS, LOGITS = "cells", "texts", "logits"
SIDE = inputs.SIDE // 4


def build(tensors: Tensors) -> bytes:
    """The model: float32 cells [4, 12, 16, 16] and texts [4, 384] to logits [4]."""
    from onnx import TensorProto, checker, helper, numpy_helper

    constants = {
        **tensors,
        "say.weight": tensors["say.weight"] * np.float32(math.sqrt(inputs.TEXT)),
        "axes": np.array([1], np.int64),
    }
    rows = score.ROWS
    graph = helper.make_graph(
        _nodes(tensors),
        "scorer",
        [
            helper.make_tensor_value_info(
                CELLS, TensorProto.FLOAT, [rows, score.CELLS, SIDE, SIDE]
            ),
            helper.make_tensor_value_info(TEXTS, TensorProto.FLOAT, [rows, inputs.TEXT]),
        ],
        [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [rows])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR)
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _nodes(tensors: Tensors) -> list[NodeProto]:
    from onnx import helper

    found: list[NodeProto] = []

    def add(kind: str, given: list[str], name: str, **attributes: Any) -> str:
        found.append(helper.make_node(kind, given, [name], name=name, **attributes))
        return name

    def dense(module: str, given: str) -> str:
        weights = [f"{module}.weight", f"{module}.bias"]
        made = add("Gemm", [given, *weights], f"{module}.sum", transB=1)
        return add("LpNormalization", [made], f"{module}.unit", axis=1, p=2)

    places = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("trunk.")})
    maps, before = CELLS, -1
    for place in places:
        if place > before + 1:
            maps = add("MaxPool", [maps], f"pool.{place}", kernel_shape=[2, 2], strides=[2, 2])
        layer, before = f"trunk.{place}.0", place
        given = [maps, f"{layer}.weight", f"{layer}.bias"]
        made = add("Conv", given, f"{layer}.sum", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        maps = add("Relu", [made], layer)
    pools = [add(f"Global{kind}Pool", [maps], kind) for kind in ("Average", "Max")]
    seen = dense("out", add("Flatten", [add("Add", pools, "both")], "features"))
    product = add("Mul", [seen, dense("say", TEXTS)], "product")
    cosine = add("ReduceSum", [product, "axes"], "cosine", keepdims=0)
    add("Add", [add("Mul", [cosine, "sharp"], "sharpened"), "offset"], LOGITS)
    return found
