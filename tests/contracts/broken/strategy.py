"""Strategies that look right and are not: each must fail the family's contract."""

from __future__ import annotations

import random

from optuna.samplers import BaseSampler, RandomSampler


class SameSeedStrategy:
    """Ignores the seed it is given, so a resumed study repeats its first suggestions."""

    learns = False

    def sampler(self, seed: int) -> BaseSampler:
        return RandomSampler(seed=0)


class DeafStrategy:
    """Says that it learns and ignores the study's history."""

    learns = True

    def sampler(self, seed: int) -> BaseSampler:
        return RandomSampler(seed=seed)


class LiveGeneratorStrategy:
    """Takes randomness from a generator of its own, so the same question gets another answer."""

    learns = False

    def __init__(self) -> None:
        self.generator = random.Random()

    def sampler(self, seed: int) -> BaseSampler:
        return RandomSampler(seed=self.generator.randrange(2**32))
