"""Workers: calls, events, errors told apart, death noticed, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError
from components.fingerprint import ROOT
from components.processes import Worker, WorkerBug, WorkerDied


def add(a: int, b: int, *, emit: Callable[..., Any]) -> int:
    emit("adding", a=a)
    return a + b


def refuse(*, emit: Callable[..., Any]) -> None:
    raise DataError("row 3 is empty")


def crash(*, emit: Callable[..., Any]) -> None:
    raise ZeroDivisionError("by zero")


def die(*, emit: Callable[..., Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def threads(*, emit: Callable[..., Any]) -> int:
    import torch

    return torch.get_num_threads()


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as started:
        yield started


def test_a_call_returns_its_value_and_tells_its_events(worker: Worker) -> None:
    """Events come while it works."""
    heard: list[Any] = []
    assert worker.call(add, 1, 2, on_event=lambda name, **fields: heard.append((name, fields))) == 3
    assert heard == [("adding", {"a": 1})]


def test_our_own_errors_come_back_as_they_are(worker: Worker) -> None:
    """So that the exit code is right."""
    with pytest.raises(DataError, match="row 3"):
        worker.call(refuse)


def test_a_bug_comes_back_with_its_traceback(worker: Worker) -> None:
    """And the worker still answers."""
    with pytest.raises(WorkerBug, match="ZeroDivisionError") as caught:
        worker.call(crash)
    assert "def crash" not in caught.value.trace
    assert "in crash" in caught.value.trace
    assert worker.call(add, 2, 2) == 4


def test_a_worker_computes_with_one_thread(worker: Worker) -> None:
    """Two threads were five times slower."""
    assert worker.call(threads) == 1


def test_a_killed_worker_is_told_from_a_bug() -> None:
    """SIGKILL (or the kernel, when memory ran out) ends that call only."""
    with Worker() as victim, pytest.raises(WorkerDied, match="SIGKILL"):
        victim.call(die)


def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    """Parent killed: worker and forkserver are gone within five seconds."""
    script = "import sys, time; from components.processes import Worker; w = Worker(); import multiprocessing.forkserver as f\n"
    script += "print(w.process.pid, f._forkserver._forkserver_pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout
    children = [int(word) for word in parent.stdout.readline().split()]
    assert len(children) == 2
    parent.kill()
    parent.wait()
    until = time.monotonic() + 5
    while any(_is_alive(pid) for pid in children) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in children if _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
