"""Trials run on this machine, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from components.processes import ready
from components.search.calls import Call, Order, first_limit
from components.search.interface import EventListener, Outcome


class ProcessRunner:
    """Forks a worker for each call. See `components.search.interface.Runner`."""

    slots = None  # how many this machine bears is measured, see components/search/workers.py

    def __init__(self, on_event: EventListener = lambda key, event, fields: None, folder: Path | None = None) -> None:
        self._on_event = on_event
        self._calls: dict[int, Call] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key in self.running:
            self.cancel(key)

    @property
    def running(self) -> tuple[int, ...]:
        return tuple(self._calls)

    def submit(self, key: int, function: Callable[..., Any], *args: Any, limit: float | None = None, **kwargs: Any) -> None:
        self._calls[key] = Call(Order(key, function, args, kwargs, limit))

    def outcomes(self, timeout: float) -> list[Outcome]:
        calls = list(self._calls.values())
        heard = ready([call.worker for call in calls], first_limit(calls, timeout))
        found = [(call.listen(self._on_event) if call.worker in heard else None) or call.late() for call in calls]
        ended = [outcome for outcome in found if outcome]
        for outcome in ended:
            self._calls.pop(outcome.key).end(outcome)
        return ended

    def cancel(self, key: int) -> float:
        return self._calls.pop(key).kill()
