"""A registered version carries the weights it was made from, so that another training can begin from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts import EvaluationReport, ModelVersion, TrainedModel
from components.errors import DataError, UnknownNameError, UsageError
from components.models.parent import WEIGHTS, Parent, unpack
from components.registry import versions
from components.registry.lineage import parent_of as told
from components.registry.parents import fetch
from components.registry.register import register
from components.workspace import Workspace
from tests.components.models import tiny
from tests.components.registry.conftest import Reports
from tests.components.training.parents import parent_of


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Parent:
    folder = tmp_path_factory.mktemp("parent")
    dataset = tiny.stripes(folder / "data", rows={"train": 64, "validation": 32, "test": 32})
    return parent_of(dataset, folder / "out", epochs=1)


def made_from(report: EvaluationReport, model: TrainedModel) -> EvaluationReport:
    """The report as if its graph had been exported from the network."""
    changed = tuple(row.replace(model=row.model.replace(model=model.identity)) for row in report.deployables)
    return report.replace(deployables=changed)


def file_one(report: EvaluationReport, model: TrainedModel, out: Path, **facts: object) -> ModelVersion:
    return register(made_from(report, model), {"model": None}, Workspace(out=out), {"networks": [model], **facts})


def test_a_version_is_a_parent_by_number_and_by_alias(home: Path, reports: Reports, parent: Parent, tmp_path: Path) -> None:
    """The model's identity is what it was; MLflow's own folder is read in place."""
    file_one(reports["good"], parent.model, tmp_path / "out")
    for address in ("digits/1", "digits@challenger"):
        found = fetch(address, f"mlflow:models:/{address}")
        assert found.model.identity == parent.model.identity
        assert found.model.weights.path.is_relative_to(home / "mlartifacts")
        assert found.origin["version"] == 1
    assert found.dataset.inputs == reports["good"].dataset.inputs
    assert "networks" not in versions.load("digits", 1).lineage
    row = next(row for row in versions.lineage("digits", 1) if row["kind"] == "TrainedModel")
    assert unpack(Path(row["folder"])).identity == found.identity, "lineage says where its files are"


def test_weights_that_were_changed_inside_mlflow_are_refused(home: Path, reports: Reports, parent: Parent, tmp_path: Path) -> None:
    file_one(reports["good"], parent.model, tmp_path / "out")
    file = next((home / "mlartifacts").rglob(f"{versions.PARENT}/{WEIGHTS}"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="are not those of parent"):
        fetch("digits/1", "mlflow:models:/digits/1")


def test_a_version_without_weights_says_so(home: Path, reports: Reports, parent: Parent, tmp_path: Path) -> None:
    """As one whose network is not known to the caller; what is not registered at all is named with what is."""
    register(reports["good"], {"model": None}, Workspace(out=tmp_path / "out"), {"networks": [parent.model]})
    with pytest.raises(DataError, match="version 1 of 'digits' was registered without its weights"):
        fetch("digits/1", "mlflow:models:/digits/1")
    with pytest.raises(UnknownNameError, match="champion"):
        fetch("digits@champion", "mlflow:models:/digits@champion")
    with pytest.raises(UsageError, match="has no version 2"):
        fetch("digits/2", "mlflow:models:/digits/2")


def test_lineage_walks_on_to_the_version_it_began_from(home: Path, reports: Reports, parent: Parent, tmp_path: Path) -> None:
    """Two versions, the second from the first: the first's rows follow, each version once."""
    file_one(reports["good"], parent.model, tmp_path / "first")
    origin = fetch("digits/1", "mlflow:models:/digits/1")
    child = parent.model.replace(parents=(parent.model.identity,), role="child")
    models = [{"identity": child.identity, "role": "child", "weights": "", "parents": list(child.parents)}]
    file_one(reports["poor"], child, tmp_path / "second", parent=told(origin), models=models)
    rows = versions.lineage("digits", 2)
    assert [row["name"] for row in rows if row["kind"] == "ModelVersion"] == ["digits version 2", "digits version 1"]
    named = {row["name"]: row["digest"] for row in rows}
    assert named["parent (version 1 of digits)"] == parent.model.identity
    assert "parent (version 1 of digits)" in versions.load("digits", 2).lineage["parent"]["role"]
