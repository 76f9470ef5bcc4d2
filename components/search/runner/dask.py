"""Trials run on a Dask cluster: one task a trial, which forks a worker on its machine and stays with it.

Dask places the tasks and tells of lost machines. What must not wait for the end of a task goes beside it: events by
Dask's log of events, a kill by calling the machine, and a caller that is gone by the state of the task.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from components import processes
from components.errors import AthanorError, TryAgainError, UsageError
from components.processes import WorkerBug, available_cores
from components.search.calls import Order, attend
from components.search.interface import EventListener, Outcome
from components.search.nodes import Mark, describe, require_fit

if TYPE_CHECKING:
    from distributed import Future

SLOTS_SECONDS = 5.0  # how long the cluster's size is remembered
CANCEL_SECONDS = 10.0  # a machine that does not answer by then is taken to be lost, and what it runs with it


class DaskRunner:
    """Sends each call to a Dask scheduler. See `components.search.interface.Runner`.

    `address` is the scheduler's, such as tcp://10.0.0.5:8786 (None: a scheduler and a worker in this process, one
    thread for each core); `wait_seconds` is how long it may take until it answers and has a worker.
    """

    def __init__(
        self, on_event: EventListener = lambda key, event, fields: None, folder: Path | None = None, *,
        address: str | None = None, wait_seconds: float = 30.0,
    ) -> None:  # fmt: skip
        if wait_seconds <= 0:
            raise UsageError(f"runner.wait_seconds must be more than 0, got {wait_seconds}")
        self._on_event, self._folder, self._address, self._wait_seconds = on_event, folder, address, wait_seconds
        self._name = f"athanor-{uuid.uuid4().hex}"
        self._futures: dict[int, Future] = {}
        self._started: dict[int, float] = {}
        self._heard: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self._slots = (-SLOTS_SECONDS, 0)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._client = stack.enter_context(_client_of(self._address, self._wait_seconds))
            with Mark(self._folder) as mark:
                require_fit("dask", self._folder, self._client.run(describe, mark, on_error="return"))
            self._client.subscribe_topic(self._name, lambda row: self._heard.put(("event", *json.loads(row[1]))))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack, contextlib.suppress(TryAgainError):
            for key in self.running:
                self.cancel(key)

    @property
    def slots(self) -> int:
        asked, number = self._slots
        if time.monotonic() - asked > SLOTS_SECONDS:
            number = sum(self._client.nthreads().values())
            self._slots = (time.monotonic(), number)
        return number

    @property
    def running(self) -> tuple[int, ...]:
        return tuple(self._futures)

    def submit(self, key: int, function: Callable[..., Any], *args: Any, limit: float | None = None, **kwargs: Any) -> None:
        order = Order(key, function, args, kwargs, limit, tuple(processes.PRELOAD))
        token = f"{self._name}-{key}-{uuid.uuid4().hex[:8]}"
        future = self._client.submit(run_on_worker, order, self._name, token, key=token, pure=False)
        self._futures[key], self._started[key] = future, time.monotonic()
        future.add_done_callback(lambda ended: self._heard.put(("ended", key, ended)))

    def outcomes(self, timeout: float) -> list[Outcome]:
        ended: list[Outcome] = []
        until = time.monotonic() + timeout
        while (message := self._next_message(0.0 if ended else until - time.monotonic())) is not None:
            kind, key, *rest = message
            if kind == "event" and key in self._futures:
                self._on_event(key, *rest)
            elif kind == "ended" and self._futures.get(key) is rest[0]:
                ended.append(self._outcome(key, self._futures.pop(key)))
        self._require_scheduler()
        return ended

    def cancel(self, key: int) -> float:
        future, started = self._futures.pop(key), self._started.pop(key)
        with contextlib.suppress(OSError, TimeoutError):
            future.cancel()
            self._client.run(kill_on_worker, future.key, on_error="ignore")
        return time.monotonic() - started

    def _next_message(self, timeout: float) -> tuple[Any, ...] | None:
        try:
            return self._heard.get(timeout=timeout) if timeout > 0 else self._heard.get_nowait()
        except queue.Empty:
            return None

    def _outcome(self, key: int, future: Future) -> Outcome:
        from distributed import KilledWorker

        seconds = time.monotonic() - self._started.pop(key)
        if future.cancelled():
            raise self._away()
        error = future.exception()
        if error is None:
            found: Outcome = future.result()
            return found
        if isinstance(error, KilledWorker):
            return Outcome(key=key, kind="died", value=None, seconds=seconds)
        if not isinstance(error, AthanorError):
            error = WorkerBug(type(error).__name__, str(error), "".join(traceback.format_exception(error)))
        return Outcome(key=key, kind="error", value=error, seconds=seconds)

    def _require_scheduler(self) -> None:
        if self._client.status != "running":
            raise self._away()

    def _away(self) -> TryAgainError:
        return TryAgainError(f"runner=dask: the scheduler {self._address or 'of this process'} is away; run the same command again")


@contextlib.contextmanager
def _client_of(address: str | None, wait_seconds: float) -> Any:
    """A client whose scheduler has a worker. Raises `UsageError` without Dask, `TryAgainError` if nobody answers."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise UsageError(f"runner=dask needs dask and distributed ({error}); pip install 'athanor[dask]'") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        scheduler: Any = address
        if address is None:
            processes.start()  # here and not in the thread of a task, which is not this process's main one
            cores: dict[str, Any] = {"n_workers": 1, "threads_per_worker": available_cores(), "processes": False}
            quiet: dict[str, Any] = {"dashboard_address": None, "memory_limit": 0, "silence_logs": logging.CRITICAL}
            scheduler = stack.enter_context(LocalCluster(**cores, **quiet))
        try:
            client = stack.enter_context(Client(scheduler, timeout=wait_seconds, set_as_default=False))
            client.wait_for_workers(1, timeout=wait_seconds)
        except (OSError, TimeoutError) as error:
            why = str(error).splitlines()[0]
            raise TryAgainError(f"runner=dask: scheduler {address} has no worker for us within {wait_seconds:g} s ({why})") from error
        except (ValueError, TypeError) as error:
            raise UsageError(f"runner.address must be a Dask scheduler's, such as tcp://host:8786, got {address!r} ({error})") from error
        yield client


# ---- on the machines of the cluster ----

_killed: dict[str, threading.Event] = {}
_killing = threading.Lock()


def run_on_worker(order: Order, topic: str, token: str) -> Outcome:
    """A task: makes the call in a forked process, until it ends or nobody wants it any more."""
    from distributed import get_worker

    worker, killed, over = get_worker(), _mark_of(token), _mark_of(f"{token} over")

    def tell(key: int, event: str, fields: dict[str, Any]) -> None:
        worker.log_event(topic, json.dumps([key, event, fields]))

    def is_wanted() -> bool:
        task = worker.state.tasks.get(token)  # cancelled, or gone, once the caller is: see distributed's worker_state_machine
        return not killed.is_set() and task is not None and task.state in ("executing", "long-running")

    try:
        return attend(order, tell, is_wanted)
    finally:
        over.set()
        _forget(token)


def kill_on_worker(token: str) -> None:
    """Called on every machine, beside its tasks: ends the call that the task `token` makes, and returns when it has ended."""
    with _killing:
        killed, over = _killed.get(token), _killed.get(f"{token} over")
    if killed and over:
        killed.set()
        over.wait(CANCEL_SECONDS)


def _mark_of(token: str) -> threading.Event:
    with _killing:
        return _killed.setdefault(token, threading.Event())


def _forget(token: str) -> None:
    with _killing:
        _killed.pop(token, None)
        _killed.pop(f"{token} over", None)
