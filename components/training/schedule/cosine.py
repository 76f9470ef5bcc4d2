"""A linear rise, then half a cosine down (Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts)."""

from __future__ import annotations

import math

from components.settings import number


class Cosine:
    """Rises linearly from `start` over the first `warmup` of the training, then falls to `end`. Raises `UsageError`."""

    def __init__(self, *, warmup: float = 0.1, start: float = 0.1, end: float = 0.002) -> None:
        self.warmup = number("schedule.cosine.warmup", warmup, 0, 0.9)
        self.start = number("schedule.cosine.start", start, 0, 1, above=True)
        self.end = number("schedule.cosine.end", end, 0, 1, above=True)

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return self.start + (1 - self.start) * progress / self.warmup
        fallen = min(1.0, (progress - self.warmup) / (1 - self.warmup))
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * fallen))

    def momentum(self, progress: float) -> float | None:
        return None
