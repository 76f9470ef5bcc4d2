"""One call in a process of its own, watched until it ends; what every runner is made of.

`Call` is looked at from time to time by whoever runs many; `attend` watches one from a thread of a machine in a cluster.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.processes import Worker, WorkerDied, ready, start_from_any_thread
from components.search.failures import oom_kills
from components.search.interface import EventListener, Outcome

LOOK_SECONDS = 0.05  # how often a call is asked whether it is still wanted


@dataclass(frozen=True)
class Order:
    """A call to be made somewhere else: `function` must be importable there. `preload` are modules to load before the first."""

    key: int
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    limit: float | None = None
    preload: tuple[str, ...] = ()


class Call:
    """Starts an order at once. `listen` and `late` tell how it ended, if it did; then it must be ended or killed."""

    def __init__(self, order: Order) -> None:
        self.order, self.key = order, order.key
        self._oom_kills = oom_kills()
        self.worker = Worker()
        self._started = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the process is dead already: `listen` will find it so
            self.worker.submit(order.function, *order.args, **order.kwargs)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def left(self) -> float | None:
        """Seconds until its limit, or None without one."""
        return None if self.order.limit is None else max(0.0, self.order.limit - self.seconds)

    def listen(self, on_event: EventListener) -> Outcome | None:
        """What it has said since: events are handed on; the outcome if it has ended."""
        try:
            while (message := self.worker.poll()) is not None:
                kind, value = message
                if kind != "event":
                    return self._outcome("done" if kind == "result" else "error", value)
                on_event(self.key, *value)
        except WorkerDied as death:
            starved = death.exitcode == -9 and oom_kills() > self._oom_kills
            return self._outcome("oom" if starved else "died", death.exitcode)
        return None

    def late(self) -> Outcome | None:
        """A time-out if its limit has passed."""
        return self._outcome("timeout", self.order.limit) if self.left == 0.0 else None

    def end(self, outcome: Outcome) -> None:
        """Frees its process after its outcome."""
        if outcome.kind in ("done", "error"):
            self.worker.close()
        else:
            self.worker.kill()

    def kill(self) -> float:
        """Ends it now; returns the seconds it ran."""
        self.worker.kill()
        return self.seconds

    def _outcome(self, kind: str, value: Any) -> Outcome:
        return Outcome(key=self.key, kind=kind, value=value, seconds=self.seconds)


def attend(order: Order, on_event: EventListener, is_wanted: Callable[[], bool]) -> Outcome:
    """Makes a call and stays with it to its end. One that is no longer wanted is killed: `died` by SIGKILL."""
    start_from_any_thread(order.preload)
    call = Call(order)
    try:
        while True:
            waiting = ready([call.worker], LOOK_SECONDS if call.left is None else min(LOOK_SECONDS, call.left))
            outcome = (call.listen(on_event) if waiting else None) or call.late()
            if outcome is None and not is_wanted():
                outcome = Outcome(key=order.key, kind="died", value=-9, seconds=call.seconds)
            if outcome:
                call.end(outcome)
                return outcome
    except BaseException:
        call.kill()
        raise


def first_limit(calls: Sequence[Call], timeout: float) -> float:
    """Seconds to wait for news of calls: `timeout`, or less if one must end earlier."""
    return min([timeout, *(call.left for call in calls if call.left is not None)])
