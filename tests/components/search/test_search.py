"""The verb `search` on a real, small problem: what it finds, what it survives, when it stops."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from components.artifacts import DatasetVersion, SearchResult, Trial
from components.errors import StageFailedError, TryAgainError, UsageError
from components.processes import Worker, WorkerBug
from components.search.proposal import decision_of
from components.search.search import search
from components.store import locked
from components.workspace import Workspace
from tests.components.search import standin

pytestmark = pytest.mark.usefixtures("light_workers")
ROOT = Path(__file__).resolve().parents[3]


class Events(list[tuple[str, dict[str, Any]]]):
    """Collects what a verb emits."""

    def __call__(self, event: str, **fields: Any) -> None:
        json.dumps(fields)  # the journal writes events as JSON
        self.append((event, fields))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self if name == event]


def run(
    dataset: DatasetVersion, folder: Path, *, seconds: float | None = None, emit: Events | None = None, seed: int = 0, **settings: Any
) -> SearchResult:
    emit = Events() if emit is None else emit
    work = Workspace(out=folder.parent / "out", scratch=folder, seconds=seconds, emit=emit, seed=seed)
    return search(dataset, standin.POLICY, standin.config(**settings), work)


def decisions(result: SearchResult) -> list[str]:
    return [decision_of(trial.candidate) for trial in result.trials]


def outcome(trial: Trial) -> tuple[Any, ...]:
    """All of a trial but the seconds it took."""
    return trial.number, decision_of(trial.candidate), trial.state, trial.values, trial.fidelity, trial.num_parameters


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ---- what it finds ----


@pytest.mark.parametrize("strategy", [standin.CONFIG["strategy"], standin.TPE], ids=["random", "tpe"])
def test_same_seed_gives_the_same_trials_and_another_seed_others(dataset: DatasetVersion, tmp_path: Path, strategy: dict[str, Any]) -> None:
    """With one worker and no budget, candidates and values are a function of the seed."""
    first, again = (run(dataset, tmp_path / name, strategy=strategy, trials=8) for name in ("a", "b"))
    other = run(dataset, tmp_path / "c", strategy=strategy, trials=8, seed=1)
    assert [outcome(t) for t in first.trials] == [outcome(t) for t in again.trials]
    assert first.best == again.best
    assert not set(decisions(first)) & set(decisions(other))


def test_best_is_the_lowest_error_and_the_record_survives_json(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The best trial has the least validation rmse of all that completed; the result is a plain record."""
    result = run(dataset, tmp_path / "s", trials=8)
    assert result.objective == "rmse"
    assert result.direction == "minimize"
    assert result.best_trial.values["rmse"] == min(t.values["rmse"] for t in result.trials)
    assert SearchResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_two_workers_run_side_by_side(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Two trials are under way at the same time, in two processes, and all of them are distinct."""
    emit = Events()
    result = run(dataset, tmp_path / "s", trials=6, workers=2, evaluator=f"{standin.HERE}.slow", emit=emit)
    names = [event for event, _ in emit if event in ("trial.started", "trial.finished")]
    assert names[:2] == ["trial.started", "trial.started"]
    assert len({row["pid"] for row in standin.starts(tmp_path / "s")}) == 6
    assert len(set(decisions(result))) == 6


def test_progress_is_reported(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Each trial is announced, its epochs are forwarded with its number, and its end tells value, best and time."""
    emit = Events()
    result = run(dataset, tmp_path / "s", trials=4, emit=emit)
    assert [row["number"] for row in emit.named("trial.started")] == [0, 1, 2, 3]
    assert [row["number"] for row in emit.named("trial.epoch")] == [0, 1, 2, 3]
    last = emit.named("trial.finished")[-1]
    assert last["best"] == result.best_trial.values["rmse"]
    assert last["best_number"] == result.best_number
    assert {"state", "value", "seconds", "reason", "architecture", "objective", "finished", "trials"} <= last.keys()
    assert Trial.from_json(last["trial"]) == result.trials[-1]


def test_study_is_an_optuna_study_in_sqlite_with_nothing_enqueued(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Optuna's own tools open the study and see the same values."""
    result = run(dataset, tmp_path / "s", trials=5)
    study = optuna.load_study(study_name=result.study, storage=f"sqlite:///{tmp_path}/s/study.db")
    assert [t.value for t in study.trials] == [t.values["rmse"] for t in result.trials]
    assert study.best_trial.number == result.best_number
    assert all("fixed_params" not in t.system_attrs and t.params for t in study.trials)


def test_nothing_is_left_without_a_scratch_folder(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Called by hand with no more than an output folder, it works and leaves nothing there."""
    result = search(dataset, standin.POLICY, standin.config(trials=2), Workspace(out=tmp_path / "out"))
    assert len(result.trials) == 2
    assert list((tmp_path / "out").iterdir()) == []


def test_space_of_two_points_ends_after_two_trials(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Duplicates are not run: when nothing new is found the search ends by itself."""
    emit = Events()
    result = run(dataset, tmp_path / "s", trials=6, space={"_target_": f"{standin.HERE}.TwoPoints"}, emit=emit)
    assert sorted(t.candidate.architecture["degree"] for t in result.trials) == [1, 5]
    assert emit.named("search.exhausted")


# ---- going on ----


@pytest.mark.parametrize("strategy", [standin.CONFIG["strategy"], standin.TPE], ids=["random", "tpe"])
def test_five_and_five_resumed_are_the_ten_of_one_go(dataset: DatasetVersion, tmp_path: Path, strategy: dict[str, Any]) -> None:
    """A larger trial count continues the study: nothing is repeated, and it ends where one go would have ended."""
    whole = run(dataset, tmp_path / "whole", strategy=strategy, trials=10)
    run(dataset, tmp_path / "s", strategy=strategy, trials=5)
    emit = Events()
    resumed = run(dataset, tmp_path / "s", strategy=strategy, trials=10, emit=emit)
    assert len(set(decisions(resumed))) == 10
    assert [outcome(t) for t in resumed.trials] == [outcome(t) for t in whole.trials]
    assert [row["number"] for row in emit.named("trial.started")] == [5, 6, 7, 8, 9]
    assert emit.named("search.opened")[0]["finished"] == 5


def test_fewer_trials_than_the_study_holds_start_none(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Asking for less gives the first trials and their best, and runs nothing."""
    whole = run(dataset, tmp_path / "s", trials=6)
    emit = Events()
    fewer = run(dataset, tmp_path / "s", trials=3, emit=emit)
    assert [outcome(t) for t in fewer.trials] == [outcome(t) for t in whole.trials[:3]]
    assert emit.named("trial.started") == []


def test_another_question_in_the_same_folder_is_another_study(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Results of one study are never taken for those of another."""
    one = run(dataset, tmp_path / "s", trials=3)
    other = run(dataset, tmp_path / "s", trials=3, metrics={"objective": "mae"})
    assert one.study != other.study
    assert other.objective == "mae"
    assert {row["number"] for row in [t.to_json() for t in other.trials]} == {0, 1, 2}


KILLED_PARENT = """
import sys, os, json, time
from pathlib import Path
from components import processes
from tests.components.search import standin
processes.PRELOAD = ["components.lifeline", "numpy", "optuna", "components.search.evaluation", standin.HERE]
from components.search.search import search
from components.workspace import Workspace
from components.artifacts import DatasetVersion
folder = Path(sys.argv[1])
def emit(event, **fields):
    print(event, fields.get("number", ""), flush=True)
config = standin.config(trials=6, workers=int(sys.argv[2]), evaluator=f"{standin.HERE}.slow", strategy=standin.TPE)
search(standin.curve(folder / "data"), standin.POLICY, config, Workspace(out=folder / "out", scratch=folder / "s", emit=emit))
"""


KILLS = [("trial.started 0", 1), ("trial.epoch 2", 1), ("trial.started 4", 2)]


SLOW = {"trials": 6, "workers": 1, "evaluator": f"{standin.HERE}.slow", "strategy": standin.TPE}


@pytest.fixture(scope="module")
def undisturbed(light_workers: None, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """What SLOW comes to when nobody is killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return [outcome(t) for t in run(standin.curve(folder / "data"), folder / "s", **SLOW).trials]


@pytest.mark.parametrize(("event", "workers"), KILLS)
def test_killed_parent_leaves_nobody_behind_and_loses_no_finished_trial(
    tmp_path: Path, event: str, workers: int, undisturbed: list[tuple[Any, ...]]
) -> None:
    """SIGKILL to the parent: within 5 s no child is left; the same call finishes, and with one worker as if nothing had been."""
    dataset = standin.curve(tmp_path / "data")
    command = [sys.executable, "-c", KILLED_PARENT, str(tmp_path), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as parent:
        assert parent.stdout is not None
        assert any(line.strip() == event for line in parent.stdout), "the event never came"
        children = descendants(parent.pid)
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 5
    while any(alive(pid) for pid in children) and time.monotonic() < until:
        time.sleep(0.05)
    assert children
    assert not [pid for pid in children if alive(pid)]
    kept = {int(path.parent.name): path.stat().st_mtime_ns for path in (tmp_path / "s").glob("trials/*/result.json")}
    resumed = run(dataset, tmp_path / "s", **SLOW)
    assert [t.state for t in resumed.trials] == ["complete"] * 6
    assert {n: (tmp_path / f"s/trials/{n}/result.json").stat().st_mtime_ns for n in kept} == kept
    if workers == 1:
        assert [outcome(t) for t in resumed.trials] == undisturbed


def descendants(pid: int) -> list[int]:
    rows = [(int(p.name), p / "stat") for p in Path("/proc").iterdir() if p.name.isdigit()]
    parents = {}
    for child, stat in rows:
        try:
            parents[child] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, waiting = [], [pid]
    while waiting:
        above = waiting.pop()
        below = [child for child, parent in parents.items() if parent == above]
        found += below
        waiting += below
    return found


@pytest.mark.parametrize("damage", ["torn", "flipped", "missing"])
def test_damaged_result_is_computed_again(dataset: DatasetVersion, tmp_path: Path, damage: str) -> None:
    """A result file that is torn, altered or gone costs its own trial only, which comes out the same."""
    first = run(dataset, tmp_path / "s", trials=4)
    file = tmp_path / "s/trials/2/result.json"
    text = file.read_text()
    if damage == "torn":
        file.write_text(text[: len(text) // 2])
    elif damage == "flipped":
        file.write_text(text.replace('"rmse": 0.', '"rmse": 1.', 1))
        assert file.read_text() != text
    else:
        shutil.rmtree(file.parent)
    emit = Events()
    again = run(dataset, tmp_path / "s", trials=4, emit=emit)
    assert [outcome(t) for t in again.trials] == [outcome(t) for t in first.trials]
    assert [row["number"] for row in emit.named("trial.started")] == [2]


def test_damaged_database_is_set_aside_and_the_results_are_taken_up_again(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The study is made anew: the same suggestions are made, and what they gave is found in the result files."""
    first = run(dataset, tmp_path / "s", trials=5)
    with (tmp_path / "s/study.db").open("r+b") as file:
        file.write(b"nothing that SQLite would write ..")
    emit = Events()
    again = run(dataset, tmp_path / "s", trials=5, emit=emit)
    assert [outcome(t) for t in again.trials] == [outcome(t) for t in first.trials]
    assert emit.named("trial.started") == []
    assert list((tmp_path / "s").glob("study.db.damaged-*"))


def test_locked_database_is_one_line(dataset: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that holds the database for long: `TryAgainError` (75) that names the file, nothing half-written."""
    run(dataset, tmp_path / "s", trials=1)
    monkeypatch.setattr("components.search.study.LOCK_SECONDS", 0.2)
    other = sqlite3.connect(tmp_path / "s/study.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(TryAgainError, match=r"study\.db cannot be used now \(database is locked\)"):
            run(dataset, tmp_path / "s", trials=2)
    finally:
        other.close()
    assert len(run(dataset, tmp_path / "s", trials=2).trials) == 2


def test_second_parent_waits_and_says_so(dataset: DatasetVersion, tmp_path: Path) -> None:
    """One writer a study: the second one waits for the first."""
    emit = Events()
    with locked(tmp_path / "s" / "study.lock"):
        thread = threading.Thread(target=run, args=(dataset, tmp_path / "s"), kwargs={"trials": 1, "emit": emit})
        thread.start()
        deadline = time.monotonic() + 5
        while not emit.named("search.waiting") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [name for name, _ in emit] == ["search.waiting"]
    thread.join(20)
    assert emit.named("trial.finished")


# ---- failing ----


def test_each_way_to_fail_is_told_apart_and_none_ends_the_study(
    dataset: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN, memory, a bug, a kill, a crash, a time-out and the evaluator's own verdict; a NaN never wins."""
    monkeypatch.setattr("components.search.search.SLACK_SECONDS", 0.5)
    emit = Events()
    settings = {"trials": 9, "evaluator": f"{standin.HERE}.ill_fated", "trial_seconds": 1, "workers": 2}
    result = run(dataset, tmp_path / "s", emit=emit, **settings)
    found = {t.number: (t.state, t.cause) for t in result.trials}
    assert found == {
        0: ("failed", "nan"), 1: ("failed", "oom"), 2: ("failed", "bug"), 3: ("killed", "killed"), 4: ("failed", "bug"),
        5: ("failed", "timeout"), 6: ("failed", "oom"), 7: ("complete", ""), 8: ("complete", ""),
    }  # fmt: skip
    reasons = {t.number: t.reason for t in result.trials}
    assert reasons[0] == "validation rmse is nan"
    assert reasons[1] == "out of memory: no room for 9 GiB"
    assert reasons[2] == "KeyError: 'our own mistake'"
    assert "SIGKILL" in reasons[3]
    assert "SIGABRT" in reasons[4]
    assert "our own mistake" in (tmp_path / "s/trials/2/traceback.txt").read_text()
    assert result.best_number in (7, 8)
    assert len(emit.named("trial.failed")) == 7
    states = [t.state.name for t in optuna.load_study(study_name=result.study, storage=f"sqlite:///{tmp_path}/s/study.db").trials]
    assert states == ["FAIL"] * 7 + ["COMPLETE"] * 2
    again = Events()
    assert run(dataset, tmp_path / "s", emit=again, **settings) == result
    assert again.named("trial.started") == []


def test_trial_whose_process_was_killed_once_is_run_again_as_if_nothing_had_been(dataset: DatasetVersion, tmp_path: Path) -> None:
    """A kill from outside says nothing about the candidate: the trials are those of an undisturbed search."""
    emit = Events()
    disturbed = run(dataset, tmp_path / "s", strategy=standin.TPE, trials=6, evaluator=f"{standin.HERE}.killed_once", emit=emit)
    whole = run(dataset, tmp_path / "whole", strategy=standin.TPE, trials=6)
    assert [outcome(t) for t in disturbed.trials] == [outcome(t) for t in whole.trials]
    assert [row["number"] for row in emit.named("trial.retried")] == [2]


def test_checkpoints_of_a_killed_trial_are_there_when_it_runs_again(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The work folder survives a kill of its own trial, and is empty for any other candidate; finished trials free it."""
    settings = {"trials": 3, "evaluator": f"{standin.HERE}.counts_on_its_folder"}
    result = run(dataset, tmp_path / "s", **settings)
    assert [t.state for t in result.trials] == ["complete"] * 3
    assert [(row["number"], row["resumed"]) for row in standin.starts(tmp_path / "s")] == [(0, False), (1, False), (1, True), (2, False)]
    assert not list((tmp_path / "s").glob("trials/*/work"))
    stale = tmp_path / "s/trials/0/work/checkpoint.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    assert [t.state for t in run(dataset, tmp_path / "s", seed=1, **settings).trials] == ["complete"] * 3


def test_result_left_by_a_process_that_died_before_it_answered_counts(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The file is written first, so nothing is run twice."""
    result = run(dataset, tmp_path / "s", trials=3, evaluator=f"{standin.HERE}.killed_after_the_result")
    assert [t.state for t in result.trials] == ["complete"] * 3
    assert [row["number"] for row in standin.starts(tmp_path / "s")] == [0, 1, 2]


def test_killed_asker_is_replaced_and_asked_again(dataset: DatasetVersion, tmp_path: Path) -> None:
    """A kill of the process that makes suggestions changes none of them."""
    whole = run(dataset, tmp_path / "whole", trials=3)
    space = {"_target_": f"{standin.HERE}.SuicidalOnce", "mark": str(tmp_path / "mark")}
    disturbed = run(dataset, tmp_path / "s", trials=3, space=space)
    assert (tmp_path / "mark").exists()
    assert [t.candidate.architecture for t in disturbed.trials] == [t.candidate.architecture for t in whole.trials]


def test_suggestions_that_always_kill_their_process_fail_the_stage(dataset: DatasetVersion, tmp_path: Path) -> None:
    """It is not asked for ever."""
    with pytest.raises(StageFailedError, match=r"the process that suggests candidates died 3 times .*SIGKILL"):
        run(dataset, tmp_path / "s", trials=3, space={"_target_": f"{standin.HERE}.SuicidalOnce", "mark": None})


def test_study_that_is_finished_starts_no_process(dataset: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every result is there, the answer needs no worker."""
    first = run(dataset, tmp_path / "s", trials=3)
    monkeypatch.setattr("components.search.asker.Worker", None)
    monkeypatch.setattr("components.search.calls.Worker", None)
    assert run(dataset, tmp_path / "s", trials=3) == first


def test_all_trials_failing_ends_the_stage_with_the_reasons(dataset: DatasetVersion, tmp_path: Path) -> None:
    """`StageFailedError` (70) that counts causes; the same bug over and over is not tried to the end."""
    with pytest.raises(StageFailedError, match=r"none of 5 trials completed: 5 × bug \(ZeroDivisionError: division by zero\)") as caught:
        run(dataset, tmp_path / "s", trials=40, evaluator=f"{standin.HERE}.always_a_bug")
    assert caught.value.exit_code == 70


def test_users_mistake_stops_the_search_at_once(dataset: DatasetVersion, tmp_path: Path) -> None:
    """A setting that no trial can be run with is a usage error, not forty failed trials."""
    with pytest.raises(UsageError, match=r"training\.ema must lie in 0\.\.1, got 7"):
        run(dataset, tmp_path / "s", trials=40, evaluator=f"{standin.HERE}.never_fits")


@pytest.mark.parametrize("rows", [None, 100])
def test_full_disk_stops_the_search_and_is_held_against_no_candidate(dataset: DatasetVersion, tmp_path: Path, rows: int | None) -> None:
    """`TryAgainError` (75) in one line; no trial is recorded as failed."""
    with pytest.raises(TryAgainError, match=r"no space left to write below .*File too large.*run the same command again"):
        run(dataset, tmp_path / "s", trials=3, rows=rows, evaluator=f"{standin.HERE}.fills_the_disk")
    assert not list((tmp_path / "s").glob("trials/*/result.json"))


def test_database_that_cannot_grow_is_one_line(dataset: DatasetVersion, tmp_path: Path) -> None:
    """A full disk under the study: `TryAgainError` (75), and with room again the search runs."""
    Worker().close()  # the forkserver must not start under the limit
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        with pytest.raises(TryAgainError, match=r"study\.db cannot be used now \(.*\); run the same command again"):
            run(dataset, tmp_path / "s", trials=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(run(dataset, tmp_path / "s", trials=1).trials) == 1


def test_bug_in_a_space_is_reported_as_ours(dataset: DatasetVersion, tmp_path: Path) -> None:
    """A space that raises does so with its own traceback, not as a usage error."""
    with pytest.raises(WorkerBug, match="KeyError"):
        run(dataset, tmp_path / "s", trials=2, space={"_target_": f"{standin.HERE}.BrokenSpace"})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"trials": 0}, r"search\.trials must be a whole number of at least 1, got 0"),
    ({"workers": 0}, r"search\.workers must be auto or a whole number of at least 1, got 0"),
    ({"workers": "two"}, r"search\.workers must be auto or a whole number of at least 1, got 'two'"),
    ({"trial_seconds": "soon"}, r"a duration is a number with s, m, h or d, such as 90s or 1h30m, got 'soon'"),
    ({"metrics": {"objective": "accuracy"}}, r"metrics\.objective=accuracy judges classification, this dataset's task is regression"),
    ({"space": {"_target_": f"{standin.HERE}.ForPictures"}}, r"space=standin is for image data, dataset 'curve' is table; use space=mlp"),
    ({"strategy": {**standin.TPE, "startup": 0}}, r"strategy\.startup must be a whole number of at least 1, got 0"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_impossible_settings_are_refused_in_one_line(
    dataset: DatasetVersion, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    """The key, the rule, the value."""
    with pytest.raises(UsageError, match=message):
        run(dataset, tmp_path / "s", **settings)


# ---- time ----


def test_time_limit_is_kept_and_shared_out(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Two workers, trials of a second: the search ends in its five seconds, with every started trial told or killed."""
    started = time.monotonic()
    result = run(dataset, tmp_path / "s", seconds=5, trials=500, workers=2, evaluator=f"{standin.HERE}.takes_a_second")
    assert time.monotonic() - started < 20  # a guard against hanging, not a figure
    complete = [t for t in result.trials if t.state == "complete"]
    assert 3 <= len(complete) <= 10
    assert {(t.state, t.cause) for t in result.trials} <= {("complete", ""), ("killed", "timeout")}
    limits = [row["limit"] for row in standin.starts(tmp_path / "s")]
    assert all(1.0 <= limit <= 5.0 for limit in limits)


def test_trials_that_do_not_end_are_killed_with_the_search_and_run_again_with_more_time(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The best so far is returned in time; the killed trials keep their numbers and are taken up by a later call."""
    started = time.monotonic()
    settings = {"trials": 3, "workers": 2, "evaluator": f"{standin.HERE}.never_ends"}
    result = run(dataset, tmp_path / "s", seconds=3, **settings)
    assert time.monotonic() - started < 20  # a guard against hanging, not a figure
    assert [(t.state, t.cause) for t in result.trials] == [("complete", ""), ("killed", "timeout"), ("killed", "timeout")]
    assert "used up" in result.trials[1].reason
    assert result.best_number == 0
    again = run(dataset, tmp_path / "s", **settings)
    assert [t.state for t in again.trials] == ["complete"] * 3
    assert decisions(again) == decisions(result)
    assert sorted(row["number"] for row in standin.starts(tmp_path / "s")) == [0, 1, 1, 2, 2]


def test_no_time_at_all_still_gives_one_trial(dataset: DatasetVersion, tmp_path: Path) -> None:
    """There is always something to deploy, if one trial can be completed in a short grace; that the time is short is said."""
    events = Events()
    result = run(dataset, tmp_path / "s", seconds=0.01, trials=50, emit=events)
    assert [t.state for t in result.trials] == ["complete"]
    assert [told["seconds"] for told in events.named("search.short")] == [0.0]


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Whatever a test does, its workers are gone afterwards (the first one starts the forkserver and a resource tracker)."""
    before = set(descendants(os.getpid()))
    yield
    until = time.monotonic() + 3
    while len(new := {pid for pid in descendants(os.getpid()) if alive(pid)} - before) > 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(new) <= 2, new
