"""Intervals: each metric over weighted rows is the metric over the resampled rows."""

from __future__ import annotations

import numpy as np
import pytest

from components import metrics
from components.evaluation import bootstrap

ROWS = 240


def _classified(num_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, num_classes, ROWS)
    logits = rng.normal(size=(ROWS, num_classes)) + 1.2 * np.eye(num_classes)[targets]
    probabilities = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 2) + 1e-4
    return probabilities.astype(np.float32), targets


def _valued(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.normal(10, 4, ROWS)
    return (targets + rng.normal(0.3, 1, ROWS)).astype(np.float32), targets.astype(np.float32)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_metric_over_counts_is_the_metric_over_the_drawn_rows(name: str) -> None:
    """Exactly; for auc to first order, a hundredth of its spread here."""
    outputs, targets = _classified() if metrics.task(name) == "classification" else _valued()
    drawn = np.random.default_rng(5).integers(0, ROWS, ROWS)
    counts = np.bincount(drawn, minlength=ROWS).astype(float)[None]
    found = bootstrap.WEIGHTED[name](outputs, targets)(counts)[0]
    assert found == pytest.approx(metrics.compute(name, outputs[drawn], targets[drawn]), abs=2e-3 if name == "auc" else 1e-9)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_interval_of_auc_is_that_of_exact_resampling(num_classes: int) -> None:
    outputs, targets = _classified(num_classes)
    found = bootstrap.estimates(("auc",), outputs, targets, resamples=1000)["auc"]
    rng = np.random.default_rng(7)
    drawn = [rng.integers(0, ROWS, ROWS) for _ in range(1000)]
    low, high = np.quantile([metrics.auc(outputs[rows], targets[rows]) for rows in drawn], [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    """Accuracy 0.8 on 400 rows: ± 1.96 · sqrt(0.8 · 0.2 / 400)."""
    targets = np.zeros(400, dtype=int)
    outputs = np.tile([0.9, 0.1], (400, 1))
    outputs[:80] = [0.1, 0.9]
    found = bootstrap.estimates(("accuracy",), outputs, targets, resamples=4000)["accuracy"]
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.8 - 0.0392, 0.8 + 0.0392), abs=0.004)


def test_the_same_seed_gives_the_same_interval_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs, targets = _classified()
    names = metrics.names("classification")
    whole = bootstrap.estimates(names, outputs, targets, resamples=200, seed=3)
    monkeypatch.setattr(bootstrap, "CHUNK_ENTRIES", ROWS * 7)
    chunked = bootstrap.estimates(names, outputs, targets, resamples=200, seed=3)
    assert {n: (e.low, e.high) for n, e in chunked.items()} == {n: pytest.approx((e.low, e.high)) for n, e in whole.items()}
    assert bootstrap.estimates(names, outputs, targets, resamples=200, seed=4) != whole


def test_metrics_undefined_on_these_rows_are_left_out() -> None:
    outputs = np.array([[0.4, 0.6], [0.7, 0.3]], dtype=np.float32)
    assert "auc" not in bootstrap.estimates(("accuracy", "auc"), outputs, np.array([1, 1]), resamples=10)


def test_a_paired_difference_is_narrower_than_the_models_own_intervals() -> None:
    """Two models that err on the same rows but for a few: what they share cancels."""
    outputs, targets = _classified(2)
    others = outputs.copy()
    wrong = np.flatnonzero(outputs.argmax(axis=1) != targets)[:6]
    others[wrong] = others[wrong][:, ::-1]
    found = bootstrap.paired_difference("accuracy", others, outputs, targets)
    alone = bootstrap.estimates(("accuracy",), outputs, targets)["accuracy"]
    assert found.value == pytest.approx(6 / ROWS)
    assert found.low > 0
    assert found.high - found.low < 0.6 * (alone.high - alone.low)
    same = bootstrap.paired_difference("accuracy", outputs, outputs, targets)
    assert (same.value, same.low, same.high) == (0, 0, 0)
