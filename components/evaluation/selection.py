"""Which deployable goes up: of those within the limits, the smallest, then the fastest, among those as good as the best on validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components import metrics
from components.artifacts import Deployable
from components.errors import DataError

RELATIVE = frozenset({"rmse", "mae", "log_loss"})  # in the data's own unit: a tolerance can only be a share of the best


# What a limit is held against; the others (macs) say nothing of a graph that is not known of its network.
LIMITED = {
    "size_kb": lambda d: d.size_kb,
    "latency_ms": lambda d: d.latency_ms,
    "num_parameters": lambda d: float(d.model.num_parameters),
}


def choose(
    deployables: tuple[Deployable, ...], objective: str, tolerance: float, limits: Mapping[str, Any] | None = None
) -> tuple[Deployable, str]:  # fmt: skip
    """The choice and its reason in words. Where none keeps the limits, the one that misses them by the least is chosen
    and the words say so. Raises `DataError` when no deployable has the objective."""
    judged = [d for d in deployables if objective in d.metrics]
    if not judged:
        raise DataError(f"{objective} is undefined on the validation split: give it rows of every class, or set another metrics.objective")
    missed = {d.model.name: _missed(d, limits or {}) for d in judged}
    if min(missed.values()) > 0:
        nearest = min(judged, key=lambda d: (missed[d.model.name], d.size_kb))
        asked = ", ".join(f"constraint.{name}={limit:g}" for name, limit in (limits or {}).items() if limit is not None)
        figures = f"{nearest.size_kb:.1f} KiB, {nearest.latency_ms:.3g} ms, {nearest.model.num_parameters} parameters"
        return nearest, f"{nearest.model.name}: no deployable keeps {asked}, this one comes closest ({figures})"
    judged = [d for d in judged if not missed[d.model.name]]
    sign = 1 if metrics.direction(objective) == "maximize" else -1
    best = max(judged, key=lambda d: sign * d.metrics[objective].value)
    value = best.metrics[objective].value
    allowed = tolerance * abs(value) if objective in RELATIVE else tolerance
    close = [d for d in judged if sign * (value - d.metrics[objective].value) <= allowed + 1e-12]
    chosen = min(close, key=lambda d: (d.size_kb, d.latency_ms, d.model.name))
    return chosen, _words(chosen, best, objective, allowed, len(close), len(judged))


def _missed(deployable: Deployable, limits: Mapping[str, Any]) -> float:
    """By which share the limits are missed, summed; 0 if all are kept."""
    kept = {name: float(limit) for name, limit in limits.items() if limit is not None and name in LIMITED}
    return sum(max(0.0, LIMITED[name](deployable) / limit - 1.0) for name, limit in kept.items())


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
