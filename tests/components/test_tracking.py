"""Runs in MLflow are a mirror of the journal: complete, never in the way, and caught up after MLflow was away."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components import tracking
from components.journal import Journal
from components.registry import connection
from components.registry.connection import connect, prepare_database
from components.tracking import Mirror, Tracker, catch_up

PARAMS = {"space": {"depth": 3, "_target_": "x"}, "seed": 0, "model": None}


@pytest.fixture
def journal(home: Path) -> Journal:
    """The journal of a run that has begun."""
    journal = Journal(home / "runs" / "r1" / "journal.jsonl")
    journal.write("run.started", run="r1", model="digits", budget=80, overrides=["seed=0"])
    return journal


def write_trial(journal: Journal, number: int, *, value: float = 0.9, round_number: int = 1) -> None:
    candidate = {"architecture": {"depth": 2, "stages": [{"width": 8}]}, "hyperparameters": {"learning_rate": 0.01}}
    history = [{"epoch": n, "train_loss": 1 / (n + 1), "accuracy": value} for n in range(3)]
    trial = {"candidate": candidate, "values": {"accuracy": value, "log_loss": 0.3}, "history": history}
    journal.write("trial.started", stage="search", number=number, round=round_number)
    journal.write(
        "trial.finished", stage="search", number=number, round=round_number, state="complete", objective="accuracy", value=value,
        best=value, seconds=1.5, num_parameters=650, trial=trial,
    )  # fmt: skip


def write_failure(journal: Journal, number: int) -> None:
    journal.write("trial.started", stage="search", number=number)
    journal.write(
        "trial.failed",
        stage="search",
        number=number,
        state="failed",
        cause="nan",
        reason="the loss was not a number",
        seconds=0.2,
        trial={},
    )


def end(journal: Journal) -> None:
    journal.write("epoch", stage="train", epoch=1, epochs=2, value=0.8, seconds=0.1)
    journal.write("epoch", stage="train", epoch=2, epochs=2, value=0.9, seconds=0.1)
    journal.write("stage.finished", stage="train", key="0", seconds=3.25)
    journal.write("decided", stage="promote", version=4, words="version 4 is champion")
    (journal.path.parent / "report.html").write_text("<h1>report</h1>")
    journal.write("run.finished", why="", seconds=9.0)


def tracked(journal: Journal) -> Tracker:
    tracker = Tracker("r1", model="digits", params=PARAMS)
    journal.listeners += (tracker,)
    return tracker


def runs() -> dict[str, Any]:
    """All runs in MLflow by name."""
    client = connect()
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def test_a_run_and_its_trials(journal: Journal) -> None:
    """One parent run with the configuration, stages and curves; one nested run per trial with its candidate, epochs and state."""
    tracker = tracked(journal)
    write_trial(journal, 0)
    write_failure(journal, 1)
    end(journal)
    assert tracker.close(30)
    found = runs()
    parent, best, failed = found["r1"], found["trial 0"], found["trial 1"]
    assert sorted(found) == ["r1", "trial 0", "trial 1"]
    assert parent.data.params == {"space.depth": "3", "space._target_": "x", "seed": "0", "model": "null"}
    assert (parent.info.status, best.info.status, failed.info.status) == ("FINISHED", "FINISHED", "FAILED")
    assert parent.data.tags["athanor.decision"] == "version 4 is champion"
    assert parent.data.metrics["train.seconds"] == 3.25
    assert best.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert best.data.params["arch.depth"] == "2"
    assert best.data.params["hp.learning_rate"] == "0.01"
    assert best.data.metrics["accuracy"] == 0.9
    assert failed.data.tags["athanor.cause"] == "nan"
    client = connect()
    assert [m.value for m in client.get_metric_history(parent.info.run_id, "train.value")] == [0.8, 0.9]
    assert [m.step for m in client.get_metric_history(best.info.run_id, "epoch.train_loss")] == [0, 1, 2]
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["report.html"]


def test_a_later_rounds_trials_have_runs_of_their_own(journal: Journal) -> None:
    """Each round's study numbers its trials from 0; also after a resume, which goes through the first round again."""
    for _ in range(2):
        tracker = tracked(journal)
        write_trial(journal, 0, value=0.7)
        write_trial(journal, 0, value=0.9, round_number=2)
        assert tracker.close(30)
        journal.listeners = ()
    found = runs()
    assert sorted(found) == ["r1", "round 2 trial 0", "trial 0"]
    assert [found[name].data.metrics["accuracy"] for name in ("trial 0", "round 2 trial 0")] == [0.7, 0.9]
    history = connect().get_metric_history(found["r1"].info.run_id, "search.value")
    assert {(point.step, point.value) for point in history} == {(0, 0.7), (1, 0.9)}


def test_listening_never_waits(journal: Journal) -> None:
    """Ten thousand events are taken in the time of a few disk writes, whatever MLflow does."""
    tracker = Tracker("r1", model="digits", params=PARAMS)
    event = {"time": time.time(), "event": "worker.started"}
    started = time.perf_counter()
    for _ in range(10_000):
        tracker(event)
    assert time.perf_counter() - started < 10  # a guard against hanging, not a figure
    tracker.close(30)


def test_resumed_run_is_one_run(journal: Journal) -> None:
    """A continued run goes on in the same MLflow run; what was sent twice is there once."""
    first = tracked(journal)
    write_trial(journal, 0)
    assert first.close(30)
    again = Journal(journal.path)
    resumed = tracked(again)
    write_trial(again, 1)
    end(again)
    assert resumed.close(30)
    found = runs()
    assert sorted(found) == ["r1", "trial 0", "trial 1"]
    assert len(connect().get_metric_history(found["trial 0"].info.run_id, "accuracy")) == 1


def test_changed_setting_of_a_continued_run(journal: Journal) -> None:
    """A parameter that MLflow does not let change is shown as a tag."""
    assert tracked(journal).close(30)
    mirror = Mirror("r1", model="digits", params={**PARAMS, "seed": 7}, folder=journal.path.parent)
    mirror.apply(journal.events())
    parent = runs()["r1"]
    assert parent.data.params["seed"] == "0"
    assert parent.data.tags["athanor.now.seed"] == "7"


@contextlib.contextmanager
def mlflow_away(home: Path) -> Iterator[None]:
    """Its database held by another process."""
    prepare_database()
    with contextlib.closing(sqlite3.connect(home / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_mlflow_away_delays_nothing_and_loses_nothing(journal: Journal, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends on time, says what is missing, and the next tracker of the state folder sends it."""
    monkeypatch.setattr(connection.await_database, "__defaults__", (0.2,))
    with mlflow_away(home):
        tracker = tracked(journal)
        write_trial(journal, 0)
        end(journal)
        started = time.perf_counter()
        assert not tracker.close(1.0)
        assert time.perf_counter() - started < 10  # a guard against hanging, not a figure
        assert list((home / "untracked").glob("*.json"))
    tracker._thread.join(10)
    assert catch_up() == ["r1"]
    found = runs()
    assert found["r1"].info.status == "FINISHED"
    assert found["trial 0"].data.metrics["accuracy"] == 0.9
    assert catch_up() == []
    assert not list((home / "untracked").glob("*.json"))


def test_another_runs_events_are_caught_up_by_the_next(journal: Journal, home: Path) -> None:
    """A tracker sends what an earlier run left behind, without being asked."""
    note = tracking._Note(home / "untracked" / "r1.json", {"run": "r1", "model": "digits", "params": PARAMS, "journal": str(journal.path)})
    note.save(0)
    write_trial(journal, 0)
    other = Journal(home / "runs" / "r2" / "journal.jsonl")
    other.write("run.started", run="r2", model="digits")
    tracker = Tracker("r2", model="digits", params=PARAMS)
    until = time.monotonic() + 30
    while note.path.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert tracker.close(30)
    assert sorted(runs()) == ["r1", "r2", "trial 0"]


def test_an_event_that_mlflow_refuses_is_passed_over(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """It is named in the log, and the events around it arrive."""
    tracker = tracked(journal)
    journal.write("trial.finished", stage="search", number="not a number", state="complete")
    write_trial(journal, 0)
    assert tracker.close(30)
    assert runs()["trial 0"].info.status == "FINISHED"
    assert "MLflow refuses the event trial.finished of run r1" in caplog.text


def test_names_that_mlflow_does_not_take(journal: Journal) -> None:
    """Odd keys of a configuration are cleaned instead of losing the run's parameters."""
    tracker = Tracker("r1", model="digits", params={"columns": {"what?": 1, "long": "x" * 9000}})
    assert tracker.close(30)
    params = runs()["r1"].data.params
    assert params["columns.what_"] == "1"
    assert len(params["columns.long"]) == 6000
