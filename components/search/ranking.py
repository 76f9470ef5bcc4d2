"""Which trial is better: by the objective, then by validation log-loss, then by fewer parameters, then by who came first."""

from __future__ import annotations

import math
from collections.abc import Iterable

from components.artifacts import Trial


def best_of(trials: Iterable[Trial], objective: str, direction: str) -> Trial | None:
    """The best complete trial; None if none is complete. A trial without a finite objective is never best."""
    fit = [t for t in trials if t.state == "complete" and math.isfinite(t.values.get(objective, math.nan))]
    sign = -1.0 if direction == "maximize" else 1.0
    return min(fit, key=lambda t: (sign * t.values[objective], _log_loss(t), t.num_parameters, t.number), default=None)


def _log_loss(trial: Trial) -> float:
    value = trial.values.get("log_loss", math.inf)
    return value if math.isfinite(value) else math.inf


def without_nan(trial: Trial, objective: str) -> Trial:
    """The trial itself, or a failed one where it claims to be complete without a finite objective."""
    if trial.state != "complete":
        return trial
    if objective not in trial.values:
        return trial.replace(state="failed", cause="bug", reason=f"the evaluator returned no {objective}")
    value = trial.values[objective]
    if math.isfinite(value):
        return trial
    return trial.replace(state="failed", cause="nan", reason=f"validation {objective} is {value}", values={})
