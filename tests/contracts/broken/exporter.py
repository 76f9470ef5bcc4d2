"""An exporter that changes one weight on the way out: parity must notice."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import numpy_helper
from torch import nn

from components.artifacts import DatasetVersion
from components.export.exporter.onnx import OnnxExporter


class ChangesOneWeight(OnnxExporter):
    """Adds one to a bias of the last layer."""

    def export(self, network: nn.Module, dataset: DatasetVersion, path: Path) -> None:
        super().export(network, dataset, path)
        model = onnx.load(path)
        last = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == last.input[2])
        values = numpy_helper.to_array(bias).copy()
        values[0] += 1
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))
        onnx.save(model, path)


class ForgetsTheSpec(OnnxExporter):
    """Writes a graph that nobody can feed: its metadata are empty."""

    def export(self, network: nn.Module, dataset: DatasetVersion, path: Path) -> None:
        super().export(network, dataset, path)
        model = onnx.load(path)
        del model.metadata_props[:]
        onnx.save(model, path)


class KeepsTheBatch(OnnxExporter):
    """Fixes the batch axis at one row."""

    def export(self, network: nn.Module, dataset: DatasetVersion, path: Path) -> None:
        super().export(network, dataset, path)
        model = onnx.load(path)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(model, path)
