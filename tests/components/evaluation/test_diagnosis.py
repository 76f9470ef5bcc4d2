"""Calibration, rows per class, residuals and the baseline, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluation import diagnosis


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    """Ten rows at 0.95 of which nine are right, ten at 0.65 of which five are: (0.05 + 0.15) / 2."""
    probabilities = np.array([[0.95, 0.05]] * 10 + [[0.65, 0.35]] * 10)
    targets = np.array([0] * 9 + [1] + [0] * 5 + [1] * 5)
    found = diagnosis.calibration(probabilities, targets, 10)
    assert found["error"] == pytest.approx(0.1)
    assert [(b["low"], b["rows"], b["accuracy"]) for b in found["bins"]] == [(0.6, 10, 0.5), (0.9, 10, 0.9)]


def test_full_confidence_falls_into_the_last_bin() -> None:
    assert diagnosis.calibration(np.array([[1.0, 0.0]]), np.array([0]), 10)["bins"][0]["high"] == 1.0


def test_rows_per_class() -> None:
    probabilities = np.eye(3)[[0, 0, 1, 1]]
    assert diagnosis.per_class(probabilities, np.array([0, 1, 1, 1])) == [
        {"rows": 1, "precision": 0.5, "recall": 1.0},
        {"rows": 3, "precision": 1.0, "recall": pytest.approx(2 / 3)},
        {"rows": 0, "precision": 0.0, "recall": 0.0},
    ]


def test_residuals_are_target_minus_value() -> None:
    found = diagnosis.residual_summary(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0]), 2)
    assert (found["quantiles"]["0"], found["quantiles"]["0.5"], found["quantiles"]["1"]) == (-1, 0, 1)
    assert sum(found["histogram"]["counts"]) == 3


def test_the_baseline_knows_only_the_training_targets() -> None:
    assert diagnosis.baseline(np.array([0, 0, 0, 1]), 2, 2).tolist() == [[0.75, 0.25]] * 2
    assert diagnosis.baseline(np.array([1.0, 3.0]), 2, 0).tolist() == [2.0, 2.0]
