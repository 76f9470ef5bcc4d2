"""Sets of metrics that break the promise of the family."""

from __future__ import annotations

from typing import Any

from components.artifacts import JSON, Estimate
from components.evaluation.metrics.standard import StandardMetrics


class ForgetsTheSeed(StandardMetrics):
    """Draws other resamples each time, so that a report is never the same twice."""

    calls = 0

    def estimates(self, outputs: Any, targets: Any, task: str, seed: int = 0) -> dict[str, Estimate]:
        type(self).calls += 1
        return super().estimates(outputs, targets, task, seed=self.calls)


class LeavesOutTheObjective(StandardMetrics):
    """Reports everything but what decides."""

    def estimates(self, outputs: Any, targets: Any, task: str, seed: int = 0) -> dict[str, Estimate]:
        found = super().estimates(outputs, targets, task, seed)
        return {name: estimate for name, estimate in found.items() if name not in ("accuracy", "rmse")}


class FlattersItself(StandardMetrics):
    """Judges the easier half of the rows."""

    def estimates(self, outputs: Any, targets: Any, task: str, seed: int = 0) -> dict[str, Estimate]:
        order = (outputs.max(axis=1) if task == "classification" else -abs(outputs - targets)).argsort()
        easy = order[len(order) // 2 :]
        return super().estimates(outputs[easy], targets[easy], task, seed)


class ReturnsArrays(StandardMetrics):
    """Figures that JSON cannot hold."""

    def figures(self, outputs: Any, targets: Any, task: str) -> JSON:
        return {"outputs": outputs}
