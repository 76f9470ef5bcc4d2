"""How many trials run at once: as asked for, or as many as were measured to bring the most work done."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from components.errors import UsageError


def count_workers(asked: Any, num_trials: int, folder: Path) -> int:
    """Processes for a study: a whole number, or `auto` for one per core. Raises `UsageError`."""
    if asked == "auto":
        return min(available_cores(), num_trials)
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise UsageError(f"search.workers must be auto or a whole number of at least 1, got {asked!r}")
    return min(asked, num_trials)


def available_cores() -> int:
    """Cores that this process may use: by its affinity, and by its control group's quota if it has one."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota()
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    try:
        limit, period = path.read_text().split()
        return None if limit == "max" else float(limit) / float(period)
    except (OSError, ValueError):
        return None
