"""Trials run on a Ray cluster: one actor a machine, which forks a worker for each trial and stays with it.

A task of Ray's own would need a process that has loaded torch for each trial at once; the actor loads it once and forks.
It takes the machine's processors from Ray for as long as the search lasts. Ray ends it, and its trials with it, when
the caller is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from components import processes
from components.errors import TryAgainError, UsageError
from components.processes import available_cores
from components.search.calls import Order, attend
from components.search.guardian import family_of, guarding
from components.search.interface import EventListener, Outcome
from components.search.nodes import Mark, Node, describe, require_fit

LOOK_SECONDS = 5.0  # how often new machines are looked for
CANCEL_SECONDS = 10.0  # a machine that does not answer by then is taken to be lost, and what it runs with it
ADDRESS = re.compile(r"auto|[\w.-]+:\d+|\[[\da-fA-F:]+\]:\d+")
KNOCK_SECONDS = 10.0
STORE_BYTES = 80 * 2**20  # of Ray's object store; results are small


@dataclass
class _Machine:
    """A machine of the cluster: its actor and the calls that it takes at once."""

    actor: Any
    slots: int


@dataclass
class _Running:
    machine: str
    messages: Any  # Ray's generator: references to (event, fields), at the end to an Outcome
    started: float


class RayRunner:
    """Sends each call to the actor of the machine with the most room. See `components.search.interface.Runner`.

    `address` is a running cluster's: auto, or host:6379 (None: a cluster of this machine's own, for as long as the
    search lasts); `wait_seconds` is how long it may take until a machine is ready.
    """

    def __init__(
        self, on_event: EventListener = lambda key, event, fields: None, folder: Path | None = None, *,
        address: str | None = None, wait_seconds: float = 120.0,
    ) -> None:  # fmt: skip
        if wait_seconds <= 0:
            raise UsageError(f"runner.wait_seconds must be more than 0, got {wait_seconds}")
        self._on_event, self._folder, self._address, self._wait_seconds = on_event, folder, address, wait_seconds
        self._machines: dict[str, _Machine] = {}
        self._starting: dict[str, tuple[_Machine, Any]] = {}
        self._calls: dict[int, _Running] = {}
        self._looked = -LOOK_SECONDS
        self._mark: str | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_connected(self._address))
            self._mark = stack.enter_context(Mark(self._folder))
            until = time.monotonic() + self._wait_seconds
            while not self._machines:
                self._look_for_machines(wait_seconds=1.0)
                if time.monotonic() > until and not self._machines:
                    raise TryAgainError(f"runner=ray: no machine of {self._where} had its processors free in {self._wait_seconds:g} s")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            for key in self.running:
                self.cancel(key)

    @property
    def slots(self) -> int:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look_for_machines(wait_seconds=0.0)
        return sum(machine.slots for machine in self._machines.values())

    @property
    def running(self) -> tuple[int, ...]:
        return tuple(self._calls)

    def submit(self, key: int, function: Callable[..., Any], *args: Any, limit: float | None = None, **kwargs: Any) -> None:
        if not self.slots:
            raise TryAgainError(f"runner=ray: all machines of {self._where} are gone; run the same command again")
        busy = Counter(call.machine for call in self._calls.values())
        name = max(self._machines, key=lambda name: self._machines[name].slots - busy[name])
        order = Order(key, function, args, kwargs, limit, tuple(processes.PRELOAD))
        messages = self._machines[name].actor.attend.options(num_returns="streaming").remote(order)
        self._calls[key] = _Running(name, messages, time.monotonic())

    def outcomes(self, timeout: float) -> list[Outcome]:
        import ray

        until, ended = time.monotonic() + timeout, list[Outcome]()
        while self._calls:
            keys = {call.messages: key for key, call in self._calls.items()}
            left = 0.0 if ended else max(0.0, until - time.monotonic())
            heard, _ = ray.wait(list(keys), num_returns=1, timeout=left, fetch_local=False)
            if not heard:
                return ended
            if outcome := self._hear(keys[heard[0]]):
                del self._calls[outcome.key]
                ended.append(outcome)
        if not ended:
            time.sleep(max(0.0, until - time.monotonic()))
        return ended

    def cancel(self, key: int) -> float:
        import ray

        call = self._calls.pop(key)
        with contextlib.suppress(ray.exceptions.RayError, KeyError):
            ray.get(_beside(self._machines[call.machine].actor.kill).remote(key), timeout=CANCEL_SECONDS)
        return time.monotonic() - call.started

    def _hear(self, key: int) -> Outcome | None:
        import ray

        call = self._calls[key]
        try:
            message = ray.get(next(call.messages))
        except (ray.exceptions.RayError, StopIteration):  # its actor or its machine was killed
            self._machines.pop(call.machine, None)
            self._looked = -LOOK_SECONDS
            return Outcome(key=key, kind="died", value=None, seconds=time.monotonic() - call.started)
        if isinstance(message, Outcome):
            return message
        self._on_event(key, *message)
        return None

    # ---- machines ----

    @property
    def _where(self) -> str:
        return f"the cluster {self._address}" if self._address else "this machine's cluster"

    def _look_for_machines(self, wait_seconds: float) -> None:
        """Starts an actor on each machine that has none, and takes those into use that have started."""
        import ray

        self._looked = time.monotonic()
        nodes = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
        self._machines = {name: machine for name, machine in self._machines.items() if name in nodes}
        self._starting = {name: started for name, started in self._starting.items() if name in nodes}
        for name, slots in nodes.items():
            if slots and name not in self._machines and name not in self._starting:
                machine = _Machine(_actor(name, slots), slots)
                self._starting[name] = machine, _beside(machine.actor.describe).remote(self._mark)
        waiting = {answer: name for name, (_, answer) in self._starting.items()}
        if waiting:
            answered, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=wait_seconds)
            self._take_into_use({waiting[answer]: _answer_of(answer) for answer in answered})

    def _take_into_use(self, answers: dict[str, Node | BaseException]) -> None:
        require_fit("ray", self._folder, answers)
        for name in answers:
            self._machines[name] = self._starting.pop(name)[0]


def _answer_of(reference: Any) -> Node | BaseException:
    import ray

    try:
        found: Node = ray.get(reference)
        return found
    except Exception as error:
        return error


def _actor(node: str, slots: int) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    room: dict[str, Any] = {"concurrency_groups": {"beside": 2}, "max_concurrency": slots}
    remote: Any = ray.remote
    return remote(num_cpus=slots, scheduling_strategy=place, **room)(Attendant).remote()


def _beside(method: Any) -> Any:
    """A method that does not queue behind the calls."""
    return method.options(concurrency_group="beside")


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A driver of the cluster, of one of this machine's own without an address. Raises what `_connect` does."""
    own = tempfile.mkdtemp(prefix="athanor-ray-") if address is None else None
    try:
        with _own_signal_handler(), _shut_down(only_if_failed=True):
            _connect(address, own)
        with guarding(family_of(own, os.getpid()) if own else (), own), _shut_down():
            yield
    finally:
        if own:
            shutil.rmtree(own, ignore_errors=True)


@contextlib.contextmanager
def _shut_down(only_if_failed: bool = False) -> Iterator[None]:
    """Disconnects from the cluster, and ends it if it was started here."""
    try:
        yield
    except BaseException:
        only_if_failed = False
        raise
    finally:
        if "ray" in sys.modules and not only_if_failed:
            sys.modules["ray"].shutdown()


def _knock(address: str) -> None:
    """Raises `OSError` if nobody listens there; Ray itself would try for minutes and then end this process."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


@contextlib.contextmanager
def _own_signal_handler() -> Iterator[None]:
    """Ray puts a handler of SIGTERM in the place of the caller's; this puts it back."""
    kept = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, kept)


def _connect(address: str | None, folder: str | None) -> None:
    """Raises `UsageError` without Ray or with an address that is none, `TryAgainError` if the cluster does not answer."""
    if address is not None and not ADDRESS.fullmatch(address):
        raise UsageError(f"runner.address must be auto or a Ray cluster's host:port, got {address!r}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"runner=ray needs ray ({error}); pip install 'athanor[ray]'") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
    small: dict[str, Any] = {"num_cpus": available_cores(), "include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        if address not in (None, "auto"):
            _knock(address)
        if address is None:
            _start(ray, address="local", _temp_dir=folder, **small, **quiet)
        else:
            ray.init(address=address, **quiet)
    except OSError as error:
        why = str(error).splitlines()[0]
        raise TryAgainError(f"runner=ray: the cluster {address} does not answer ({why}); start it or run the same command again") from error
    except Exception as error:  # Ray has no class of its own for a node that did not come up in time
        why = str(error).splitlines()[0]
        raise TryAgainError(f"runner=ray: Ray could not be started ({type(error).__name__}: {why}); run the same command again") from error


def _start(ray: Any, **options: Any) -> None:
    """Starts a node of our own; once more where it did not come up whole, as happens on a busy machine."""
    try:
        ray.init(**options)
    except OSError:
        raise
    except Exception:
        ray.shutdown()
        ray.init(**options)


# ---- on the machines of the cluster ----


class Attendant:
    """An actor: makes calls in forked processes, several at once."""

    def __init__(self) -> None:
        self._unwanted: dict[int, threading.Event] = {}
        self._over: dict[int, threading.Event] = {}

    def describe(self, mark: str | None) -> Node:
        return describe(mark)

    def attend(self, order: Order) -> Iterator[tuple[str, dict[str, Any]] | Outcome]:
        """What the call reports, as it does, and at the end how it ended."""
        messages: queue.Queue[tuple[str, dict[str, Any]] | Outcome] = queue.Queue()
        unwanted = self._unwanted[order.key] = threading.Event()
        over = self._over[order.key] = threading.Event()

        def stay() -> None:
            try:
                messages.put(attend(order, lambda key, event, fields: messages.put((event, fields)), lambda: not unwanted.is_set()))
            except BaseException as error:
                messages.put(Outcome(key=order.key, kind="error", value=error, seconds=0.0))
            finally:
                over.set()

        threading.Thread(target=stay, daemon=True).start()
        while not isinstance(message := messages.get(), Outcome):
            yield message
        yield message

    def kill(self, key: int) -> None:
        """Ends a call, and returns when it has ended."""
        if key in self._over:
            self._unwanted[key].set()
            self._over[key].wait(CANCEL_SECONDS)
