"""Killed is normal: SIGKILL at instants taken from the journal, then the same command finishes as if nothing had happened.

With `experiment=ci` the promoted bytes are equal to those of a run that nobody disturbed: every stage's key holds the
identities of its inputs, so equal keys of the last stage mean equal weights, graphs, figures and versions before it.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.journal import read
from flows.table import STAGES
from tests.flows.conftest import SMALL, Athanor

Finished = tuple[Athanor, dict[str, Any]]
Event = dict[str, Any]
PATIENCE_SECONDS = 600.0


def events(home: Path) -> list[Event]:
    """All events of all runs in a state folder, oldest first."""
    return [row for path in sorted(home.glob("runs/*/journal.jsonl")) for row in read(path)]


def wait_for(home: Path, happened: Callable[[Event], bool], since: int, process: Any) -> bool:
    """Whether the journal told of it before the process ended."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if any(happened(row) for row in events(home)[since:]):
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    raise AssertionError("the journal told of nothing in time")


def processes_of(home: Path) -> set[int]:
    """Processes that have this state folder in their environment, except those that have ended."""
    marker = f"ATHANOR_HOME={home}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid() and marker in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def nothing_is_left(home: Path, seconds: float = 5.0) -> bool:
    """Whether all processes of the state folder are gone within `seconds`."""
    until = time.monotonic() + seconds
    while processes_of(home) and time.monotonic() < until:
        time.sleep(0.05)
    return not processes_of(home)


def kill(pids: set[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def run_and_kill(athanor: Athanor, happened: Callable[[Event], bool], whom: str, words: tuple[str, ...] = SMALL) -> bool:
    """Starts the run, kills `parent` or `all` when it happened; False when the run had ended before."""
    since = len(events(athanor.home))
    process = athanor.start("run", *words, "--json", start_new_session=True)
    hit = wait_for(athanor.home, happened, since, process)
    kill({process.pid} if whom == "parent" else processes_of(athanor.home) | {process.pid})
    process.communicate()
    assert nothing_is_left(athanor.home), f"left behind: {processes_of(athanor.home)}"
    return hit


def last_keys(home: Path) -> dict[str, str]:
    """Key of each stage's result in the newest run."""
    newest = sorted(home.glob("runs/*/journal.jsonl"))[-1]
    return {row["stage"]: row["key"] for row in read(newest) if row["event"] in ("stage.finished", "stage.cached")}


def assert_as_if_undisturbed(athanor: Athanor, reference: Athanor) -> None:
    """Equal keys, one version, one run folder, no finished trial run again."""
    assert last_keys(athanor.home) == last_keys(reference.home)
    with sqlite3.connect(athanor.home / "mlflow.db") as database:
        assert database.execute("select version from model_versions").fetchall() == [(1,)]
        aliases = database.execute("select alias, version from registered_model_aliases").fetchall()
    assert aliases == [("champion", 1)]
    assert len(list(athanor.home.glob("runs/*"))) == 1
    finished: set[int] = set()
    for row in events(athanor.home):
        if row["event"] == "trial.started":
            assert row["number"] not in finished, f"trial {row['number']} had finished and was run again"
        if row["event"] == "trial.finished":
            finished.add(row["number"])
    assert not list((athanor.home / "artifacts" / ".tmp").iterdir())


def at(event: str, **fields: Any) -> Callable[[Event], bool]:
    return lambda row: row["event"] == event and all(row.get(name) == value for name, value in fields.items())


def test_a_run_killed_in_the_search_and_again_while_training_ends_as_if_undisturbed(fresh: Athanor, finished: Finished) -> None:
    """First the parent alone after a finished trial, then everything in the middle of the training."""
    assert run_and_kill(fresh, at("trial.started", number=1), "parent")
    assert next(row for row in fresh.json("status")["runs"])["state"] == "killed"
    assert run_and_kill(fresh, at("epoch", stage="train"), "all")
    document = fresh.json("run", *SMALL)
    assert document["promoted"]
    assert [row["event"] for row in events(fresh.home)].count("run.started") == 3
    assert_as_if_undisturbed(fresh, finished[0])
    assert nothing_is_left(fresh.home)


@pytest.mark.slow
def test_ctrl_c_says_so_and_the_same_command_goes_on(fresh: Athanor) -> None:
    """Exit code 130, one line, state `interrupted`; killing it is not needed to stop it."""
    process = fresh.start("run", *SMALL, "--json", start_new_session=True)
    assert wait_for(fresh.home, at("stage.finished", stage="version"), 0, process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "goes on where this stopped" in err
    assert out == ""
    assert fresh.json("status")["runs"][0]["state"] == "interrupted"
    assert nothing_is_left(fresh.home)
    assert fresh.json("plan", *SMALL)["stages"]["version"]["state"] == "cached"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told", "code"),
    [(["trainer=cpu"], signal.SIGTERM, 143), (["trainer=cpu"], signal.SIGINT, 130), (["trainer=ddp"], signal.SIGTERM, 143)],
)
def test_the_stage_door_stops_like_a_run(copy_of_finished: Callable[[], Athanor], words: list[str], told: int, code: int) -> None:
    """The training is in the door's own process, or in its group: one line, its exit code, and SIGTERM saves a checkpoint."""
    athanor = copy_of_finished()
    for stage in ("version", "augment", "search"):
        athanor("stage", stage, *SMALL)
    process = athanor.start("stage", "train", *SMALL, "training.epochs=100000", *words, start_new_session=True)
    assert wait_for(athanor.home, at("epoch", stage="train", epoch=3), 0, process)
    now = time.time()
    process.send_signal(told)
    _, err = process.communicate(timeout=30)
    assert time.time() - now < 10, err
    assert process.returncode == code, err
    assert err.strip().endswith(f"{'stopped' if code == 143 else 'interrupted'}; the same command goes on where this stopped"), err
    if code == 143:
        assert max(path.stat().st_mtime for path in athanor.home.rglob("last.ckpt")) >= now
    assert nothing_is_left(athanor.home)


@pytest.mark.slow
def test_sigterm_saves_what_is_being_trained_and_the_same_command_goes_on(fresh: Athanor) -> None:
    """Exit code 143 within 10 s to one signal to the parent alone; the training's checkpoint is from that moment."""
    long = ["experiment=ci", "search.trials=2", "search.epochs=2000", "budget=120s"]
    process = fresh.start("run", *long, start_new_session=True)
    assert wait_for(fresh.home, at("trial.epoch"), 0, process)
    told = time.time()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert time.time() - told < 10, err
    assert process.returncode == 143, err
    assert err.strip().endswith("stopped; the same command goes on where this stopped")
    assert "Traceback" not in err
    checkpoints = list(fresh.home.rglob("last.ckpt"))
    assert checkpoints
    assert max(path.stat().st_mtime for path in checkpoints) >= told
    assert nothing_is_left(fresh.home)
    assert fresh.json("status")["runs"][0]["state"] == "interrupted"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("whom", ["all", "parent"])
def test_a_run_killed_in_every_stage_and_every_publishing_ends_as_if_undisturbed(fresh: Athanor, finished: Finished, whom: str) -> None:
    """One run, killed at the start of each stage and again at each publishing rename, stage by stage."""
    hits = []
    for stage in STAGES:
        for event in ("stage.started", "stage.publishing"):
            if run_and_kill(fresh, at(event, stage=stage), whom):
                hits.append((stage, event))
    assert {stage for stage, _ in hits} == set(STAGES)
    document = fresh.json("run", *SMALL)
    assert document["champion"] == 1
    assert_as_if_undisturbed(fresh, finished[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_trial_worker_costs_its_trial_a_retry_and_nothing_else(fresh: Athanor, finished: Finished) -> None:
    """SIGKILL to one worker while trial 1 trains: the run goes on by itself to the same result."""
    process = fresh.start("run", *SMALL, "--json", start_new_session=True)
    assert wait_for(fresh.home, at("trial.started", number=1), 0, process)
    time.sleep(0.3)
    trial = [pid for pid in processes_of(fresh.home) if _is_trial(pid, fresh.home)]
    assert trial
    kill({max(trial)})
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert json.loads(out)["promoted"]
    assert last_keys(fresh.home) == last_keys(finished[0].home)


def _is_trial(pid: int, home: Path) -> bool:
    """A forked worker has the forkserver's command line and is not one that the journal names."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        above = Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:
        return False
    named = {row["pid"] for row in events(home) if row["event"] == "worker.started"}
    return b"forkserver" in command and b"forkserver" in above and pid not in named
