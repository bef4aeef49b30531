"""emoji-gan's network as an ONNX graph in static int8: `python -m worker.compress.graph` writes
it, and `worker.generators.gan` builds the same in memory. No torch and no exporter: the graph
is put together from the shipped weights, with QuantizeLinear and DequantizeLinear around
each layer, which a runtime turns into its integer kernels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from worker import command
from worker.gan import common, inputs, manifest, weightfile
from worker.gan.weightfile import Contents

if TYPE_CHECKING:
    from onnx import NodeProto, ValueInfoProto

OPSET, IR = 21, 10
LEVELS = 255
INPUT, OUTPUT = "conditions", "pixels"
FILE = "generator.onnx"


class Graph:
    """Nodes and constants in the order in which they are added; every method returns the name
    of what it adds. Activations are handed on as uint8 codes, named by their stage."""

    def __init__(self, found: Contents) -> None:
        self.found = found
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        for stage, (low, high) in (found.ranges | {"pixels": (0.0, 1.0)}).items():
            scale = max(high - low, 1e-8) / LEVELS
            self._constant(f"{stage}.scale", np.float32(scale))
            self._constant(f"{stage}.zero", np.uint8(round(-low / scale)))

    def _constant(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def node(self, kind: str, given: Sequence[str], name: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, given, [name], name=name, **attributes))
        return name

    def quantized(self, values: str, stage: str, name: str) -> str:
        """The codes of float values on a stage's scale. Its zero point is 0 after a ReLU, which
        saturation at code 0 then is."""
        given = [values, f"{stage}.scale", f"{stage}.zero"]
        return self.node("QuantizeLinear", given, name)

    def layer(self, codes: str, source: str, module: str, stage: str, name: str) -> str:
        """The codes on the scale of `stage` that a dense layer or a 3x3 convolution makes of
        codes on the scale of `source`."""
        weight = self.found.tensors[f"{module}.weight"]
        bias = self.found.tensors[f"{module}.bias"]
        coded, scales = weightfile.codes(weight)
        given = self.node(
            "DequantizeLinear", [codes, f"{source}.scale", f"{source}.zero"], f"{name}.given"
        )
        kernel = self.node(
            "DequantizeLinear",
            [
                self._constant(f"{name}.codes", coded.astype(np.int8)),
                self._constant(f"{name}.scales", scales.astype(np.float32)),
                self._constant(f"{name}.zeros", np.zeros(len(scales), np.int8)),
            ],
            f"{name}.kernel",
            axis=0,
        )
        sums = (scales * self.constants[f"{source}.scale"]).astype(np.float32)
        offset = self.node(
            "DequantizeLinear",
            [
                self._constant(f"{name}.bias.codes", np.rint(bias / sums).astype(np.int32)),
                self._constant(f"{name}.bias.scales", sums),
            ],
            f"{name}.bias",
            axis=0,
        )
        if weight.ndim == 2:
            made = self.node("Gemm", [given, kernel, offset], f"{name}.sum", transB=1)
        else:
            made = self.node(
                "Conv", [given, kernel, offset], f"{name}.sum",
                kernel_shape=[3, 3], pads=[1, 1, 1, 1],
            )  # fmt: skip
        return self.quantized(made, stage, name)

    def shaped(self, codes: str, channels: int, side: int, name: str) -> str:
        shape = self._constant(f"{name}.shape", np.array([-1, channels, side, side], np.int64))
        return self.node("Reshape", [codes, shape], name)

    def double(self, codes: str, name: str) -> str:
        """Nearest-neighbour upsampling of codes."""
        scales = self._constant("twice", np.array([1, 1, 2, 2], np.float32))
        return self.node(
            "Resize", [codes, "", scales], name,
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip


def build(found: Contents) -> bytes:
    """The model: float32 conditions [B, 416] to uint8 pixels [B, 64, 64, 3], any B."""
    from onnx import TensorProto, helper

    g, w = Graph(found), found.widths
    codes = g.quantized(INPUT, "input", "input")
    hidden = g.layer(codes, "input", "map.0", "map", "map")
    seed = g.shaped(g.layer(hidden, "map", "seed.0", "seed", "seed"), w["at4"], 4, "seed.map")
    detail = g.layer(hidden, "map", "detail.0", "at4", "detail")
    features = g.double(g.layer(seed, "seed", "at4.0", "at4", "at4"), "at4.twice")
    detail = g.shaped(detail, w["detail"], 8, "detail.map")
    features = g.node("Concat", [features, detail], "both", axis=1)
    features = g.double(g.layer(features, "at4", "at8.0", "at8", "at8"), "at8.twice")
    features = g.double(g.layer(features, "at8", "at16.0", "at16", "at16"), "at16.twice")
    features = g.layer(features, "at16", "at32.0", "at32", "at32")
    features = g.layer(features, "at32", "at32.3", "at32b", "at32b")
    cells = g.layer(features, "at32b", "pixels", "pixels", "cells")
    planes = g.node("DepthToSpace", [cells], "planes", blocksize=2, mode="CRD")
    g.node("Transpose", [planes], OUTPUT, perm=[0, 2, 3, 1])
    width = inputs.TEXT + inputs.VENDOR_CODE + inputs.NOISE
    side = inputs.SIDE
    return serialized(
        g,
        "emoji-gan",
        helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", width]),
        helper.make_tensor_value_info(OUTPUT, TensorProto.UINT8, ["batch", side, side, 3]),
    )


def serialized(g: Graph, name: str, given: ValueInfoProto, made: ValueInfoProto) -> bytes:
    """The checked model of a graph with one input and one output."""
    from onnx import checker, helper, numpy_helper

    constants = [numpy_helper.from_array(value, key) for key, value in g.constants.items()]
    model = helper.make_model(
        helper.make_graph(g.nodes, name, [given], [made], constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="promptmill",
    )
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write shipped weights as an ONNX model in int8.")
    parser.add_argument("--source", type=Path, default=Path("worker/weights/emoji-gan/student"))
    parser.add_argument("--out", type=Path, default=Path("data/onnx"))
    parser.add_argument("--encoder", type=Path, default=Path("worker/weights/emoji-gan"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    found = weightfile.read(options.source)
    (options.out / FILE).write_bytes(build(found))
    manifest.write(
        options.out,
        "onnx",
        made=(FILE,),
        source={"weights": found.digest},
        settings={"opset": OPSET, "ir": IR},
        figures=figures(options.source, options.encoder),
    )
    size = (options.out / FILE).stat().st_size
    print(f"{options.out / FILE}: {size:,} bytes, from weights of digest {found.digest}")


def figures(source: Path, encoder: Path) -> dict[str, manifest.Figure]:
    """How near ONNX Runtime's pictures are to torch's int8; nothing where either cannot run."""
    from worker.generators import gan_engines

    if find_spec("torch") is None or gan_engines.onnx_missing():
        return {}
    ours = gan_engines.by_onnx(source, encoder)
    theirs = gan_engines.by_torch(source, encoder, int8=True)
    noise, vendors = zip(*map(ours.draws, range(len(common.FIFTY))), strict=True)
    text = ours.encoder.encode(common.FIFTY)
    given = inputs.condition(text, np.array(vendors), np.stack(noise))
    error = np.square(ours.render(given).astype(float) - theirs.render(given)).mean()
    close = 10 * np.log10(255**2 / max(error, 1e-12))
    how = "PSNR of uint8 pictures of the fifty common prompts, to torch's int8 of the same weights"
    return {"psnr_torch_int8": manifest.Figure(round(float(close), 2), "dB", how)}


if __name__ == "__main__":
    command.run(main)
