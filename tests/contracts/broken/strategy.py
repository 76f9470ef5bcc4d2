"""Strategies that look right and are not: each must fail the family's contract."""

from __future__ import annotations

import random
from collections.abc import Sequence
from random import Random

from optuna.samplers import BaseSampler, GPSampler, RandomSampler

from components.models.points import Point
from components.search.problem import PointSampler, Problem, Told


class SameSeedStrategy:
    """Ignores the seed it is given, so a resumed study repeats its first suggestions."""

    learns = False
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return RandomSampler(seed=0)


class DeafStrategy:
    """Says that it learns and ignores the study's history."""

    learns = True
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return RandomSampler(seed=seed)


class LiveGeneratorStrategy:
    """Takes randomness from a generator of its own, so the same question gets another answer."""

    learns = False
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.generator = random.Random()

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return RandomSampler(seed=self.generator.randrange(2**32))


class ForgetfulStrategy:
    """Counts in the memo what no trial tells, so a study goes on another way after a stop."""

    learns = False
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return _Forgetful(seed, problem)


class _Forgetful(PointSampler):
    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        problem.memo["asked"] = problem.memo.get("asked", 0) + 1
        return problem.points.draw(Random(f"{rng.random()}/{problem.memo['asked']}"))


class FallingBackStrategy:
    """Optuna's own Gaussian process, which models only the parameters that all trials have."""

    learns = True
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return GPSampler(seed=seed, n_startup_trials=5, warn_independent_sampling=False)


class GreedyStrategy:
    """Changes the trial with the best objective, whether it is feasible or not."""

    learns = True
    objectives = "one"
    needs: frozenset[str] = frozenset()

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return _Greedy(seed, problem)


class _Greedy(PointSampler):
    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        complete = [t for t in told if t.values is not None]
        return problem.points.mutate(min(complete, key=lambda t: t.values or ()).point, rng)
