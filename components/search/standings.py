"""How far the trials of a study have come, as a scheduler is told: one cost for each rung that a trial has ended.

With several objectives a cost is a place by dominance among the trials that have ended the same rung: values that were
reached with different numbers of epochs are never compared. (Optuna's pruners refuse several objectives.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from components.search.interface import Standing
from components.search.ranking import Values, costs


@dataclass(frozen=True, slots=True)
class Mark:
    """What a trial had reached at the end of a rung: its objectives, lower is better, and by how much it misses the
    constraints (0: it keeps them)."""

    values: Values
    violation: float = 0.0


def standings_of(marks: Mapping[int, Mapping[int, Mark]], running: Collection[int] = (), over: Collection[int] = ()) -> list[Standing]:
    """The standings of the trials in `marks` (by number, then by the rung's place) and in `running`, in order of their
    numbers. `over` names those that failed or were killed."""
    numbers = sorted({*marks, *running})
    ended = {rung for rungs in marks.values() for rung in rungs}
    found: dict[int, dict[int, float]] = {number: {} for number in numbers}
    for rung in sorted(ended):
        here = [number for number in numbers if rung in marks.get(number, {})]
        rows = [marks[number][rung] for number in here]
        for number, cost in zip(here, costs([row.values for row in rows], [row.violation for row in rows])):
            found[number][rung] = cost
    return [Standing(number=n, costs=found[n], is_running=n in running, is_over=n in over) for n in numbers]
