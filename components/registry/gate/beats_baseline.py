"""The gate that asks for more than no model at all: the majority class, or the mean."""

from __future__ import annotations

from components import metrics
from components.artifacts import GateResult
from components.registry.contender import Contender


class BeatsBaseline:
    """Passes a challenger whose whole 95 % interval on the test split is better than the baseline plus a margin.

    `margin` is in the objective's own unit. The baseline is the report's: what the majority class or the mean of the
    training split scores on the same rows.
    """

    def __init__(self, margin: float = 0.0) -> None:
        self.margin = margin

    def judge(self, challenger: Contender, champion: Contender | None) -> GateResult:
        """The champion plays no part."""
        report = challenger.report
        name = report.objective
        rule = f"the 95 % interval of {name} on the test split must be better than without a model"
        estimate, baseline = report.test.get(name), report.baseline.get(name)
        if estimate is None or baseline is None:
            missing = "figure" if estimate is None else "baseline"
            return GateResult(name="beats_baseline", passed=False, rule=rule, words=f"the report has no {missing} for {name}")
        maximize = metrics.direction(name) == "maximize"
        bound = estimate.low if maximize else estimate.high
        passed = bound > baseline + self.margin if maximize else bound < baseline - self.margin
        verdict = "better than" if passed else "not clearly better than"
        words = f"{name} {estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}] is {verdict} {baseline:.4f} without a model"
        figures = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "baseline": baseline, "margin": self.margin}
        return GateResult(name="beats_baseline", passed=bool(passed), rule=rule, words=words, figures=figures)
