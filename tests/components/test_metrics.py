"""Metrics are those of scikit-learn, know their direction, and never let a NaN win."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from components import metrics
from components.errors import UnknownNameError, UsageError


@pytest.fixture(params=[2, 3, 7])
def classified(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties and targets of 2, 3 and 7 classes."""
    rng = np.random.default_rng(request.param)
    targets = rng.integers(0, request.param, 400)
    logits = rng.normal(size=(400, request.param)) + 1.5 * np.eye(request.param)[targets]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    coarse = np.round(probabilities, 1) + 1e-3
    return (coarse / coarse.sum(axis=1, keepdims=True)).astype(np.float32), targets


def test_classification_metrics_are_scikit_learns(classified: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, targets = classified
    predicted = probabilities.argmax(axis=1)
    expected = {
        "accuracy": reference.accuracy_score(targets, predicted),
        "f1": reference.f1_score(targets, predicted, average="macro", zero_division=0),
        "precision": reference.precision_score(targets, predicted, average="macro", zero_division=0),
        "recall": reference.recall_score(targets, predicted, average="macro", zero_division=0),
        "log_loss": reference.log_loss(targets, probabilities),
        "auc": np.mean([reference.roc_auc_score(targets == k, probabilities[:, k]) for k in range(probabilities.shape[1])]),
    }
    assert set(expected) == set(metrics.names("classification"))
    for name, value in expected.items():
        assert metrics.compute(name, probabilities, targets) == pytest.approx(value, abs=1e-6), name


def test_regression_metrics_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(50, 9, 300).astype(np.float32)
    values = (targets + rng.normal(0, 2, 300)).astype(np.float32)
    assert metrics.compute("rmse", values, targets) == pytest.approx(reference.root_mean_squared_error(targets, values), rel=1e-5)
    assert metrics.compute("mae", values, targets) == pytest.approx(reference.mean_absolute_error(targets, values), rel=1e-5)
    assert metrics.compute("r2", values, targets) == pytest.approx(reference.r2_score(targets, values), rel=1e-5)


def test_classes_that_do_not_occur_do_not_count() -> None:
    """Macro means run over the classes seen in targets or answers, as scikit-learn's do."""
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]], dtype=np.float32)
    targets = np.array([0, 1, 1])
    assert metrics.compute("recall", probabilities, targets) == pytest.approx(0.75)
    assert metrics.compute("auc", probabilities, targets) == pytest.approx(1.0)


def test_an_undefined_metric_is_nan() -> None:
    probabilities = np.array([[0.4, 0.6], [0.3, 0.7]], dtype=np.float32)
    assert math.isnan(metrics.compute("auc", probabilities, np.array([1, 1])))
    assert math.isnan(metrics.compute("accuracy", probabilities[:0], np.array([], dtype=int)))
    assert math.isnan(metrics.compute("accuracy", np.full((2, 2), np.nan), np.array([0, 1])))


def test_a_certain_mistake_has_a_finite_log_loss() -> None:
    assert metrics.compute("log_loss", np.array([[1.0, 0.0]], dtype=np.float32), np.array([1])) == pytest.approx(-math.log(2**-23))


def test_r2_of_constant_targets_is_zero_or_one() -> None:
    constant = np.full(4, 2.0)
    assert metrics.compute("r2", constant, constant) == 1.0
    assert metrics.compute("r2", constant + 1, constant) == 0.0


@pytest.mark.parametrize("name", metrics.METRICS)
def test_better_follows_the_direction_and_nan_never_wins(name: str) -> None:
    high_wins = metrics.direction(name) == "maximize"
    assert metrics.is_better(name, 2.0, 1.0) == high_wins
    assert metrics.is_better(name, 1.0, 2.0) != high_wins
    assert not metrics.is_better(name, 1.0, 1.0)
    assert not metrics.is_better(name, math.nan, 1.0)
    assert metrics.is_better(name, 1.0, math.nan)


def test_the_objective_fits_the_task_or_is_refused_by_name() -> None:
    assert metrics.objective(None, "classification") == "accuracy"
    assert metrics.objective(None, "regression") == "rmse"
    assert metrics.objective("auc", "classification") == "auc"
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        metrics.objective("acuracy", "classification")
    with pytest.raises(UsageError, match=r"metrics\.objective=rmse judges regression, this dataset's task is classification"):
        metrics.objective("rmse", "classification")
