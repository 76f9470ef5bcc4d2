"""Which deployable goes up: the smallest, then the fastest, among those as good as the best on validation."""

from __future__ import annotations

from components import metrics
from components.artifacts import Deployable
from components.errors import DataError

RELATIVE = frozenset({"rmse", "mae", "log_loss"})  # in the data's own unit: a tolerance can only be a share of the best


def choose(deployables: tuple[Deployable, ...], objective: str, tolerance: float) -> tuple[Deployable, str]:
    """The choice and its reason in words. Raises `DataError` when no deployable has the objective."""
    judged = [d for d in deployables if objective in d.metrics]
    if not judged:
        raise DataError(f"{objective} is undefined on the validation split: give it rows of every class, or set another metrics.objective")
    sign = 1 if metrics.direction(objective) == "maximize" else -1
    best = max(judged, key=lambda d: sign * d.metrics[objective].value)
    value = best.metrics[objective].value
    allowed = tolerance * abs(value) if objective in RELATIVE else tolerance
    close = [d for d in judged if sign * (value - d.metrics[objective].value) <= allowed + 1e-12]
    chosen = min(close, key=lambda d: (d.size_kb, d.latency_ms, d.model.name))
    return chosen, _words(chosen, best, objective, allowed, len(close), len(deployables))


def _words(chosen: Deployable, best: Deployable, objective: str, allowed: float, num_close: int, num_all: int) -> str:
    figure = f"{objective} {chosen.metrics[objective].value:.4f} on validation, {chosen.size_kb:.1f} KiB, {chosen.latency_ms:.3g} ms"
    if num_all == 1:
        return f"{chosen.model.name}: the only deployable ({figure})"
    if chosen is best and num_close == 1:
        return f"{chosen.model.name}: the best, no other within {allowed:.4g} of it ({figure})"
    return (
        f"{chosen.model.name}: the smallest of the {num_close} (of {num_all}) within {allowed:.4g} of the best, "
        f"{best.model.name} at {best.metrics[objective].value:.4f} ({figure})"
    )
