"""emoji-gan by ONNX Runtime: the graphs of `worker.compress.graph` and `sight` and the text
encoder's dense layers, each on one thread. Imports no torch. On x86 without VNNI the library's
usual int8 kernels saturate sums of two products at 16 bits; those that are taken here do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from worker.compress import graph, sight
from worker.gan.weightfile import Contents

if TYPE_CHECKING:
    from worker.gan.memory import Dense, Floats
    from worker.gan.score import Tensors, Trunk


class OnnxGenerator:
    """Shipped weights in static int8: sums are exact integers, so a picture's bytes do not
    depend on its batch."""

    def __init__(self, found: Contents) -> None:
        self._session = _session(graph.build(found))

    def __call__(self, conditions: Floats) -> NDArray[np.uint8]:
        """Conditions [B, 416] to pixels uint8 [B, 64, 64, 3]."""
        (pixels,) = self._session.run([graph.OUTPUT], {graph.INPUT: conditions})
        made: NDArray[np.uint8] = pixels
        return made


def dense(weights: Floats) -> Dense:
    """The product with weights [K, M], by this library: numpy's own wakes a thread for each
    core."""
    from onnx import TensorProto, helper, numpy_helper

    inputs, outputs = weights.shape
    made = helper.make_graph(
        [helper.make_node("MatMul", ["codes", "weights"], ["sums"])],
        "dense",
        [helper.make_tensor_value_info("codes", TensorProto.FLOAT, ["batch", inputs])],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(np.ascontiguousarray(weights), "weights")],
    )
    opset = [helper.make_opsetid("", graph.OPSET)]
    model = helper.make_model(made, opset_imports=opset, ir_version=graph.IR)
    session = _session(model.SerializeToString())

    def product(codes: Floats) -> Floats:
        (sums,) = session.run(["sums"], {"codes": codes})
        found: Floats = sums
        return found

    return product


def trunk(tensors: Tensors) -> Trunk:
    """The scorer's convolutions."""
    session = _session(sight.build(tensors))

    def run(cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
        (maps,) = session.run([sight.MAPS], {sight.CELLS: cells})
        made: NDArray[np.uint8] = maps
        return made

    return run


def _session(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors: what it optimises is nobody's news
    options.add_session_config_entry("session.x64quantprecision", "1")  # without VNNI exact, too
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def version() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"
