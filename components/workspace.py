"""What a verb is handed besides records and configuration: where to write, how long it may take, whom to tell.

A verb called by hand needs no more than `Workspace(out=some_folder)`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def _silent(event: str, **fields: Any) -> None:
    return None


@dataclass
class Workspace:
    """The surroundings of one stage's run.

    `out` is published as a whole when the verb returns: every file the record names lies below it. `scratch`
    survives a kill (checkpoints, the study); None means that nothing is resumed. `seconds` bounds an elastic stage
    (None: no limit), counted from `started`. `emit(event, **fields)` reports progress: small JSON fields.
    """

    out: Path
    seed: int = 0
    scratch: Path | None = None
    seconds: float | None = None
    emit: Callable[..., Any] = _silent
    started: float = 0.0

    def __post_init__(self) -> None:
        self.started = self.started or time.monotonic()
        self.out.mkdir(parents=True, exist_ok=True)

    def left(self) -> float | None:
        """Seconds until the limit (never negative), or None without one."""
        return None if self.seconds is None else max(0.0, self.seconds - (time.monotonic() - self.started))
