"""Successive halving without waiting: who of the resting trials is good enough to be carried on.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (ASHA), MLSys 2020: of the trials that have ended a
rung the best 1/reduction go on, as soon as they are among them. The best one always does, however few there are, so
that a study of any length ends with a fully trained trial.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from components.errors import UsageError
from components.search.interface import Standing


def ladder(full: int, reduction: int, least: int) -> tuple[int, ...]:
    """Epochs of the rungs: `full` and its parts by powers of `reduction`, none below `least`, ascending.

    >>> ladder(52, 3, 1), ladder(52, 3, 5), ladder(2, 3, 5)
    ((2, 6, 17, 52), (6, 17, 52), (2,))
    """
    found = [full]
    power = reduction
    while full / power >= least:
        found.append(round(full / power))
        power *= reduction
    return tuple(sorted(set(found)))


def promoted(standings: Iterable[Standing], num_rungs: int, reduction: int) -> int | None:
    """The number of the best resting trial of the highest rung that has one to carry on; None if there is none.

    Failed trials do not compete. A trial that has left a rung, or is running towards the next, keeps its place there.
    """
    alive = [s for s in standings if not s.is_over]
    for rung in reversed(range(num_rungs - 1)):
        ended = sorted((s.costs[rung], s.number, s) for s in alive if math.isfinite(s.costs.get(rung, math.inf)))
        for _, number, standing in ended[: max(1, len(ended) // reduction)]:
            if not standing.is_running and max(standing.costs) == rung:
                return number
    return None


class Halving:
    """What schedulers by successive halving have in common: `reduction` and the ladder of rungs, none below `least` epochs.

    Raises `UsageError` for a reduction below 2 or fewer than 1 epoch.
    """

    needs = frozenset({"epochs"})

    def __init__(self, *, reduction: int = 3, least: int = 1) -> None:
        for name, value, smallest in (("reduction", reduction, 2), ("least", least, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
                raise UsageError(
                    f"scheduler.{name} must be a whole number of at least {smallest}, got {value!r}; set scheduler.{name}={smallest}"
                )
        self.reduction, self.least = reduction, least

    def rungs(self, full: int) -> tuple[int, ...]:
        return ladder(full, self.reduction, self.least)


def bracket_sizes(num_rungs: int, reduction: int) -> Sequence[int]:
    """How many trials start at each rung in one round of Hyperband, so that all brackets cost about the same.

    Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 2018, algorithm 1.

    >>> bracket_sizes(4, 3)
    [27, 12, 6, 4]
    """
    return [math.ceil(num_rungs / (s + 1) * reduction**s) for s in reversed(range(num_rungs))]
