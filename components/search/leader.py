"""Who leads a search, as its events tell: each names the best trial of its own round, here all rounds are compared.

    leader = Leader()
    for event in journal: leader.hear(event, round_number)
    leader.place, leader.trial, leader.is_feasible
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components import metrics
from components.artifacts import Candidate, Trial
from components.search.ranking import best_of, violation

Place = tuple[int, int]  # the round, and the number of the trial in it


class Leader:
    """The best trial of all rounds so far; while none keeps the constraints, the one that comes closest."""

    def __init__(self) -> None:
        self.place: Place | None = None
        self.trial: Trial | None = None
        self.objective, self._direction = "", ""
        self._trials: dict[Place, Trial] = {}
        self._best: dict[int, int] = {}

    @property
    def is_feasible(self) -> bool:
        return self.trial is not None and not violation(self.trial)

    def hear(self, event: Mapping[str, Any], round_number: int) -> None:
        """Takes in one event of that round."""
        self._direction = str(event.get("direction") or self._direction)
        if event.get("number") is None:
            return
        if isinstance(event.get("trial"), Mapping):
            self._trials[round_number, int(event["number"])] = Trial.from_json(event["trial"])
        if event.get("best_number") is not None:
            self.objective = str(event.get("objective") or self.objective)
            self._best[round_number] = int(event["best_number"])
            place = round_number, self._best[round_number]
            self._trials.setdefault(place, self._unheard(place[1], event.get("best")))
            self._compare()

    def _compare(self) -> None:
        known = metrics.direction(self.objective) if self.objective in metrics.METRICS else "minimize"
        places = sorted(self._best.items())
        trials = (self._trials[place].replace(number=i) for i, place in enumerate(places))
        best = best_of(trials, self.objective, self._direction or known)
        if best is not None:
            self.place, self.trial = places[best.number], self._trials[places[best.number]]

    def _unheard(self, number: int, value: Any) -> Trial:
        """A best trial that ended before anybody listened is known by its value alone."""
        values = {self.objective: float(value)} if isinstance(value, int | float) else {}
        return Trial(number=number, candidate=Candidate(space="", architecture={}, hyperparameters={}), state="complete", values=values)
