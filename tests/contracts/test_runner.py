"""What every runner must keep, whichever yaml names it; and that runners which do not keep it are found out.

Dask and Ray run here as their yamls say, each in a cluster of this machine's own.
"""

from __future__ import annotations

import contextlib
import multiprocessing.forkserver as forkserver
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import build, processes
from components.errors import DataError, UsageError
from components.fingerprint import ROOT
from components.processes import WorkerBug
from components.search.interface import Outcome, Runner

CONF = ROOT / "conf" / "runner"
MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
LIBRARIES = {"dask": "distributed", "ray": "ray"}
MARKED = [pytest.param(name, marks=[pytest.mark.slow] if name == "ray" else []) for name in MEMBERS]  # Ray's servers take 10 s to start
BROKEN = "tests.contracts.broken.runner"
LIGHT = ["components.lifeline", "numpy", "components.search.calls", __name__]
PATIENCE_SECONDS = 60.0


def config_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return found


# ---- calls ----


def add(a: int, b: int, *, emit: Any) -> int:
    emit("adding", a=a, b=b)
    return a + b


def refuse(*, emit: Any) -> None:
    raise DataError("row 3 is empty")


def crash(*, emit: Any) -> None:
    raise ZeroDivisionError("by zero")


def die(*, emit: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def linger(seconds: float, *, emit: Any) -> tuple[float, float]:
    emit("lingering", pid=os.getpid())
    started = time.time()
    time.sleep(seconds)
    return started, time.time()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Stage:
    """An open runner, and what it has told."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.runner: Runner = build.build(config, on_event=self.hear, folder=folder)

    def hear(self, key: int, event: str, fields: dict[str, Any]) -> None:
        self.events.append((key, event, fields))

    def outcomes(self, count: int) -> dict[int, Outcome]:
        """The next `count` outcomes, by key."""
        found: list[Outcome] = []
        until = time.monotonic() + PATIENCE_SECONDS
        while len(found) < count and time.monotonic() < until:
            found += self.runner.outcomes(1.0)
        assert len({o.key for o in found}) == len(found) == count, f"{len(found)} outcomes came, not {count}: {found}"
        return {outcome.key: outcome for outcome in found}

    def pid_of(self, key: int) -> int:
        """The process that `linger` runs in."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            assert not self.runner.outcomes(0.05)
            for told, event, fields in self.events:
                if (told, event) == (key, "lingering"):
                    return int(fields["pid"])
        raise AssertionError(f"call {key} told of nothing")


# ---- the contract ----


def returns_values_and_tells_events(stage: Stage) -> None:
    """Each call's value under its own key, and what it reported on the way."""
    for key in range(3):
        stage.runner.submit(key, add, key, 10)
    assert stage.runner.running == (0, 1, 2)
    found = stage.outcomes(3)
    assert {key: (o.kind, o.value) for key, o in found.items()} == {0: ("done", 10), 1: ("done", 11), 2: ("done", 12)}
    assert sorted(stage.events) == [(key, "adding", {"a": key, "b": 10}) for key in range(3)], "an event got lost"
    assert stage.runner.running == ()


def tells_the_ways_to_end_apart(stage: Stage) -> None:
    """Our own errors as they are, bugs with their traceback, a kill by its signal; the same key can be used again."""
    for key, function in enumerate((refuse, crash, die)):
        stage.runner.submit(key, function)
    found = stage.outcomes(3)
    assert [found[key].kind for key in range(3)] == ["error", "error", "died"]
    assert isinstance(found[0].value, DataError)
    assert isinstance(found[1].value, WorkerBug)
    assert "in crash" in found[1].value.trace
    assert found[2].value == -signal.SIGKILL
    stage.runner.submit(2, add, 2, 2)
    assert stage.outcomes(1)[2].value == 4


def a_death_ends_its_own_call_only(stage: Stage) -> None:
    """A neighbour that is killed costs nothing else."""
    stage.runner.submit(0, linger, 0.5)
    stage.runner.submit(1, die)
    found = stage.outcomes(2)
    assert (found[0].kind, found[1].kind) == ("done", "died"), "a neighbour's death ended it"


def keeps_limits(stage: Stage) -> None:
    """A call that overruns its limit is killed, and its process is gone."""
    stage.runner.submit(0, linger, 30.0, limit=3.0)
    pid = stage.pid_of(0)
    outcome = stage.outcomes(1)[0]
    assert (outcome.kind, outcome.value) == ("timeout", 3.0), "a call went past its limit"
    assert outcome.seconds >= 3.0
    assert not alive(pid)


def cancels(stage: Stage) -> None:
    """A cancelled call has no process when `cancel` returns, and no outcome; the others go on."""
    stage.runner.submit(0, linger, 30.0)
    stage.runner.submit(1, linger, 1.5)
    pid = stage.pid_of(0)
    assert stage.runner.cancel(0) > 0
    still = alive(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    assert not still, "the process of a cancelled call is still there"
    assert stage.runner.running == (1,)
    assert stage.outcomes(1)[1].kind == "done"
    assert stage.runner.outcomes(0.1) == []


def runs_side_by_side(stage: Stage) -> None:
    """Two calls overlap in time, in two processes, if the machines have room for two."""
    if stage.runner.slots is not None and stage.runner.slots < 2:
        pytest.skip("this machine has one core")
    for key in range(2):
        stage.runner.submit(key, linger, 1.0)
    found = stage.outcomes(2)
    (first, ended), (second, later) = found[0].value, found[1].value
    assert max(first, second) < min(ended, later), "one waited for the other"
    assert len({fields["pid"] for _, event, fields in stage.events if event == "lingering"}) == 2


CONTRACT = [
    returns_values_and_tells_events, tells_the_ways_to_end_apart, a_death_ends_its_own_call_only, keeps_limits, cancels,
    runs_side_by_side,
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _light_workers() -> Iterator[None]:
    """A forkserver that loads little, unless one runs already: that one is used and left alone."""
    build._plugins.add("tests")
    if forkserver._forkserver._forkserver_pid is not None:
        yield
        return
    kept, processes.PRELOAD = processes.PRELOAD, LIGHT
    yield
    forkserver._forkserver._stop()
    processes.PRELOAD = kept


@pytest.fixture(scope="module", params=MARKED)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Each member, opened once."""
    if library := LIBRARIES.get(request.param):
        pytest.importorskip(library)
    stage = Stage(config_of(request.param), tmp_path_factory.mktemp("shared"))
    with stage.runner:
        yield stage


def test_family_is_not_empty() -> None:
    """This machine, Dask and Ray, each a yaml beside a module of the same name."""
    assert {"process", "dask", "ray"} <= set(MEMBERS)
    for name in MEMBERS:
        target = config_of(name)["_target_"]
        assert not target.startswith("components.") or target.split(".")[-2] == name


@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_member_keeps_the_contract(opened: Stage, rule: Callable[[Stage], None]) -> None:
    """Each rule holds for each member."""
    opened.events.clear()
    rule(opened)


KILLED = """
import sys, yaml
from components import build, processes
processes.PRELOAD = sys.argv[3].split(",")
from tests.contracts.test_runner import linger
def hear(key, event, fields):
    print("pid", fields["pid"], flush=True)
def main():
    with build.build(yaml.safe_load(open(sys.argv[1])), on_event=hear) as runner:
        for key in range(2):
            runner.submit(key, linger, 300.0)
        while True:
            runner.outcomes(1.0)
main()
"""


@pytest.mark.parametrize("name", MARKED)
def test_nothing_outlives_a_killed_caller(name: str, tmp_path: Path) -> None:
    """SIGKILL to the caller: within some seconds its calls' processes and the services it started are gone."""
    if library := LIBRARIES.get(name):
        pytest.importorskip(library)
    mark = f"ATHANOR_TEST={tmp_path}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATHANOR_TEST": str(tmp_path)}
    command = [sys.executable, "-c", KILLED, str(CONF / f"{name}.yaml"), str(tmp_path), ",".join(LIGHT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as caller:
        assert caller.stdout
        pids = {int(line.split()[1]) for line in (caller.stdout.readline() for _ in range(2))}
        assert len(pids) == 2
        assert pids < _marked(mark)
        caller.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while (left := _marked(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left


def _marked(mark: str) -> set[int]:
    """Processes that have `mark` in their environment, except those that have ended."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return found


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("LetsItRun", cancels),
        ("IgnoresLimits", keeps_limits),
        ("SaysAllIsWell", tells_the_ways_to_end_apart),
        ("OneAtATime", runs_side_by_side),
        ("TellsNothing", returns_values_and_tells_events),
        ("AllForOne", a_death_ends_its_own_call_only),
    ],
)
def test_broken_member_fails_the_contract(
    name: str, rule: Callable[[Stage], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that breaks a rule is caught by it."""
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE_SECONDS", 3.0)
    stage = Stage({"_target_": f"{BROKEN}.{name}"}, tmp_path)
    with stage.runner, pytest.raises(AssertionError):
        rule(stage)


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_bad_address_is_refused_in_one_line(name: str) -> None:
    """Not a scheduler's address at all: `UsageError` with the key, the value and an example."""
    pytest.importorskip(LIBRARIES[name])
    runner = build.build({**config_of(name), "address": "nonsense://x"})
    with pytest.raises(UsageError, match=r"runner\.address must be .*got 'nonsense://x'"), runner:
        raise AssertionError("it was opened")


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_waiting_must_be_positive(name: str) -> None:
    """`runner.wait_seconds=0` says the rule and the value."""
    with pytest.raises(UsageError, match=r"runner\.wait_seconds must be more than 0, got 0"):
        build.build({**config_of(name), "wait_seconds": 0})
