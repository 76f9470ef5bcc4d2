"""NSGA-II: a genetic search for the whole front of several objectives.

Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002: non-dominated sorting, crowding
distance, feasible before infeasible. One child at a time instead of a generation (Durillo et al., "On the Effect of the
Steady-State Selection Scheme in Multi-Objective Genetic Algorithms", 2009), so that parallel trials need not wait for
each other and the state is the set of trials alone. Optuna's own sampler draws conditional parameters independently of
the parents; here a child is bred along the space's program.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from optuna.samplers import BaseSampler

from components.models.points import Point
from components.search.problem import PointSampler, Problem, Told, assessed, unseen
from components.settings import number, whole

PATIENCE = 10  # children that were tried before, until the next ones are changed in one more place


class NSGA2:
    """Random until `population` trials have a value; then children of the best `population` of all trials.

    Parents win a tournament of two. With probability `crossover` a child takes each value from one of two; each of its n
    values is then changed with probability 1/n. Raises `UsageError` for numbers out of their ranges.
    """

    learns = True
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, population: int = 10, crossover: float = 0.5) -> None:
        self.population = whole("strategy.population", population, 2)
        self.crossover = number("strategy.crossover", crossover, 0, 1)

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return NSGA2Sampler(seed, problem, self)


class NSGA2Sampler(PointSampler):
    def __init__(self, seed: int, problem: Problem | None, settings: NSGA2) -> None:
        super().__init__(seed, problem)
        self._settings = settings

    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        elite = assessed(told)[: self._settings.population]
        if len(elite) < self._settings.population:
            return unseen(problem, told, lambda: problem.points.draw(rng))
        attempts = iter(range(10**6))
        return unseen(problem, told, lambda: self._child(problem, elite, rng, next(attempts) // PATIENCE))

    def _child(self, problem: Problem, elite: Sequence[Told], rng: Random, more: int) -> Point:
        point = _winner(elite, rng).point
        if rng.random() < self._settings.crossover:
            point = problem.points.cross(point, _winner(elite, rng).point, rng)
        count = len(point.params)
        return problem.points.mutate(point, rng, more + sum(rng.random() < 1 / count for _ in range(count)))


def _winner(elite: Sequence[Told], rng: Random) -> Told:
    return elite[min(rng.sample(range(len(elite)), 2))]
