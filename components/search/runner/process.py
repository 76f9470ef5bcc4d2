"""Runs calls side by side, each in a process of its own on this machine.

A process that is killed, overruns its time or exhausts memory ends its own call only. The interface (submit, outcomes,
cancel, close) is what a runner over several machines has to offer too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.processes import Worker, WorkerDied, ready

EventListener = Callable[[int, str, dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call ended: `done` (value: what it returned), `error` (value: what it raised), `died` (value: the process's
    exit code, negative for a signal) or `timeout` (value: the limit in seconds)."""

    key: int
    kind: str
    value: Any
    seconds: float


@dataclass
class _Call:
    key: int
    worker: Worker
    started: float
    limit: float | None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class ProcessRunner:
    """Use as a context manager: whatever still runs at its end is killed. `on_event(key, event, fields)` is told what
    calls report while they run."""

    def __init__(self, on_event: EventListener) -> None:
        self._on_event = on_event
        self._calls: dict[int, _Call] = {}

    def __enter__(self) -> ProcessRunner:
        return self

    def __exit__(self, *_: object) -> None:
        for key in self.running:
            self.cancel(key)

    @property
    def running(self) -> tuple[int, ...]:
        """Keys of the calls that have not ended, oldest first."""
        return tuple(self._calls)

    def submit(self, key: int, function: Callable[..., Any], *args: Any, limit: float | None = None, **kwargs: Any) -> None:
        """Starts a call under a key of the caller's; it is killed after `limit` seconds."""
        worker = Worker()
        self._calls[key] = _Call(key=key, worker=worker, started=time.monotonic(), limit=limit)
        try:
            worker.submit(function, *args, **kwargs)
        except (BrokenPipeError, ConnectionResetError):
            return  # the process is dead already: `outcomes` will find it so

    def outcomes(self, timeout: float) -> list[Outcome]:
        """The calls that ended within `timeout` seconds, at once if one has; each is reported once."""
        limits = [max(0.0, c.limit - c.seconds) for c in self._calls.values() if c.limit is not None]
        heard = ready([c.worker for c in self._calls.values()], min([timeout, *limits]))
        found = [self._listen(c) for c in self._calls.values() if c.worker in heard]
        ended = [outcome for outcome in found if outcome]
        keys = {outcome.key for outcome in ended}
        late = [c for c in self._calls.values() if c.key not in keys and c.limit is not None and c.seconds >= c.limit]
        ended += [Outcome(key=c.key, kind="timeout", value=c.limit, seconds=c.seconds) for c in late]
        for outcome in ended:
            self._end(outcome)
        return ended

    def cancel(self, key: int) -> float:
        """Kills a call and returns the seconds it ran."""
        call = self._calls.pop(key)
        call.worker.kill()
        return call.seconds

    def _listen(self, call: _Call) -> Outcome | None:
        try:
            while (message := call.worker.poll()) is not None:
                kind, value = message
                if kind != "event":
                    return Outcome(key=call.key, kind="done" if kind == "result" else "error", value=value, seconds=call.seconds)
                self._on_event(call.key, *value)
        except WorkerDied as death:
            return Outcome(key=call.key, kind="died", value=death.exitcode, seconds=call.seconds)
        return None

    def _end(self, outcome: Outcome) -> None:
        call = self._calls.pop(outcome.key)
        if outcome.kind in ("done", "error"):
            call.worker.close()
        else:
            call.worker.kill()


def answer_of(worker: Worker) -> Any:
    """What a worker's one pending call returns or raises; its events are dropped. Raises `WorkerDied`."""
    while True:
        kind, value = worker.poll(1.0) or ("nothing yet", None)
        if kind == "result":
            return value
        if kind == "error":
            assert isinstance(value, BaseException)
            raise value
