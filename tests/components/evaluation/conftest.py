"""Exported and quantised models of three small data sets, made once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from components.artifacts import DatasetVersion, ExportedModel
from components.compression.quantize import quantize
from components.export.export import export
from components.workspace import Workspace
from tests.components.export.models import digits, fitted, mixed_table

CASES = ("digits", "table-regression")
CONFIG = {
    "exporter": {"_target_": "components.export.exporter.onnx.OnnxExporter"},
    "quantization": {"_target_": "components.compression.quantization.static.StaticQuantization"},
    "metrics": {"_target_": "components.evaluation.metrics.standard.StandardMetrics", "bootstrap": 200},
    "selection": {"tolerance": 0.005},
}


@dataclass(frozen=True)
class Case:
    """A data set and what was exported for it: a teacher and a student in FP32, and their INT8 twins."""

    dataset: DatasetVersion
    exported: tuple[ExportedModel, ...]


@pytest.fixture(scope="session", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(request.param, tmp_path_factory.mktemp("case"))


def make_case(name: str, folder: Path) -> Case:
    """Trains and exports; a few seconds."""
    dataset = digits(folder) if name == "digits" else mixed_table(folder, name.partition("-")[2])
    models = (fitted(dataset, folder, width=24, steps=120), fitted(dataset, folder, width=8, steps=120, role="student"))
    exported = export(dataset, models, CONFIG, Workspace(out=folder / "export"))
    return Case(dataset, exported + quantize(dataset, exported, CONFIG, Workspace(out=folder / "quantize")))
