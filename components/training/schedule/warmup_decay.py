"""A linear rise, then a straight or an exponential fall, as large networks are trained (Goyal et al., 2017; Hägele et al., 2024)."""

from __future__ import annotations

from components.errors import UnknownNameError
from components.settings import number

SHAPES = ("linear", "exponential")


class WarmupDecay:
    """Rises from `start` over the first `warmup` of the training, stays for `hold` of it, then falls to `end`. Raises `UsageError`."""

    def __init__(
        self, *, warmup: float = 0.1, hold: float = 0.0, start: float = 0.01, end: float = 0.01, shape: str = "linear"
    ) -> None:  # fmt: skip
        if shape not in SHAPES:
            raise UnknownNameError("schedule.warmup_decay.shape", shape, SHAPES)
        self.warmup = number("schedule.warmup_decay.warmup", warmup, 0, 0.5)
        self.hold = number("schedule.warmup_decay.hold", hold, 0, 0.45)
        self.start = number("schedule.warmup_decay.start", start, 0, 1, above=True)
        self.end = number("schedule.warmup_decay.end", end, 0, 1, above=True)
        self.shape = shape

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return self.start + (1 - self.start) * progress / self.warmup
        top = self.warmup + self.hold
        fallen = min(1.0, max(0.0, (progress - top) / (1 - top)))
        return self.end**fallen if self.shape == "exponential" else 1 + (self.end - 1) * fallen

    def momentum(self, progress: float) -> float | None:
        return None
