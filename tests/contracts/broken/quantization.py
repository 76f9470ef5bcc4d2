"""Methods that break the promise of the family: a twin is smaller, sound and keeps its inputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
from onnx import numpy_helper

from components.compression.quantization.static import StaticQuantization
from components.compression.validation import Validation


class CopiesTheGraph(StaticQuantization):
    """Calls the float graph quantised."""

    def quantize(self, model: Path, out: Path, precision: str, validation: Validation) -> None:
        shutil.copy(model, out)


class LosesTheScales(StaticQuantization):
    """Multiplies every scale by eight: a graph that runs and knows nothing."""

    def quantize(self, model: Path, out: Path, precision: str, validation: Validation) -> None:
        super().quantize(model, out, precision, validation)
        graph = onnx.load(out)
        scales = {node.input[1] for node in graph.graph.node if node.op_type == "DequantizeLinear"}
        for tensor in graph.graph.initializer:
            if tensor.name in scales:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 8, tensor.name))
        onnx.save(graph, out)


class DropsTheSpec(StaticQuantization):
    """Leaves the metadata behind."""

    def quantize(self, model: Path, out: Path, precision: str, validation: Validation) -> None:
        super().quantize(model, out, precision, validation)
        graph = onnx.load(out)
        del graph.metadata_props[:]
        onnx.save(graph, out)
