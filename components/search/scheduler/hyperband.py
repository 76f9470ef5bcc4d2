"""Hyperband: successive halving in several brackets that start at different rungs, so that slow starters get a chance.

Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 2018; without waiting, as in
"A System for Massively Parallel Hyperparameter Tuning", MLSys 2020. Trials compete within their bracket only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from components.search.interface import Standing
from components.search.promotion import Halving, bracket_sizes, promoted


class Hyperband(Halving):
    """Brackets get trials in proportion to the sizes of Hyperband's, spread evenly over the trials' numbers.

    Raises `UsageError` for a reduction below 2 or fewer than 1 epoch.
    """

    def first_rung(self, number: int, rungs: Sequence[int]) -> int:
        order = _order(len(rungs), self.reduction)
        return order[number % len(order)]

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        brackets: dict[int, list[Standing]] = defaultdict(list)
        for standing in standings:
            brackets[self.first_rung(standing.number, rungs)].append(standing)
        found = (promoted(brackets[rung], len(rungs), self.reduction) for rung in sorted(brackets, reverse=True))
        return next((number for number in found if number is not None), None)


@lru_cache
def _order(num_rungs: int, reduction: int) -> tuple[int, ...]:
    """The first rung of each trial of a round: always the bracket that is furthest behind its share.

    >>> _order(2, 3)
    (0, 1, 0, 1, 0)
    """
    sizes = bracket_sizes(num_rungs, reduction)
    given, order = [0] * num_rungs, []  # type: tuple[list[int], list[int]]
    for number in range(1, sum(sizes) + 1):
        behind = [size * number / sum(sizes) - had for size, had in zip(sizes, given)]
        order.append(behind.index(max(behind)))
        given[order[-1]] += 1
    return tuple(order)
