"""Tree-structured Parzen estimator: draws where good trials are dense and bad ones are not.

Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011; the multivariate form of Falkner et al.,
"BOHB", ICML 2018, on groups of parameters that occur together, so that conditional parameters are modelled too.
"""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler

from components.search.problem import Problem
from components.settings import whole


class TPEStrategy:
    """Random until `startup` trials are complete, then the best of `candidates` draws by expected improvement.

    Running trials count as bad ones (a constant liar), so parallel workers keep apart. Raises `UsageError` for a
    number below 1.
    """

    learns = True
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, startup: int = 6, candidates: int = 24) -> None:
        self.startup, self.candidates = whole("strategy.startup", startup, 1), whole("strategy.candidates", candidates, 1)

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # `group` has carried that mark since Optuna 2.8
            return TPESampler(
                seed=seed, multivariate=True, group=True, constant_liar=True,
                n_startup_trials=self.startup, n_ei_candidates=self.candidates,
            )  # fmt: skip
