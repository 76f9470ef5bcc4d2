"""The smallest deployable within the tolerance of the best goes up, then the fastest."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts import Deployable, Estimate, ExportedModel, StoredFile
from components.errors import DataError
from components.evaluation.selection import choose


def _deployable(name: str, value: float, size_kb: float, latency_ms: float = 1.0, metric: str = "accuracy") -> Deployable:
    model = ExportedModel(
        name=name, role="teacher", precision="fp32", model="", dataset="", file=StoredFile(path=Path(name), sha256=name, size=1), opset=20,
        inputs=(), outputs=(), operators={},
    )  # fmt: skip
    return Deployable(model=model, metrics={metric: Estimate(value=value, low=value, high=value)}, size_kb=size_kb, latency_ms=latency_ms)


@pytest.mark.parametrize(
    ("deployables", "chosen"),
    [
        (((0.990, 40), (0.985, 10), (0.984, 5)), 1),  # 0.5 points lower is still near, 0.6 is not
        (((0.990, 40), (0.970, 10)), 0),
        (((0.990, 40), (0.995, 60)), 0),
        (((0.990, 10), (0.990, 40)), 0),
    ],
)
def test_the_smallest_within_half_a_point_of_the_best(deployables: tuple[tuple[float, float], ...], chosen: int) -> None:
    made = tuple(_deployable(str(i), value, size) for i, (value, size) in enumerate(deployables))
    found, words = choose(made, "accuracy", 0.005)
    assert found.model.name == str(chosen)
    assert words.startswith(f"{chosen}: ")


def test_equal_sizes_are_parted_by_latency() -> None:
    slow, fast = _deployable("slow", 0.99, 10, 2.0), _deployable("fast", 0.99, 10, 1.0)
    assert choose((slow, fast), "accuracy", 0.005)[0] is fast


def test_errors_are_near_by_a_share_of_the_best() -> None:
    """At an rmse of 10,000 a tolerance of 0.005 forgives 50."""
    rows = (("best", 10000, 40), ("near", 10049, 20), ("far", 10051, 5))
    best, near, far = (_deployable(name, value, size_kb, metric="rmse") for name, value, size_kb in rows)
    assert choose((best, near, far), "rmse", 0.005)[0] is near


def test_a_deployable_without_the_objective_is_not_chosen() -> None:
    judged, not_judged = _deployable("judged", 0.8, 40), _deployable("other", 0.9, 10, metric="log_loss")
    assert choose((judged, not_judged), "accuracy", 0.005)[0] is judged
    with pytest.raises(DataError, match="accuracy is undefined on the validation split"):
        choose((not_judged,), "accuracy", 0.005)


def test_limits_come_before_the_tolerance() -> None:
    """Of what keeps them the smallest near the best of these; where nothing does, the closest, and it is said."""
    large, small, tiny = _deployable("large", 0.99, 100, 3.0), _deployable("small", 0.95, 40, 1.0), _deployable("tiny", 0.80, 10, 0.5)
    assert choose((large, small, tiny), "accuracy", 0.005, {"size_kb": 50, "latency_ms": None})[0] is small
    assert choose((large, small, tiny), "accuracy", 0.005, {"latency_ms": 0.7})[0] is tiny
    found, words = choose((large, small), "accuracy", 0.005, {"size_kb": 30, "macs": 5})
    assert found is small
    assert words.startswith("small: no deployable keeps constraint.size_kb=30, constraint.macs=5, this one comes closest (40.0 KiB")
