"""One cycle: up to a large rate and far down again, momentum the other way round (Smith and Topin, "Super-Convergence", 2018)."""

from __future__ import annotations

import math

from components.errors import UsageError
from components.settings import number


class OneCycle:
    """Rises from `start` to the peak at `peak_at` of the training, then falls to `end`; momentum goes from `most_momentum`
    to `least_momentum` and back. Half cosines both ways. Raises `UsageError`."""

    def __init__(
        self, *, peak_at: float = 0.3, start: float = 0.04, end: float = 0.0001, least_momentum: float = 0.85, most_momentum: float = 0.95
    ) -> None:
        self.peak_at = number("schedule.one_cycle.peak_at", peak_at, 0, 0.95, above=True)
        self.start = number("schedule.one_cycle.start", start, 0, 1, above=True)
        self.end = number("schedule.one_cycle.end", end, 0, 1, above=True)
        self.least = number("schedule.one_cycle.least_momentum", least_momentum, 0, 1, below=True)
        self.most = number("schedule.one_cycle.most_momentum", most_momentum, 0, 1, below=True)
        if self.least > self.most:
            raise UsageError(f"schedule.one_cycle.least_momentum must not be above most_momentum, got {least_momentum} and {most_momentum}")

    def factor(self, progress: float) -> float:
        return self._between(progress, self.start, 1.0, self.end)

    def momentum(self, progress: float) -> float | None:
        return self._between(progress, self.most, self.least, self.most)

    def _between(self, progress: float, first: float, peak: float, last: float) -> float:
        """From `first` to `peak` at `peak_at`, then to `last`."""
        if progress < self.peak_at:
            return _eased(first, peak, progress / self.peak_at)
        return _eased(peak, last, min(1.0, (progress - self.peak_at) / (1 - self.peak_at)))


def _eased(one: float, other: float, part: float) -> float:
    return other + (one - other) * 0.5 * (1 + math.cos(math.pi * part))
