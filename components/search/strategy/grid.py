"""Grid search: every combination of values once, in an order that the study's seed shuffles.

Numbers are tried at `levels` values, evenly spread from the lower end of the range to the upper one (in the logarithm
where a parameter says so). The order is a random one, so that a grid that is stopped early has covered all parameters;
no list of the grid is kept, so it may be of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler

from components.models.interface import Suggest
from components.models.points import Point, Points, at, ranged
from components.search.problem import PointSampler, Problem, Told, keys_of
from components.settings import whole

TRIES = 200  # draws that only met what was tried already, before the grid is walked through in order


class Grid:
    """Learns nothing from finished trials. Raises `UsageError` for less than one level."""

    learns = False
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, levels: int = 5) -> None:
        self.levels = whole("strategy.levels", levels, 1)

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return GridSampler(seed, problem, self.levels)


class GridSampler(PointSampler):
    """Proposes a point of the grid that no trial has had; any point of it once all had been tried."""

    def __init__(self, seed: int, problem: Problem | None, levels: int) -> None:
        super().__init__(seed, problem)
        self._levels = levels

    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        grid = Points(lambda suggest: problem.points.program(OnLevels(suggest, self._levels)))
        seen = keys_of(problem, told)
        for _ in range(TRIES):
            point = problem.points.draw(rng, grid.draw(rng).params)
            if problem.key(point) not in seen:
                return point
        rest = (problem.points.draw(rng, node.params) for node in grid.all())
        return next((node for node in rest if problem.key(node) not in seen), point)


class OnLevels:
    """A `Suggest` that asks another one for one of a few values wherever a number is asked for."""

    def __init__(self, suggest: Suggest, levels: int) -> None:
        self._suggest, self._levels = suggest, levels

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._suggest.suggest_categorical(name, choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        found: int = self._one_of(name, IntDistribution(low, high, log=log, step=step))
        return found

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        found: float = self._one_of(name, ranged(low, high, log, step))
        return found

    def _one_of(self, name: str, distribution: BaseDistribution) -> Any:
        return self._suggest.suggest_categorical(name, levels_of(distribution, self._levels))


def levels_of(distribution: BaseDistribution, levels: int) -> list[Any]:
    """`levels` different values from one end of a range to the other, or as many as there are; its middle if one is asked for.

    >>> levels_of(IntDistribution(1, 9), 3)
    [1, 5, 9]
    """
    shares = [i / (levels - 1) for i in range(levels)] if levels > 1 else [0.5]
    return list(dict.fromkeys(at(distribution, share) for share in shares))
