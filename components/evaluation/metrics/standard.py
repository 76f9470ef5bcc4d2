"""The standard set: every metric of the task with a bootstrap interval, and the pictures behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import metrics
from components.artifacts import JSON, Estimate
from components.errors import UsageError
from components.evaluation import bootstrap, diagnosis


class StandardMetrics:
    """A set of metrics: any object with `objective`, `estimates` and `figures`.

    `objective` is the metric that decides (None: accuracy, or rmse); `bootstrap` the number of resamples, `confidence` the
    share of them inside an interval, `bins` those of the reliability diagram and of the residuals' histogram.
    """

    def __init__(self, objective: str | None = None, bootstrap: int = 1000, confidence: float = 0.95, bins: int = 10) -> None:
        if bootstrap < 1 or not 0 < confidence < 1 or bins < 1:
            raise UsageError(f"metrics needs bootstrap >= 1, 0 < confidence < 1 and bins >= 1, got {bootstrap}, {confidence} and {bins}")
        self.objective, self.resamples, self.confidence, self.bins = objective, bootstrap, confidence, bins

    def estimates(self, outputs: NDArray[Any], targets: NDArray[Any], task: str, seed: int = 0) -> dict[str, Estimate]:
        """Every metric of the task that is defined on these rows, with its interval."""
        names = metrics.names(task)
        return bootstrap.estimates(names, outputs, targets, resamples=self.resamples, confidence=self.confidence, seed=seed)

    def figures(self, outputs: NDArray[Any], targets: NDArray[Any], task: str) -> JSON:
        """Confusion matrix, calibration and figures per class; or quantiles and histogram of the residuals."""
        if task == "classification":
            return {
                "confusion": metrics.confusion(outputs, targets).tolist(),
                "calibration": diagnosis.calibration(outputs, targets, self.bins),
                "per_class": diagnosis.per_class(outputs, targets),
            }
        return {"residuals": diagnosis.residual_summary(np.asarray(outputs), np.asarray(targets), self.bins)}
