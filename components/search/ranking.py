"""Which trial is better: feasible before infeasible, then by the objective (several: by dominance), then by validation
log-loss, then by fewer parameters, then by who came first."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence

from components import metrics
from components.artifacts import Trial

Values = tuple[float, ...]


def best_of(trials: Iterable[Trial], objective: str, direction: str) -> Trial | None:
    """The best complete trial; None if none is complete. A trial without a finite objective is never best."""
    return next(iter(in_order(trials, objective, direction)), None)


def in_order(trials: Iterable[Trial], objective: str, direction: str) -> list[Trial]:
    """The complete trials with a finite objective, the best first."""
    fit = [t for t in trials if t.state == "complete" and math.isfinite(t.values.get(objective, math.nan))]
    sign = -1.0 if direction == "maximize" else 1.0
    return sorted(fit, key=lambda t: (violation(t), sign * t.values[objective], _log_loss(t), t.num_parameters, t.number))


def violation(trial: Trial) -> float:
    """By how much a trial misses its constraints, as shares of their limits, summed: a millisecond is not a parameter. 0 if
    it is feasible."""
    return sum(max(0.0, share) for share in shares_missed(trial).values())


def shares_missed(trial: Trial) -> dict[str, float]:
    """By how much each constraint is missed, as a share of its limit; at most 0 where it is kept."""
    return {name: missed / _limit_of(name, missed, trial) for name, missed in trial.constraints.items()}


def _limit_of(name: str, missed: float, trial: Trial) -> float:
    """The constraint's limit: below the value where it bounds from above, else above it; 1 if the value was not kept."""
    value = trial.values.get(name, math.nan)
    limit = value + missed if name in metrics.METRICS and metrics.direction(name) == "maximize" else value - missed
    return limit if math.isfinite(limit) and limit > 0 else 1.0


def front_of(trials: Iterable[Trial], objectives: Sequence[str], directions: Sequence[str]) -> list[Trial]:
    """The feasible complete trials that no other one beats in every objective, in order of their numbers."""
    fit = [t for t in trials if t.state == "complete" and not violation(t)]
    fit = [t for t in fit if all(math.isfinite(t.values.get(o, math.nan)) for o in objectives)]
    rows = [values_of(t, objectives, directions) for t in fit]
    return [t for t, row in zip(fit, rows) if not any(dominates(other, row) for other in rows)]


def values_of(trial: Trial, objectives: Sequence[str], directions: Sequence[str]) -> Values:
    """A trial's objectives, lower is better."""
    return tuple(-trial.values[o] if d == "maximize" else trial.values[o] for o, d in zip(objectives, directions))


def dominates(one: Values, other: Values) -> bool:
    """Whether `one` is nowhere worse and somewhere better; lower is better.

    >>> dominates((1.0, 2.0), (1.0, 3.0)), dominates((1.0, 3.0), (2.0, 2.0))
    (True, False)
    """
    return all(a <= b for a, b in zip(one, other)) and any(a < b for a, b in zip(one, other))


def costs(values: Sequence[Values], violations: Sequence[float]) -> list[float]:
    """One number for each row of objectives (lower is better), to sort by: lower is better.

    A single objective is its own cost; several become the rank of their front, the crowded ones of a front last (Deb
    et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002). Infeasible rows follow all feasible
    ones, by their violation.
    """
    feasible = [i for i, v in enumerate(violations) if v <= 0]
    cost = [math.inf] * len(values)
    if not values:
        return cost
    single = len(values[0]) == 1
    ranks = [values[i][0] for i in feasible] if single else _by_dominance([values[i] for i in feasible])
    for i, rank in zip(feasible, ranks):
        cost[i] = rank
    worst = max((c for c in ranks if math.isfinite(c)), default=0.0)
    for i, missed in enumerate(violations):
        if missed > 0:
            cost[i] = worst + 1.0 + missed
    return cost


def _by_dominance(rows: Sequence[Values]) -> list[float]:
    ranks = [0.0] * len(rows)
    for level, front in enumerate(_fronts(rows)):
        for i, crowding in zip(front, _crowding([rows[i] for i in front])):
            ranks[i] = level + 0.5 / (1.0 + crowding)
    return ranks


def _fronts(rows: Sequence[Values]) -> list[list[int]]:
    """The places of the rows, front by front (Zhang et al., "An Efficient Approach to Nondominated Sorting", 2015)."""
    fronts: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: rows[i]):  # so whoever dominates a row comes before it
        level = bisect.bisect_left(fronts, True, key=lambda front: not any(dominates(rows[j], rows[i]) for j in reversed(front)))
        if level == len(fronts):
            fronts.append([])
        fronts[level].append(i)
    return [sorted(front) for front in fronts]


def _crowding(front: Sequence[Values]) -> list[float]:
    """How far each row's neighbours on its front are apart, summed over the objectives; infinite at the ends."""
    distance = [0.0] * len(front)
    for axis in range(len(front[0])):
        order = sorted(range(len(front)), key=lambda i: front[i][axis])
        spread = front[order[-1]][axis] - front[order[0]][axis]
        distance[order[0]] = distance[order[-1]] = math.inf
        for before, at, after in zip(order, order[1:], order[2:]):
            distance[at] += (front[after][axis] - front[before][axis]) / spread if 0 < spread < math.inf else 0.0
    return distance


def _log_loss(trial: Trial) -> float:
    value = trial.values.get("log_loss", math.inf)
    return value if math.isfinite(value) else math.inf


def without_nan(trial: Trial, *objectives: str) -> Trial:
    """The trial itself, or a failed one where it claims to be complete without finite objectives."""
    if trial.state != "complete":
        return trial
    for objective in objectives:
        if objective not in trial.values:
            return trial.replace(state="failed", cause="bug", reason=f"the evaluator returned no {objective}")
        value = trial.values[objective]
        if not math.isfinite(value):
            return trial.replace(state="failed", cause="nan", reason=f"validation {objective} is {value}", values={})
    return trial


def chosen_of(front: Sequence[Trial], objectives: Sequence[str], directions: Sequence[str], tolerance: float = 0.005) -> Trial:
    """The trial of a front to go on with: among those within `tolerance` of the best in the first objective (a share of
    it for errors), the one that is best in the second, then in the third."""
    rows = {t.number: values_of(t, objectives, directions) for t in front}
    best = min(row[0] for row in rows.values())
    margin = tolerance if directions[0] == "maximize" else tolerance * abs(best)
    near = [t for t in front if rows[t.number][0] <= best + margin]
    return min(near, key=lambda t: (rows[t.number][1:], rows[t.number][0], t.number))


def distance(one: object, other: object) -> float:
    """How many entries of two architectures (nested JSON) differ; what only one of them has counts in full.

    >>> distance({"depth": 2, "widths": [8, 16]}, {"depth": 3, "widths": [8]})
    2.0
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return sum(distance(one.get(key), other.get(key)) for key in {*one, *other})
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        extra = abs(len(one) - len(other))
        return extra + sum(distance(a, b) for a, b in zip(one, other))
    return float(one != other)
