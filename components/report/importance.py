"""How much of the difference between trials each setting explains by itself, and how much chance alone would.

An analysis of variance of the trials' ranks: a choice explains what its groups' means differ by, a number what a
parabola over its rank explains. A search of a dozen trials explains anything by chance, so every figure stands beside
what the same results reach when they are dealt to the trials at random. Ranks and few degrees of freedom, because
searches are short: with 16 trials of a made-up objective the strongest of six settings passed the chance line in 36 of
40 searches, with PED-ANOVA (Watanabe, Bansal, Hutter, 2023) in 12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_TRIALS = 8
FEW = 5  # a setting with at most so many different values is a choice, not a number
DEALS = 200  # random deals of the results
CHANCE = 0.95  # of the deals stay below the figure that is told

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """The `share` of the variance of ranks that a setting explains by itself; `chance` is what 5 % of random deals exceed."""

    name: str
    share: float
    chance: float


def importances(settings: Sequence[Mapping[str, Any]], costs: Sequence[float], names: Sequence[str]) -> list[Importance]:
    """The settings `names`, the most important first; none if there are too few trials or all are equally good.

    `settings[i]` are trial i's by name (a conditional one may be missing), `costs[i]` is lower for better ones. A
    setting that only some trials have explains differences among these. A choice with a value of its own for most trials
    is left out: it would explain anything.
    """
    rank_N = ranks(costs)
    if len(costs) < LEAST_TRIALS or rank_N.std() == 0:
        return []
    deal = np.random.default_rng(0)
    dealt_NS = np.stack([rank_N, *(deal.permutation(rank_N) for _ in range(DEALS))], axis=1)
    found = []
    for name in names:
        if _tells_trials_apart([row.get(name) for row in settings]):
            continue
        shares = _explained([row.get(name) for row in settings], dealt_NS) / rank_N.var() / len(rank_N)
        found.append(Importance(name, float(shares[0]), float(np.quantile(shares[1:], CHANCE))))
    return sorted(found, key=lambda row: -row.share)


def _tells_trials_apart(values: Sequence[Any]) -> bool:
    kinds = {repr(value) for value in values if value is not None}
    return not _are_numbers(values) and len(kinds) > len(values) / 2


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values if value is not None)


def ranks(values: Sequence[float]) -> Floats:
    """Ranks from 1; equals share the mean of theirs."""
    _, group, size = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    found: Floats = (np.cumsum(size) - (size - 1) / 2)[group]
    return found


def is_crowded_low(values: Sequence[float]) -> bool:
    """Whether numbers spread over powers of ten: all positive, far apart, and most in the lowest fifth of their range."""
    low, high = min(values), max(values)
    return low > 0 and high / low > 30 and float(np.median(values)) < low + 0.2 * (high - low)


def _explained(values: Sequence[Any], results_NS: Floats) -> Floats:
    """Sums of squares that a setting explains of each column of results, over the trials that have it."""
    has = np.array([value is not None for value in values])
    if has.sum() < 3:
        return np.zeros(results_NS.shape[1])
    basis, _ = np.linalg.qr(_terms([value for value in values if value is not None]))
    centred = results_NS[has] - results_NS[has].mean(axis=0)
    found: Floats = ((basis.T @ centred) ** 2).sum(axis=0)
    return found


def _terms(values: Sequence[Any]) -> Floats:
    """What explains the results, a column each, their means taken out: one a group but the last, or a number's rank and its square."""
    kinds = sorted({repr(value) for value in values})
    if _are_numbers(values) and len(kinds) > FEW:
        place = ranks([float(value) for value in values]) / len(values)
        columns = np.stack([place, place**2], axis=1)
    else:
        columns = np.array([[repr(value) == kind for kind in kinds[:-1]] for value in values], dtype=np.float64)
    centred: Floats = columns - columns.mean(axis=0)
    return centred
