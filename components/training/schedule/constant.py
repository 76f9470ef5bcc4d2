"""The peak rate from the first step to the last."""

from __future__ import annotations


class Constant:
    """No schedule: what the others are measured against."""

    def factor(self, progress: float) -> float:
        return 1.0

    def momentum(self, progress: float) -> float | None:
        return None
