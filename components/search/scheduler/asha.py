"""Asynchronous successive halving: every trial starts short, the best third of each rung is trained three times longer.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, in the promotion form: a trial rests at
a rung with its checkpoint and is carried on once it is among the best, so no early verdict is final.
"""

from __future__ import annotations

from collections.abc import Sequence

from components.search.interface import Standing
from components.search.promotion import Halving, promoted


class ASHA(Halving):
    """Carries on the best 1/`reduction` of each rung; no rung is shorter than `least` epochs.

    Raises `UsageError` for a reduction below 2 or fewer than 1 epoch.
    """

    def first_rung(self, number: int, rungs: Sequence[int]) -> int:
        return 0

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        return promoted(standings, len(rungs), self.reduction)
