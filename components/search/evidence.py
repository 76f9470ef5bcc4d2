"""What the trials of a study say about each thing that a strategy models: an objective, or a constraint.

Trials that a scheduler let come only part of the way count at the fidelities they reached, those that failed as the
worst there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from optuna.trial import TrialState

from components.search.encoding import Array, Column
from components.search.problem import Told

FIDELITIES = 6  # at most so many are told apart
APART = 2.0  # at least so many times the one before
WORST = 1.0  # a value worse than the median by more than so many times what the best one is better by counts as that


@dataclass(frozen=True)
class Evidence:
    """Trials with the fidelity (its place among `fidelities`, the last is a full evaluation) and value of each; lower is better.

    `threshold` is what a constraint may be at most (None for an objective).
    """

    name: str
    told: list[Told]
    places: list[int]
    values: list[float]
    fidelities: tuple[int, ...] = ()
    threshold: float | None = None

    def __len__(self) -> int:
        return len(self.told)

    def add(self, row: Told, place: int, value: float) -> None:
        self.told.append(row)
        self.places.append(place)
        self.values.append(value)

    def first(self, count: int) -> Evidence:
        """That of the first `count` rows."""
        return Evidence(self.name, self.told[:count], self.places[:count], self.values[:count], self.fidelities, self.threshold)

    @property
    def column(self) -> Column | None:
        """The fidelity as something that a model can learn the effect of; None if there is but one."""
        if len(self.fidelities) < 2:
            return None
        logs = np.log([max(1, step) for step in self.fidelities])
        return Column(len(logs), (logs - logs[0]) / (logs[-1] - logs[0]), is_choice=False)

    def standardised(self) -> tuple[Array, float]:
        """Values with mean 0 and deviation 1, and the threshold on their scale (infinite for an objective)."""
        raw = np.array(self.values, dtype=float)
        finite = raw[np.isfinite(raw)]
        if not len(finite):
            return np.zeros(len(raw)), math.inf
        if self.threshold is None:
            gaps = np.minimum(raw, finite.max()) - finite.min()
            scaled = np.log1p(gaps / (WORST * float(np.median(gaps)) or 1.0))
        else:  # many times too large is told from just too large, but not by as much
            unit = float(np.median(np.abs(finite - self.threshold))) or 1.0
            scaled = np.arcsinh((np.minimum(raw, finite.max()) - self.threshold) / unit)
        deviation = float(scaled.std()) or 1.0
        return (scaled - scaled.mean()) / deviation, math.inf if self.threshold is None else -float(scaled.mean()) / deviation


def objectives_of(told: Sequence[Told]) -> list[Evidence]:
    """One for each objective; the first with what was seen of it on the way. Empty while nothing is known."""
    complete = next((row for row in told if row.values is not None), None)
    if complete is None or complete.values is None:
        return [_objective(told, 0)] if any(row.is_assessed for row in told) else []
    return [_objective(told, place) for place in range(len(complete.values))]


def constraints_of(told: Sequence[Told]) -> list[Evidence]:
    """One for each constraint that complete trials were held to: its values, at most 0 if it is kept."""
    found: dict[str, Evidence] = {}
    for row in told:
        if row.constraints and row.values is not None:
            for name, value in row.constraints.items():
                evidence = found.setdefault(name, Evidence(f"constraint {name}", [], [], [], threshold=0.0))
                evidence.add(row, 0, value)
    return list(found.values())


def is_running(row: Told) -> bool:
    """Whether nothing is known yet of a trial that will have a value."""
    return row.state in (TrialState.RUNNING, TrialState.WAITING) and not row.steps


def _objective(told: Sequence[Told], place: int) -> Evidence:
    fidelities = _told_apart({step for row in told if row.steps for step in row.steps}) if place == 0 else ()
    last = len(fidelities) - 1 if fidelities else 0
    found = Evidence(f"objective {place}", [], [], [], fidelities)
    if not fidelities:
        known = [row for row in told if row.values is not None or row.state is TrialState.FAIL]
        values = [math.inf if row.values is None else row.values[place] for row in known]
        return replace(found, told=known, places=[0] * len(known), values=values)
    for row in told:
        for at, value in _values(row, place, fidelities, last):
            found.add(row, at, value)
    return found


def _values(row: Told, place: int, fidelities: tuple[int, ...], last: int) -> Iterable[tuple[int, float]]:
    if row.state is TrialState.FAIL:
        yield last, math.inf
        return
    for at, step in enumerate(fidelities):
        if step in row.steps and not (row.values and at == last):
            yield at, row.steps[step]
    if row.values is not None:
        yield last, row.values[place]


def _told_apart(steps: Iterable[int]) -> tuple[int, ...]:
    """Fidelities from the largest down, each at most half of the one above, ascending."""
    found: list[int] = []
    for step in sorted(set(steps), reverse=True):
        if not found or (step * APART <= found[-1] and len(found) < FIDELITIES):
            found.append(step)
    return tuple(reversed(found))
