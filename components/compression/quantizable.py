"""Around a quantiser: before it, shapes are inferred and constants folded; after it, the metadata are as they were."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.quantization.shape_inference import quant_pre_process

from components.export import graph

WEIGHTED = ("Conv", "Gemm", "MatMul")


def prepare(model: Path, folder: Path) -> Path:
    """The graph as the quantisers want it, in a file: they change what they are handed in memory."""
    ready = folder / "prepared.onnx"
    # Symbolic shape inference raises TypeError on graphs of the dynamo exporter; plain inference is enough for them.
    quant_pre_process(model, ready, skip_symbolic_shape=True)
    return ready


def weighted_nodes(path: Path) -> list[str]:
    """Names of the layers that hold a weight, from input to output."""
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type in WEIGHTED and constants.intersection(node.input)]


def keep_metadata(source: Path, target: Path) -> None:
    """Rewrites `target` with the metadata of `source`, short names and no traces of its making."""
    quantized = onnx.load(target)
    properties = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    graph.strip(quantized)
    graph.shorten(quantized)
    graph.set_metadata(quantized, properties)
    graph.save(quantized, target)
