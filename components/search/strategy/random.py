"""Random search: every candidate is drawn on its own, uniformly (in the logarithm where a parameter says so).

Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13, 2012. The baseline that any other
strategy has to beat at the same budget.
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from components.search.problem import Problem


class RandomStrategy:
    """Learns nothing from finished trials, so all of them can run at once."""

    learns = False
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return RandomSampler(seed=seed)
