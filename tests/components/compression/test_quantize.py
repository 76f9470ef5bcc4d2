"""Quantised twins are smaller, answer almost the same, keep inputs and metadata, and are the same bytes each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts import DatasetVersion, ExportedModel
from components.compression.quantizable import prepare, weighted_nodes
from components.compression.quantization.static import StaticQuantization
from components.compression.quantize import quantize
from components.compression.validation import Validation
from components.data.arrays import load_inputs
from components.errors import UsageError
from components.export.export import export
from components.export.runtime import Session, feeds
from components.workspace import Workspace
from tests.components.export.models import digits, fitted, mixed_table

EXPORTER = {"exporter": {"_target_": "components.export.exporter.onnx.OnnxExporter"}}
METHODS = ("static.StaticQuantization", "dynamic.DynamicQuantization")
Case = tuple[DatasetVersion, ExportedModel]


@pytest.fixture(scope="module", params=["digits", "table-regression"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    dataset = digits(folder) if request.param == "digits" else mixed_table(folder, "regression")
    model = fitted(dataset, folder, width=64, steps=120)
    return dataset, export(dataset, (model,), EXPORTER, Workspace(out=folder / "export"))[0]


def _config(method: str, **arguments: Any) -> dict[str, Any]:
    return {"quantization": {"_target_": f"components.compression.quantization.{method}", **arguments}, "metrics": {"objective": None}}


@pytest.mark.parametrize("method", METHODS)
def test_the_twin_is_smaller_and_as_good(case: Case, method: str, tmp_path: Path) -> None:
    dataset, exported = case
    events: list[dict[str, Any]] = []
    work = Workspace(out=tmp_path, emit=lambda event, **fields: events.append(fields))
    twin = quantize(dataset, (exported,), _config(method), work)[0]
    assert twin.file.size < 0.7 * exported.file.size
    assert events[0]["after"] == pytest.approx(events[0]["before"], rel=0.02)
    assert twin.inputs == exported.inputs
    assert (twin.model, twin.parents) == (exported.model, (exported.identity,))
    assert Session(twin.file.path).spec == Session(exported.file.path).spec
    assert [path.name for path in tmp_path.iterdir()] == [f"{twin.name}.onnx"]


def test_the_same_graph_gives_the_same_bytes(case: Case, tmp_path: Path) -> None:
    dataset, exported = case
    first, second = (quantize(dataset, (exported,), _config(METHODS[0]), Workspace(out=tmp_path / name))[0] for name in "ab")
    assert first.file.sha256 == second.file.sha256


def test_weights_are_integers_per_channel(case: Case, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    dataset, exported = case
    twin = quantize(dataset, (exported,), _config(METHODS[0]), Workspace(out=tmp_path))[0]
    graph = onnx.load(twin.file.path).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    restored = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in tensors]
    pairs = [(tensors[node.input[0]], tensors[node.input[1]]) for node in restored]
    weights = [(weight, scale) for weight, scale in pairs if weight.dtype == np.int8 and weight.ndim > 1]
    assert weights
    assert all(scale.ndim == 1 and len(scale) in weight.shape for weight, scale in weights)


def test_none_makes_no_twin(case: Case, tmp_path: Path) -> None:
    dataset, exported = case
    assert quantize(dataset, (exported,), _config("none.NoQuantization"), Workspace(out=tmp_path)) == ()
    assert not list(tmp_path.iterdir())


def test_a_twin_that_loses_too_much_keeps_its_ends_in_float(case: Case, tmp_path: Path) -> None:
    """Forced by a tolerance that nothing meets: the better of the two graphs is kept, never the worse."""
    dataset, exported = case
    validation = Validation(dataset, "log_loss" if dataset.task == "classification" else "rmse")
    forgiving, strict = StaticQuantization(tolerance=1e9), StaticQuantization(tolerance=-1e9)
    forgiving.quantize(exported.file.path, tmp_path / "whole.onnx", "int8", validation)
    strict.quantize(exported.file.path, tmp_path / "better.onnx", "int8", validation)
    assert validation.loss(exported.file.path, tmp_path / "better.onnx") <= validation.loss(exported.file.path, tmp_path / "whole.onnx")
    assert len(weighted_nodes(prepare(exported.file.path, tmp_path))) == 3


def test_calibration_rows_are_training_rows_drawn_by_the_seed(case: Case) -> None:
    dataset, _ = case
    name = dataset.inputs[0].name
    rows = Validation(dataset, "accuracy", seed=1).calibration(50)
    known = {row.tobytes() for row in feeds(dataset, load_inputs(dataset, "train"))[name]}
    assert len(rows[name]) == 50
    assert all(row.tobytes() in known for row in rows[name])
    assert not np.array_equal(rows[name], Validation(dataset, "accuracy", seed=2).calibration(50)[name], equal_nan=True)


def test_unknown_calibrations_are_refused() -> None:
    with pytest.raises(UsageError, match="must be one of minmax, entropy, percentile, got 'mean'"):
        StaticQuantization(calibration="mean")
    with pytest.raises(UsageError, match="rows must be at least 1, got 0"):
        StaticQuantization(rows=0)
