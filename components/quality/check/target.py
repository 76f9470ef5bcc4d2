"""Does the quantity to predict vary, and is it free of values far from all others?"""

from __future__ import annotations

from components.artifacts import CheckResult, DatasetVersion
from components.data.arrays import load_target
from components.quality.interface import ANY, Arrays


class Target:
    """Fails for a constant target; warns when the largest lies more than `warn` interquartile ranges from the median."""

    name = "target"
    modalities = ANY
    tasks = ("regression",)

    def __init__(self, warn: float = 30.0) -> None:
        self.warn = warn

    def check(self, dataset: DatasetVersion) -> CheckResult:
        import numpy as np

        values = np.asarray(load_target(dataset, "train"), dtype=np.float64)
        low, middle, high = (float(v) for v in np.quantile(values, [0.25, 0.5, 0.75]))
        figures = {"min": float(values.min()), "median": middle, "max": float(values.max())}
        span = f"{figures['min']:g} to {figures['max']:g}, median {middle:g}"
        if figures["min"] == figures["max"]:
            return self._result("fail", f"target {dataset.target!r} is always {middle:g}: there is nothing to predict", figures)
        spread = (high - low) or float(values.std())
        farthest = float(np.abs(values - middle).max() / spread)
        figures["farthest"] = farthest
        if farthest > self.warn:
            reason = f"{span}: the farthest value lies {farthest:.0f} interquartile ranges from the median; check it for a mistake"
            return self._result("warn", reason, figures)
        return self._result("pass", span, figures)

    def _result(self, status: str, reason: str, figures: dict[str, float]) -> CheckResult:
        return CheckResult(name=self.name, status=status, reason=reason, figures=figures)

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays:
        return {name: array * 0 if name.endswith("/target") else array for name, array in arrays.items()}
