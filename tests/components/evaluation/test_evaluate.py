"""Evaluation measures what would be served; validation chooses, and the test split is read once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from components import metrics
from components.artifacts import EvaluationReport, StoredFile
from components.data.arrays import load_inputs, load_target
from components.errors import UsageError
from components.evaluation.evaluate import evaluate
from components.workspace import Workspace
from tests.components.evaluation.conftest import CONFIG, Case


def _report(case: Case, folder: Path, **changes: Any) -> EvaluationReport:
    return evaluate(case.dataset, case.exported, {**CONFIG, **changes}, Workspace(out=folder))


def test_the_report_holds_what_a_plain_session_computes(case: Case, tmp_path: Path) -> None:
    """The chosen model's test metric, recomputed from the file and the raw arrays with nothing of ours but the strings."""
    report = _report(case, tmp_path)
    session = onnxruntime.InferenceSession(str(report.best.model.file.path))
    feed = {name: np.asarray(array) for name, array in load_inputs(case.dataset, "test").items()}
    if "categories" in feed:
        words = [column.vocabulary for column in case.dataset.inputs[1].columns]
        feed["categories"] = np.array([[words[i][code - 1] for i, code in enumerate(row)] for row in feed["categories"]], dtype=object)
    outputs, target = session.run(None, feed)[0], load_target(case.dataset, "test")
    for name, estimate in report.test.items():
        assert estimate.value == pytest.approx(metrics.compute(name, outputs, target), abs=1e-6)
        assert estimate.low <= estimate.value <= estimate.high
    assert np.load(report.predictions.path) == pytest.approx(outputs, abs=1e-6)
    assert (np.load(report.targets.path) == target).all()


def test_every_deployable_is_listed_with_size_and_latency(case: Case, tmp_path: Path) -> None:
    report = _report(case, tmp_path)
    assert [d.model.name for d in report.deployables] == ["teacher-fp32", "student-fp32", "teacher-int8", "student-int8"]
    for deployable in report.deployables:
        assert deployable.size_kb == pytest.approx(deployable.model.file.path.stat().st_size / 1024)
        assert 0 < deployable.latency_ms <= deployable.latency_p95_ms
        assert set(deployable.metrics) == set(metrics.names(case.dataset.task))


def test_the_choice_follows_validation_and_size(case: Case, tmp_path: Path) -> None:
    report = _report(case, tmp_path)
    values = {d.model.name: d.metrics[report.objective].value for d in report.deployables}
    sizes = {d.model.name: d.size_kb for d in report.deployables}
    if report.direction == "maximize":
        near = [name for name, value in values.items() if value >= max(values.values()) - 0.005]
    else:
        near = [name for name, value in values.items() if value <= min(values.values()) * 1.005]
    assert report.chosen == min(near, key=sizes.__getitem__)
    assert report.chosen in report.choice


def test_the_model_beats_the_baseline_and_the_figures_add_up(case: Case, tmp_path: Path) -> None:
    report = _report(case, tmp_path)
    assert metrics.is_better(report.objective, report.test[report.objective].value, report.baseline[report.objective])
    num_rows = case.dataset.splits["test"]
    if case.dataset.task == "classification":
        confusion = np.array(report.figures["confusion"])
        assert confusion.sum() == num_rows
        assert confusion.trace() / num_rows == pytest.approx(report.test["accuracy"].value)
        assert sum(b["rows"] for b in report.figures["calibration"]["bins"]) == num_rows
    else:
        assert sum(report.figures["residuals"]["histogram"]["counts"]) == num_rows


def test_the_same_work_decides_the_same(case: Case, tmp_path: Path) -> None:
    """Two runs differ in latency and place only; the record survives JSON."""
    first, second = _report(case, tmp_path / "a"), _report(case, tmp_path / "b")
    assert first.identity == second.identity
    assert EvaluationReport.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_files_lie_below_the_output_folder(case: Case, tmp_path: Path) -> None:
    report = _report(case, tmp_path)
    assert {file.path.parent for file in (report.predictions, report.targets)} == {tmp_path}


@pytest.mark.parametrize("case", ["digits"], indirect=True)
def test_the_test_split_is_read_for_the_chosen_model_only(case: Case, tmp_path: Path) -> None:
    """With other test rows the same deployable is chosen, on the same figures."""
    report = _report(case, tmp_path / "a")
    shuffled = np.random.default_rng(0).permutation(load_target(case.dataset, "test"))
    np.save(tmp_path / "target.npy", shuffled)
    files = {**case.dataset.files, "test/target": StoredFile.of(tmp_path / "target.npy")}
    other = _report(Case(case.dataset.replace(files=files), case.exported), tmp_path / "b")
    assert other.chosen == report.chosen
    assert [d.metrics for d in other.deployables] == [d.metrics for d in report.deployables]
    assert other.test["accuracy"].value < 0.3 < report.test["accuracy"].value


@pytest.mark.parametrize("case", ["digits"], indirect=True)
def test_another_objective_decides(case: Case, tmp_path: Path) -> None:
    report = _report(case, tmp_path, metrics={**CONFIG["metrics"], "objective": "log_loss"})
    assert (report.objective, report.direction) == ("log_loss", "minimize")
    with pytest.raises(UsageError, match="judges regression"):
        _report(case, tmp_path / "no", metrics={**CONFIG["metrics"], "objective": "rmse"})
