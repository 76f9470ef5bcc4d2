"""Stacking gives weight to what is worth it, and is judged by rows that it was not fitted to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from components.fusion.method.stacking import Stacking, _linear, _logistic
from components.models.network import load_network
from components.training.learner import predict
from tests.components.fusion.pools import Case, case


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(tmp_path_factory.mktemp("image"), "image")


def beliefs(rows: int, classes: int, noise: float, targets: np.ndarray, seed: int) -> np.ndarray:
    """Log-probabilities of a model that sees the target through noise."""
    logits = np.eye(classes)[targets] * 3 + noise * np.random.default_rng(seed).normal(size=(rows, classes))
    return np.asarray(torch.from_numpy(logits).log_softmax(dim=1).numpy())


def test_what_knows_nothing_gets_no_weight() -> None:
    """Two models that know something share the weight, noise gets hardly any; the classes' offsets make up for a bias."""
    targets = np.random.default_rng(0).integers(0, 4, 400)
    told = [beliefs(400, 4, 1.0, targets, 1), beliefs(400, 4, 1.0, targets, 2), beliefs(400, 4, 1.0, np.roll(targets, 7), 3)]
    weights, _ = _logistic(told, targets, 1e-3)
    assert min(weights[:2]) > 0.3
    assert weights[2] < 0.05
    tilted = told[0] + np.array([2.0, 0.0, 0.0, 0.0])
    _, offsets = _logistic([tilted, told[1]], targets, 0.0)
    assert offsets[0] - offsets[1:].mean() > 0.5


def test_values_are_stacked_by_non_negative_least_squares() -> None:
    """Where no weight would be negative, it is the linear regression; where one would, it is left out."""
    random = np.random.default_rng(1)
    truth = random.normal(size=200)
    told = [truth + 0.3 * random.normal(size=200) + 1.0, 0.5 * truth + 0.3 * random.normal(size=200)]
    weights, offset = _linear(told, truth)
    usual = LinearRegression().fit(np.stack(told, axis=1), truth)
    assert weights == pytest.approx(usual.coef_, abs=1e-6)
    assert -offset[0] == pytest.approx(usual.intercept_, abs=1e-6)
    assert _linear([truth, -truth], truth)[0] == pytest.approx([1.0, 0.0], abs=1e-9)


def test_its_network_answers_as_the_stack_does_and_its_record_is_honest(image: Case, tmp_path: Path) -> None:
    """The record holds the metrics of rows that were held out, which are no better than those of rows it was fitted to."""
    pool = image.pool(tmp_path / "out")
    model = Stacking().fuse(pool)
    assert model.role == "stack"
    assert all(row["share"] > 0 for row in model.members)
    reached = pool.score(predict(load_network(model, image.dataset), image.dataset, pool.rows))
    assert reached["log_loss"] < model.metrics["log_loss"] < pool.best_metrics["log_loss"]


def test_answers_that_cannot_be_learned_are_not_stacked(image: Case, tmp_path: Path) -> None:
    """With shuffled validation targets a stack may fit them, and is not believed."""
    pool = image.pool(tmp_path / "out")
    order = torch.randperm(len(pool.rows.targets), generator=torch.Generator().manual_seed(0))
    pool.rows.targets = pool.rows.targets[order]
    assert Stacking(members=3).fuse(pool) == pool.best
