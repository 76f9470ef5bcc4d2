"""How far a training is: what its schedule follows.

Progress runs from 0 to 1 over the planned steps or over a time limit, whichever is nearer its end. So a schedule
always completes, on a slow machine too: with a limit of half the needed time the rate falls twice as fast. A training
that is to rest on its way (`until` below 1) spreads the way there, not the whole schedule, over the time limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Counts steps against `total_steps` and seconds against `seconds` (None: no limit, and nothing depends on the clock).

    `until` is the progress at which this session ends; the rest of the schedule is left to later ones. `is_stopped` says
    that training ended early for good. `elapsed` is what earlier sessions took before they rested or were killed; a
    resumed session spreads the rest of its way over the `seconds` it is given.
    """

    total_steps: int
    seconds: float | None = None
    until: float = 1.0
    steps: int = 0
    elapsed: float = 0.0
    reserve: float = 0.0
    is_stopped: bool = False
    clock: Callable[[], float] = time.monotonic
    _started: float = field(default=0.0, init=False)
    _resumed_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def resume(self, *, steps: int, elapsed: float, progress: float) -> None:
        """Goes on from a checkpoint."""
        self.steps, self.elapsed, self._resumed_at = steps, elapsed, progress

    @property
    def session_seconds(self) -> float:
        """Seconds since this session began."""
        return self.clock() - self._started

    @property
    def total_seconds(self) -> float:
        """Seconds over all sessions."""
        return self.elapsed + self.session_seconds

    @property
    def value(self) -> float:
        """Progress in 0..1."""
        reached = max(self.steps / self.total_steps, self._resumed_at)
        if self.seconds is None:
            return min(1.0, reached)
        usable = self.seconds - self.reserve
        by_time = self.session_seconds / usable if usable > 0 else 1.0
        if by_time >= 1.0:
            return max(reached, self.until)
        return min(1.0, max(reached, self._resumed_at + (self.until - self._resumed_at) * by_time))

    @property
    def is_over(self) -> bool:
        """This session has no step left, or no time for one."""
        return self.is_stopped or self.value >= self.until

    @property
    def is_complete(self) -> bool:
        """The whole schedule has been run."""
        return self.is_stopped or self.value >= 1.0
