"""One wall-clock budget for the whole pipeline, shared out over the stages that can use any amount of time.

A reserve is kept for the tail (export, evaluation, promotion). What remains is shared among the elastic stages by
weight; a stage that finishes early leaves its rest to those after it. Seconds spent before a kill count.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from components.errors import UsageError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str | float | int | None) -> float | None:
    """Seconds of a duration such as `90`, `90s`, `3m`, `1h30m`; None for none. Raises `UsageError` otherwise.

    >>> seconds_of("1h30m")
    5400.0
    """
    if text is None:
        return None
    if isinstance(text, int | float) and not isinstance(text, bool):
        total = float(text)
    else:
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", str(text).strip())
        plain = re.fullmatch(r"\d+(?:\.\d+)?", str(text).strip())
        if not plain and "".join(n + u for n, u in parts) != str(text).strip():
            raise UsageError(f"a duration is a number with s, m, h or d, such as 90s or 1h30m, got {text!r}")
        total = float(str(text)) if plain else sum(float(n) * UNITS[u] for n, u in parts)
    if not 0 < total < float("inf"):
        raise UsageError(f"a duration must be positive, got {text!r}")
    return total


class Budget:
    """Seconds for a whole run. `seconds=None` means no limit: every allotment is None."""

    def __init__(
        self,
        seconds: float | None,
        *,
        shares: Mapping[str, float],
        reserve: float = 0.0,
        spent: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if seconds is not None and seconds < reserve:
            raise UsageError(f"budget {seconds:.0f}s is below what this pipeline's tail needs here; the least that works is {reserve:.0f}s")
        self.seconds, self.reserve = seconds, reserve
        self._shares, self._clock = dict(shares), clock
        self._started = clock() - spent

    @property
    def spent(self) -> float:
        """Seconds used so far, over all sessions of the run."""
        return self._clock() - self._started

    def left(self) -> float | None:
        """Seconds until the budget ends; never less than the reserve, so that a late resume can still finish."""
        return None if self.seconds is None else max(self.seconds - self.spent, self.reserve)

    def allot(self, stage: str, *, done: tuple[str, ...] = ()) -> float | None:
        """Seconds that an elastic stage may use now: its weight among the elastic stages not yet `done`."""
        left = self.left()
        if left is None:
            return None
        waiting = {name: weight for name, weight in self._shares.items() if name == stage or name not in done}
        total = sum(waiting.values())
        return max(left - self.reserve, 0.0) * self._shares[stage] / total if total else 0.0
