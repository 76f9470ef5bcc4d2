"""What a person sees of a search while it works: heard from the journal of real searches that go well, badly and in rounds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from components.artifacts import Candidate, DatasetVersion, SearchResult, Trial
from components.journal import Event, Journal
from components.search.search import search
from components.workspace import Workspace
from flows import screen
from tests.components.search import standin
from tests.components.search.conftest import light_workers

__all__ = ["light_workers"]
ERASE_LINE = "\x1b[2K"
pytestmark = pytest.mark.usefixtures("light_workers")


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetVersion:
    return standin.curve(tmp_path / "data")


class Unlucky:
    """An evaluator that fails its first three trials in a way of their own and fits the others."""

    offers: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    keeps_weights = False

    def evaluate(self, task: Any, scratch: Path, *, emit: Any) -> Trial:
        if task.number == 1:
            raise MemoryError("no room for 9 GiB")
        if task.number == 2:
            raise KeyError("our own mistake")
        trial = standin.fit_curve(task.dataset, task.policy, task.candidate, task.config, task.number, scratch, emit=emit)
        return trial.replace(values={**trial.values, "rmse": float("nan")}) if task.number == 0 else trial


class Watcher:
    """Sits before a live view of 100 columns and keeps what it shows after every event."""

    def __init__(self) -> None:
        self.printed = io.StringIO()
        self.live = screen.Live(Console(file=self.printed, force_terminal=True, width=100, height=40, color_system=None, highlight=False))
        self.frames: list[str] = []

    def __call__(self, row: Event) -> None:
        self.live(row)
        frame = io.StringIO()
        Console(file=frame, width=100, height=40).print(self.live.picture())
        self.frames.append(frame.getvalue())


def watched(dataset: DatasetVersion, folder: Path, **settings: Any) -> tuple[SearchResult, Watcher, list[str]]:
    """A real search: its result, who watched the live view, and the lines of a log."""
    watcher, log = Watcher(), screen.Progress()
    lines: list[str] = []
    journal = Journal(folder / "journal.jsonl", (watcher, lambda row: lines.append(log.hear(row) or "")))
    journal.write("run.started", run="r", model="curve", budget=90.0)
    journal.write("stage.started", stage="search", why=["never ran for this model"])
    work = Workspace(out=folder / "out", scratch=folder / "study", emit=journal.write)
    result = search(dataset, standin.POLICY, standin.config(**settings), work)
    journal.write("run.finished")
    return result, watcher, [line for line in lines if line]


def test_a_search_that_goes_wrong_says_so_while_it_runs(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Trials at work with their state, how many are done and failed, the best so far, time left, and why the last one failed.

    The region is never wider than the window, and nothing of it stays after the run."""
    result, watcher, lines = watched(dataset, tmp_path, trials=5, workers=2, evaluator={"_target_": f"{__name__}.Unlucky"})
    failed = [trial for trial in result.trials if trial.state == "failed"]
    assert {trial.cause for trial in failed} == {"nan", "oom", "bug"}
    for trial in failed:
        assert sum(trial.reason in line for line in lines) == 1, trial.reason
        told = f"last failure: trial {trial.number}: {trial.reason}"
        assert any(told in frame for frame in watcher.frames), told
    last = watcher.frames[-2]
    assert f"5 of 5 trials, 3 failed · best rmse {result.best_trial.values['rmse']:.4f} (trial {result.best_number})" in last
    assert " s left" in last
    at_work = [line for frame in watcher.frames for line in frame.splitlines() if line.startswith("  trial ")]
    assert any("kind=" in line for line in at_work)
    assert {line.split()[1] for line in at_work} == {str(number) for number in range(5)}
    assert max(len(line) for frame in watcher.frames for line in frame.splitlines()) <= 100
    assert not watcher.live.region.is_started
    assert watcher.printed.getvalue().rstrip().endswith(ERASE_LINE)


def test_a_trial_that_rests_is_neither_done_nor_at_work(dataset: DatasetVersion, tmp_path: Path) -> None:
    """With a scheduler: resting trials are counted, those that are never carried on say so, with the epochs they had."""
    settings = {"trials": 7, "workers": 1, "evaluator": {"_target_": f"{standin.HERE}.Descending"}, "epochs": 9}
    scheduler = {"_target_": "components.search.scheduler.asha.ASHA"}
    result, watcher, lines = watched(dataset, tmp_path, scheduler=scheduler, **settings)
    pruned = [trial for trial in result.trials if trial.state == "pruned"]
    assert pruned
    assert any(" resting · best rmse" in frame for frame in watcher.frames)
    assert any("rests after epoch 1" in line or "rests after epoch 3" in line for line in lines)


def test_without_a_budget_the_time_left_is_estimated() -> None:
    """From the trials that have ended since the search was opened, and the time that they took together."""
    progress = screen.Progress()
    progress.hear({"event": "stage.started", "stage": "search", "why": []})
    progress.hear({"event": "search.opened", "trials": 10, "finished": 2, "interrupted": 0, "objective": "accuracy"})
    progress.hear({"event": "trial.started", "number": 2})
    assert progress.left() == ""
    progress.opened -= 6.0
    ended = {"event": "trial.finished", "state": "complete", "value": 0.9, "best": 0.9, "seconds": 4.0, "trials": 10}
    progress.hear({**ended, "number": 2, "finished": 3})
    progress.hear({**ended, "number": 3, "finished": 4})
    assert progress.left() == "about 18 s of trials left"


def test_rounds_and_warm_starts_are_told_in_a_line() -> None:
    """What a round reached, what stood in the way, how the next is aimed; which studies the first candidates come from."""
    progress = screen.Progress()
    row = {"event": "search.round", "round": 1, "target": {"accuracy": 0.99}, "reached": {"accuracy": 0.962}, "met": False}
    missed = progress.hear(
        {**row, "diagnosis": "under-fit", "words": "training loss is close to validation loss", "aim": "larger networks"}
    )
    assert (
        missed
        == "round       1 accuracy 0.9620, target not met, under-fit: training loss is close to validation loss; next: larger networks"
    )
    assert progress.hear({**row, "round": 2, "met": True}) == "round       2 meets the target with accuracy 0.9620"
    begun = progress.hear({"event": "search.warm_started", "count": 3, "origins": ["digits", "digits", "mnist"]})
    assert begun == "search    begins with 3 of the best of earlier studies: digits (2 studies), mnist"


def finished(number: int, value: float, best: int, missed: float = 0.0, round_number: int = 1) -> dict[str, Any]:
    candidate = Candidate(space="s", architecture={}, hyperparameters={})
    values = {"accuracy": value, "num_parameters": 100.0 + missed}
    trial = Trial(number=number, candidate=candidate, state="complete", values=values, constraints={"num_parameters": missed})
    row = {"event": "trial.finished", "number": number, "round": round_number, "objective": "accuracy", "value": value, "state": "complete"}
    return {**row, "best": value, "best_number": best, "seconds": 1.0, "trials": 4, "finished": 1, "trial": trial.to_json()}


def test_the_best_keeps_the_constraints_or_is_called_the_closest() -> None:
    """Over all rounds; trials of a later one say which it is."""
    progress = screen.Progress()
    progress.hear({"event": "stage.started", "stage": "search", "why": []})
    first = progress.hear(finished(0, 0.8009, best=0, missed=50.0))
    assert first == "trial       0 0.8009 misses num_parameters, closest 0.8009   in 1.0 s"
    assert str(progress.hear(finished(1, 0.7, best=1))).startswith("trial       1 0.7000, best 0.7000 ")
    row = {"event": "search.round", "round": 1, "reached": {}, "met": False, "diagnosis": "under-fit", "words": ""}
    progress.hear(row)
    progress.hear({"event": "search.opened", "trials": 4, "finished": 0, "objective": "accuracy", "direction": "maximize"})
    later = progress.hear(finished(0, 0.9, best=0, missed=9.0, round_number=2))
    assert str(later).startswith("trial       0 of round 2 0.9000 misses num_parameters, best 0.7000 ")
    assert progress.best_place() == "trial 1 of round 1"


def test_a_narrow_window_cuts_the_status_and_does_not_wrap_it() -> None:
    """One line of the region for where the run is."""
    live = screen.Live(Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None))
    live.progress.hear({"event": "stage.started", "stage": "search", "why": []})
    live.progress.detail = "detail " * 20
    frame = io.StringIO()
    Console(file=frame, width=80).print(live.picture())
    live.over.set()
    live.region.stop()
    (line,) = frame.getvalue().splitlines()
    assert line.rstrip().endswith("…")
    assert "search" in line


def test_time_spent_waiting_for_another_run_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The view is there before the run is opened, and the run tells how long that took."""
    now = [1000.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    progress = screen.Progress()
    now[0] += 40.0
    progress.hear({"event": "run.started", "run": "r", "model": "m", "launch_seconds": 45.0, "spent": 45.0})
    assert progress.elapsed == 45.0


def test_a_cluster_is_waited_for_with_a_word() -> None:
    """Ray takes twenty seconds to start."""
    assert screen.Progress().hear({"event": "search.runner", "name": "ray"}) == "search    waits for its ray cluster"
    assert screen.Progress().hear({"event": "search.runner", "name": "process"}) is None


def test_fusion_says_what_came_out_and_who_was_left_out() -> None:
    """In a line each, with the teacher's figure beside it."""
    progress = screen.Progress()
    row = {"event": "fused", "role": "ensemble", "members": ["teacher", "trial3"], "models": 9, "objective": "accuracy", "value": 0.99}
    made = progress.hear({**row, "teacher": 0.98})
    assert made == "fuse      ensemble of teacher, trial3 of 9 models: accuracy 0.9900, the teacher 0.9800"
    alone = progress.hear({**row, "role": "teacher", "members": [], "teacher": 0.99})
    assert alone == "fuse      teacher alone of 9 models: accuracy 0.9900"
    assert progress.hear({**row, "role": "teacher", "members": [], "models": 1}) == "fuse      teacher alone: no trial has left weights"
    tuned = progress.hear({**row, "role": "finetuned1", "members": ["teacher"], "teacher": 0.98})
    assert tuned == "fuse      finetuned1 alone of 9 models: accuracy 0.9900, the teacher 0.9800"
    named = progress.hear({**row, "role": "member", "members": ["run:B"], "teacher": 0.98})
    assert named == "fuse      run:B alone of 9 models: accuracy 0.9900, the teacher 0.9800"
    assert progress.hear({"event": "fuse.left_out", "what": "trial4", "reason": "torn"}) == "fuse      leaves out trial4: torn"


def test_a_supernet_says_how_far_it_is() -> None:
    """Once a quarter: the first trial comes minutes later."""
    progress = screen.Progress()
    told = [progress.hear({"event": "supernet.progress", "share": share / 10, "loss": 1.0}) for share in range(11)]
    assert [line.split()[2] for line in told if line] == ["30%", "50%", "80%", "100%"]


def test_a_study_that_goes_on_says_where_it_stands() -> None:
    """After a kill: how many trials are done, how many were interrupted. A new study needs no such line."""
    opened = {"event": "search.opened", "trials": 16, "finished": 5, "interrupted": 2, "objective": "accuracy"}
    assert screen.Progress().hear(opened) == "search    goes on: 5 of 16 trials are done, 2 were interrupted"
    assert screen.Progress().hear({**opened, "finished": 0, "interrupted": 0}) is None


def test_a_supernet_in_training_is_seen() -> None:
    """How far it is and its loss, until the first trial starts."""
    progress = screen.Progress()
    progress.hear({"event": "supernet.progress", "share": 0.4, "loss": 1.234, "seconds": 60.0})
    assert progress.detail == "supernet 40% trained, loss 1.234"
    progress.hear({"event": "trial.started", "number": 0})
    assert progress.detail == ""
