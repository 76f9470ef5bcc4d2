"""Regularised evolution: the youngest trials are the population, the fittest of a few of them is the next one's parent.

Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019: the population ages, so a
candidate that was lucky once dies out unless its children do well too. With several objectives the fitter one is of the
better front, or of the less crowded part of the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from random import Random

from optuna.samplers import BaseSampler

from components.models.points import Point
from components.search.problem import PointSampler, Problem, Told, assessed, unseen
from components.settings import number, whole

PATIENCE = 10  # children that were tried before, until the next ones are changed in one more place


class Evolution:
    """Random until `population` trials have a value, then children of the fittest of `sample` among the youngest.

    A child is its parent changed in one place; with probability `crossover` it first takes each value from one of two
    parents. Raises `UsageError` for numbers out of their ranges.
    """

    learns = True
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, population: int = 10, sample: int = 3, crossover: float = 0.2) -> None:
        self.population = whole("strategy.population", population, 1)
        self.sample = whole("strategy.sample", sample, 1, population, limit="strategy.population")
        self.crossover = number("strategy.crossover", crossover, 0, 1)

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return EvolutionSampler(seed, problem, self)


class EvolutionSampler(PointSampler):
    def __init__(self, seed: int, problem: Problem | None, settings: Evolution) -> None:
        super().__init__(seed, problem)
        self._settings = settings

    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        living = self._living(told)
        if len(living) < self._settings.population:
            return unseen(problem, told, lambda: problem.points.draw(rng))
        attempts = iter(range(10**6))
        return unseen(problem, told, lambda: self._child(problem, living, rng, 1 + next(attempts) // PATIENCE))

    def _living(self, told: Sequence[Told]) -> list[Told]:
        """The youngest trials with a value, fittest first."""
        youngest = islice((t for t in reversed(told) if t.is_assessed), self._settings.population)
        return assessed(list(youngest))

    def _child(self, problem: Problem, living: Sequence[Told], rng: Random, changes: int) -> Point:
        point = self._parent(living, rng).point
        if rng.random() < self._settings.crossover:
            point = problem.points.cross(point, self._parent(living, rng).point, rng)
        return problem.points.mutate(point, rng, changes)

    def _parent(self, living: Sequence[Told], rng: Random) -> Told:
        return living[min(rng.sample(range(len(living)), min(self._settings.sample, len(living))))]
