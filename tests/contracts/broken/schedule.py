"""Schedules that look right and are not: each must fail the family's contract."""

from __future__ import annotations

import random

from components.training.schedule.cosine import Cosine


class Steep(Cosine):
    """Goes above the peak rate that was searched."""

    def factor(self, progress: float) -> float:
        return 2.0 * super().factor(progress)


class Dead(Cosine):
    """Reaches zero before the end: the steps after it are in vain."""

    def factor(self, progress: float) -> float:
        return max(0.0, 1.0 - 2.0 * progress)


class Whimsical(Cosine):
    """Not a function of the progress: a resumed training would go another way."""

    def factor(self, progress: float) -> float:
        return random.uniform(0.1, 1.0)
