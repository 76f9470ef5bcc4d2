"""What every set of metrics must do, asked of each yaml in conf/metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from components import metrics
from components.build import allow, build

MEMBERS = sorted((Path(__file__).parents[2] / "conf" / "metrics").glob("*.yaml"))
allow("tests")


def _rows(task: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    if task == "regression":
        targets = rng.normal(3, 2, 150).astype(np.float32)
        return (targets + rng.normal(0, 1, 150)).astype(np.float32), targets
    targets = rng.integers(0, 3, 150)
    logits = rng.normal(size=(150, 3)) + 1.5 * np.eye(3)[targets]
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32), targets


def conforms(standard: Any) -> None:
    """Raises where a set breaks the family's promise, for both tasks."""
    for task in ("classification", "regression"):
        outputs, targets = _rows(task)
        found = standard.estimates(outputs, targets, task, seed=3)
        assert metrics.objective(standard.objective, task) in found
        for name in set(found) & set(metrics.METRICS):
            assert found[name].value == pytest.approx(metrics.compute(name, outputs, targets))
            assert found[name].low <= found[name].value <= found[name].high
        assert standard.estimates(outputs, targets, task, seed=3) == found
        json.dumps(standard.figures(outputs, targets, task), allow_nan=False)


def test_the_family_has_members() -> None:
    assert MEMBERS


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.stem)
def test_every_set_conforms(member: Path) -> None:
    conforms(build(yaml.safe_load(member.read_text())))


@pytest.mark.parametrize("name", ["ForgetsTheSeed", "LeavesOutTheObjective", "FlattersItself"])
def test_a_broken_set_is_found_out(name: str) -> None:
    with pytest.raises(AssertionError):
        conforms(build({"_target_": f"tests.contracts.broken.metrics.{name}"}))


def test_figures_that_are_not_json_are_found_out() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        conforms(build({"_target_": "tests.contracts.broken.metrics.ReturnsArrays"}))
