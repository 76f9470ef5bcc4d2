"""Worker processes that are cheap to start, easy to kill, and never outlive their parent.

One forkserver preloads torch, lightning and kornia (8 s, once); a worker is then a fork (0.1 s). A worker runs
calls one after another and sends events while it does. If it dies (killed, out of memory), only its call is lost:
the caller gets `WorkerDied` with the signal. Call `start()` early, in the main thread: it does not block.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

from components.errors import AthanorError

PRELOAD = ["components.lifeline", "torch", "lightning", "kornia.augmentation", "components.preload"]
_starting = threading.Lock()
_lasting = threading.Lock()


class WorkerDied(Exception):
    """A worker ended without an answer. `exitcode` is negative for a signal (-9: killed, often out of memory)."""

    def __init__(self, exitcode: int | None) -> None:
        self.exitcode = exitcode
        name = signal.Signals(-exitcode).name if exitcode and exitcode < 0 else f"exit code {exitcode}"
        super().__init__(f"worker process died ({name})")


class WorkerBug(Exception):
    """A call raised something that is not an `AthanorError`: the class name, message and traceback text."""

    def __init__(self, kind: str, message: str, trace: str) -> None:
        self.kind, self.message, self.trace = kind, message, trace
        super().__init__(f"{kind}: {message}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.kind, self.message, self.trace)


def start() -> None:
    """Starts the forkserver if it is not running. Must be called from the main thread: it dies with its starter."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    multiprocessing.forkserver.ensure_running()


TERMINATED = 128 + signal.SIGTERM
_busy, _asked_to_stop = threading.Event(), threading.Event()  # of a worker, about itself
_hears = threading.Event()  # whether SIGTERM is noted in this process for as long as it lives: a worker, a rank
_heeded = threading.Event()  # whether it is noted for the moment, in a process that is nobody's worker
_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


def is_asked_to_stop() -> bool:
    """Whether this process has been sent SIGTERM: who can save what it has done should do so, and `leave`."""
    return _asked_to_stop.is_set()


def listen_for_stop() -> None:
    """Has SIGTERM noted instead of ending this process, which is to save what it has done."""
    _hears.set()
    signal.signal(signal.SIGTERM, lambda *_: _asked_to_stop.set())


@contextlib.contextmanager
def heeding_stop() -> Iterator[None]:
    """A time in which who is at work looks at `is_asked_to_stop`: a first SIGTERM is noted, and handled as ever once that has
    left. Changes nothing in a worker, which notes it anyway, and where SIGTERM has no handler."""
    handler = signal.getsignal(signal.SIGTERM)
    if _hears.is_set() or _heeded.is_set() or not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(signum: int, frame: Any) -> Any:
        return handler(signum, frame) if _asked_to_stop.is_set() else _asked_to_stop.set()

    _heeded.set()
    signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        _heeded.clear()
        if is_asked_to_stop():
            _asked_to_stop.clear()
            handler(signal.SIGTERM, None)


def leave() -> NoReturn:
    """Ends this worker as a process ends that was told to; in a process that is nobody's worker, what it is at."""
    if _heeded.is_set():
        raise KeyboardInterrupt
    os._exit(TERMINATED)


def stop_workers(seconds: float) -> None:
    """Asks this process's workers to save what they can and to leave, and waits for them for so long."""
    busy = [worker.process for worker in list(_workers) if worker.process.is_alive()]
    for process in busy:
        process.terminate()
    ends = time.monotonic() + seconds
    for process in busy:
        process.join(max(0.0, ends - time.monotonic()))


class Worker:
    """One forked process that answers calls. Use as a context manager, or `close` / `kill` it."""

    def __init__(self) -> None:
        start()
        context = multiprocessing.get_context("forkserver")
        self._pipe, child = context.Pipe()
        self.process = context.Process(target=_serve, args=(child,), daemon=True)
        with _starting, _main_module_hidden():
            self.process.start()
        child.close()
        _workers.add(self)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Sends a call; `function` must be importable by name. It is called with `emit=` if it takes one."""
        self._pipe.send((function, args, kwargs))

    def prepare(self, function: Callable[..., Any]) -> None:
        """Lets the worker run a call whose answer nobody waits for, such as an import; later calls queue behind it."""
        self.submit(_without_answer, function)

    def poll(self, timeout: float = 0.0) -> tuple[str, Any] | None:
        """The next message: ("event", (name, fields)), ("result", value) or ("error", exception); None if none came.

        Raises `WorkerDied` when the process has ended."""
        try:
            if self._pipe.poll(timeout):
                kind, value = self._pipe.recv()
                return kind, value
        except (EOFError, ConnectionResetError, BrokenPipeError):
            self.process.join(5)
            raise WorkerDied(self.process.exitcode) from None
        return None

    def call(self, function: Callable[..., Any], *args: Any, on_event: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
        """Runs one call to its end and returns its value or raises what it raised."""
        self.submit(function, *args, **kwargs)
        while True:
            message = self.poll(0.5)
            if message is None:
                continue
            kind, value = message
            if kind == "result":
                return value
            if kind == "error":
                raise value
            if on_event:
                on_event(value[0], **value[1])

    @property
    def connection(self) -> Connection:
        """The pipe, to wait for several workers at once."""
        return self._pipe

    def kill(self) -> None:
        """Ends the process now."""
        with contextlib.suppress(Exception):
            self.process.kill()
        self.process.join(5)
        self._pipe.close()

    def close(self) -> None:
        """Lets an idle worker end; kills it if it does not."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        self.process.join(1)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5)


def answer_of(worker: Worker) -> Any:
    """What a worker's one pending call returns or raises; its events are dropped. Raises `WorkerDied`."""
    while True:
        kind, value = worker.poll(1.0) or ("nothing yet", None)
        if kind == "result":
            return value
        if kind == "error":
            assert isinstance(value, BaseException)
            raise value


def start_from_any_thread(preload: Sequence[str]) -> None:
    """Starts the forkserver, unless one runs, from a thread that lives as long as the process: it dies with its starter."""
    with _lasting:
        if multiprocessing.forkserver._forkserver._forkserver_pid is not None:  # type: ignore[attr-defined]
            return
        if preload:
            PRELOAD[:] = preload
        started = threading.Event()
        threading.Thread(target=_start_and_stay, args=(started,), name="athanor-forkserver", daemon=True).start()
        started.wait()


def _start_and_stay(started: threading.Event) -> None:
    try:
        start()
    finally:
        started.set()
    threading.Event().wait()


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


def ready(workers: list[Worker], timeout: float) -> list[Worker]:
    """The workers that have a message or have died, within `timeout` seconds."""
    found = wait([w.connection for w in workers], timeout)
    return [w for w in workers if w.connection in found]


def _serve(pipe: Connection) -> None:
    from components.lifeline import die_with_parent

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _hears.set()
    signal.signal(signal.SIGTERM, lambda *_: _asked_to_stop.set() if _busy.is_set() else leave())
    _one_thread()
    lock = threading.Lock()

    def emit(event: str, **fields: Any) -> None:
        with lock:
            pipe.send(("event", (event, fields)))

    while True:
        try:
            function, args, kwargs = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        _busy.set()
        answer = _answer(function, args, kwargs, emit)
        _busy.clear()
        if is_asked_to_stop():
            leave()
        if function is not _without_answer:
            try:
                with lock:
                    pipe.send(answer)
            except OSError:  # the caller has left: nobody to tell
                os._exit(0)


def _answer(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], emit: Callable[..., None]) -> tuple[str, Any]:
    try:
        return "result", function(*args, **kwargs, emit=emit)
    except AthanorError as error:
        return "error", error
    except BaseException as error:
        return "error", WorkerBug(type(error).__name__, str(error), traceback.format_exc())


def _without_answer(function: Callable[..., Any], *, emit: Callable[..., None]) -> None:
    function(emit=emit)


def _one_thread() -> None:
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """A worker needs nothing of the caller's `__main__`: without this, forking would run a user's script again."""
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name, None) for name in ("__file__", "__spec__")}
    for name in kept:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)
