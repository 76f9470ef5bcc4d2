"""Runners that look right and are not: each must fail the family's contract."""

from __future__ import annotations

from typing import Any

from components.processes import WorkerBug
from components.search.interface import Outcome
from components.search.runner.process import ProcessRunner


class LetsItRun(ProcessRunner):
    """Forgets a cancelled call and leaves its process."""

    def cancel(self, key: int) -> float:
        return self._calls.pop(key).seconds


class IgnoresLimits(ProcessRunner):
    """Lets a call run for as long as it likes."""

    def submit(self, key: int, function: Any, *args: Any, limit: float | None = None, **kwargs: Any) -> None:
        super().submit(key, function, *args, **kwargs)


class SaysAllIsWell(ProcessRunner):
    """Calls every end a good one."""

    def outcomes(self, timeout: float) -> list[Outcome]:
        return [Outcome(key=o.key, kind="done", value=o.value, seconds=o.seconds) for o in super().outcomes(timeout)]


class OneAtATime(ProcessRunner):
    """Waits for the call before it starts the next one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kept: list[Outcome] = []

    def submit(self, key: int, function: Any, *args: Any, limit: float | None = None, **kwargs: Any) -> None:
        while self._calls:
            self._kept += super().outcomes(1.0)
        super().submit(key, function, *args, limit=limit, **kwargs)

    def outcomes(self, timeout: float) -> list[Outcome]:
        kept, self._kept = self._kept, []
        return kept or super().outcomes(timeout)


class TellsNothing(ProcessRunner):
    """Drops what calls report."""

    def __init__(self, on_event: Any = None, folder: Any = None) -> None:
        super().__init__(folder=folder)


class AllForOne(ProcessRunner):
    """Takes a process that died for the end of all, as a pool of the standard library does."""

    def outcomes(self, timeout: float) -> list[Outcome]:
        ended = super().outcomes(timeout)
        if any(outcome.kind == "died" for outcome in ended):
            bug = WorkerBug("BrokenProcessPool", "a process was terminated abruptly", "")
            ended += [Outcome(key=key, kind="error", value=bug, seconds=self.cancel(key)) for key in self.running]
        return ended
