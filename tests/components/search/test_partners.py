"""The verb `search` by several parents on one PostgreSQL study, and with its trials on a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import DatasetVersion, SearchResult, Trial
from components.errors import TryAgainError
from components.fingerprint import ROOT
from components.processes import Worker
from tests import postgres
from tests.components.search import standin
from tests.components.search.test_search import Events, decisions, outcome, run

pytestmark = pytest.mark.usefixtures("light_workers")
SLOW = {"evaluator": f"{standin.HERE}.slow"}


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A server of this module's own."""
    if postgres.MISSING:
        pytest.skip(postgres.MISSING)
    with postgres.server() as running:
        yield running


def started(*folders: Path) -> list[int]:
    """Numbers of the trials that were started, at all of these parents."""
    return sorted(row["number"] for folder in folders for row in standin.starts(folder))


def together(dataset: DatasetVersion, folders: list[Path], **settings: Any) -> list[SearchResult]:
    """What each of several parents at once comes to."""
    Worker().close()  # the forkserver must start in this thread
    with ThreadPoolExecutor(len(folders)) as pool:
        return list(pool.map(lambda folder: run(dataset, folder, **settings), folders))


def test_two_parents_share_a_study(server: postgres.Server, dataset: DatasetVersion, tmp_path: Path) -> None:
    """Each trial is run once, by one of them, and both come to the same result."""
    folders = [tmp_path / "a/s", tmp_path / "b/s"]
    first, second = together(dataset, folders, trials=8, storage=server.url, **SLOW)
    assert [outcome(t) for t in first.trials] == [outcome(t) for t in second.trials]
    assert first == second
    assert len(set(decisions(first))) == 8
    assert started(*folders) == list(range(8))
    assert all(started(folder) for folder in folders)


def test_a_parent_that_comes_when_all_is_done_runs_nothing(server: postgres.Server, dataset: DatasetVersion, tmp_path: Path) -> None:
    """Results come from the database; more trials go on from there."""
    settings = {"storage": server.url, "seed": 1, **SLOW}
    first = run(dataset, tmp_path / "a/s", trials=3, **settings)
    emit = Events()
    assert run(dataset, tmp_path / "b/s", trials=3, emit=emit, **settings) == first
    assert emit.named("trial.started") == []
    more = run(dataset, tmp_path / "b/s", trials=5, **settings)
    assert more.trials[:3] == first.trials
    assert started(tmp_path / "b/s") == [3, 4]


PARENT = """
import sys
from pathlib import Path
from components import processes
from tests.components.search import standin
processes.PRELOAD = ["components.lifeline", "numpy", "optuna", "components.search.evaluation", standin.HERE]
from components.search.search import search
from components.workspace import Workspace
folder = Path(sys.argv[1])
def emit(event, **fields):
    print(event, fields.get("number", ""), flush=True)
config = standin.config(trials=6, workers=2, evaluator=f"{standin.HERE}.slow", storage=sys.argv[2])
search(standin.curve(folder / "data"), standin.POLICY, config, Workspace(out=folder / "out", scratch=folder / "s", emit=emit, seed=2))
"""


def test_what_a_killed_parent_left_is_run_by_another(server: postgres.Server, dataset: DatasetVersion, tmp_path: Path) -> None:
    """SIGKILL to one parent while trials run: its finished ones count, the others are run elsewhere, under their numbers."""
    command = [sys.executable, "-c", PARENT, str(tmp_path / "a"), server.url]
    (tmp_path / "a").mkdir()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as parent:
        assert parent.stdout is not None
        assert any(line.strip() == "trial.started 3" for line in parent.stdout), "the event never came"
        parent.send_signal(signal.SIGKILL)
    whole = run(dataset, tmp_path / "b/s", trials=6, seed=2, storage=server.url, **SLOW)
    assert [t.state for t in whole.trials] == ["complete"] * 6
    again = set(started(tmp_path / "a/s")) & set(started(tmp_path / "b/s"))
    assert 3 in started(tmp_path / "b/s")
    assert again <= {1, 2, 3}
    assert 0 not in started(tmp_path / "b/s")
    alone = run(dataset, tmp_path / "c/s", trials=6, seed=2, workers=1)
    assert {t.number for t in whole.trials} == {t.number for t in alone.trials}


def test_a_server_that_goes_away_in_the_middle_is_one_line_and_nothing_is_lost(dataset: DatasetVersion, tmp_path: Path) -> None:
    """`TryAgainError` (75); with the server back, the same call goes on, and no finished trial is run again."""
    if postgres.MISSING:
        pytest.skip(postgres.MISSING)
    with postgres.server() as own:

        class Breaking(Events):
            def __call__(self, event: str, **fields: Any) -> None:
                super().__call__(event, **fields)
                if event == "trial.finished" and fields["number"] == 1:
                    own.stop()

        settings = {"trials": 5, "storage": own.url, **SLOW}
        with pytest.raises(TryAgainError, match=r"study database postgresql://athanor@.* cannot be used now"):
            run(dataset, tmp_path / "s", emit=Breaking(), **settings)
        own.start()
        emit = Events()
        result = run(dataset, tmp_path / "s", emit=emit, **settings)
    assert [t.state for t in result.trials] == ["complete"] * 5
    assert not {0, 1} & {row["number"] for row in emit.named("trial.started")}


RUNNERS = {
    "dask": {"_target_": "components.search.runner.dask.DaskRunner"},
    "ray": {"_target_": "components.search.runner.ray.RayRunner"},
}


@pytest.mark.parametrize("name", ["dask", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_search_on_a_cluster_is_the_search_on_this_machine(dataset: DatasetVersion, tmp_path: Path, name: str) -> None:
    """The same trials and values; a trial that is killed is run again there; events come through."""
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[name])
    emit = Events()
    settings = {"trials": 5, "evaluator": f"{standin.HERE}.killed_once"}
    there = run(dataset, tmp_path / "there", runner=RUNNERS[name], emit=emit, **settings)
    here = run(dataset, tmp_path / "here", **settings)
    assert [outcome(t) for t in there.trials] == [outcome(t) for t in here.trials]
    assert [row["number"] for row in emit.named("trial.retried")] == [2]
    assert {row["number"] for row in emit.named("trial.epoch")} == set(range(5))


# ---- a Dask cluster as one is set up on machines ----


class Cluster:
    """`dask scheduler` and `dask worker`, as on three machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *words[1:], "--scheduler-file", "address.json"],
                cwd=self.folder, env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip

    def address(self) -> str:
        """Where the scheduler listens, once it does."""
        until = time.monotonic() + 60
        while not (self.folder / "address.json").exists() and time.monotonic() < until:
            time.sleep(0.1)
        found: str = json.loads((self.folder / "address.json").read_text())["address"]
        return found

    def worker(self) -> subprocess.Popen[bytes]:
        """Joins another machine, of one thread."""
        return self._start("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")


@pytest.mark.slow
def test_a_lost_machine_costs_a_retry_and_a_lost_scheduler_is_one_line(dataset: DatasetVersion, tmp_path: Path) -> None:
    """SIGKILL to a machine's Dask worker: its trial is run on the other. Then to the scheduler: `TryAgainError` (75)."""
    pytest.importorskip("distributed")
    cluster = Cluster(tmp_path)
    machines = [cluster.worker(), cluster.worker()]
    try:
        runner = {**RUNNERS["dask"], "address": cluster.address()}
        result = run(dataset, tmp_path / "s", trials=6, workers=2, runner=runner, emit=KillsAt(machines[0], 2), **SLOW)
        assert [t.state for t in result.trials] == ["complete"] * 6
        with pytest.raises(TryAgainError, match=r"runner=dask: the scheduler tcp://127\.0\.0\.1:\d+ is away"):
            run(dataset, tmp_path / "s", trials=9, workers=1, runner=runner, emit=KillsAt(cluster.scheduler, 7), **SLOW)
        kept = {int(path.parent.name) for path in (tmp_path / "s").glob("trials/*/result.json")}
        assert kept >= set(range(7))
    finally:
        for process in (*machines, cluster.scheduler):
            process.kill()
            process.wait()


class KillsAt(Events):
    """Kills a process when a trial starts."""

    def __init__(self, process: subprocess.Popen[bytes], number: int) -> None:
        super().__init__()
        self.process, self.number = process, number

    def __call__(self, event: str, **fields: Any) -> None:
        super().__call__(event, **fields)
        if event == "trial.started" and fields["number"] == self.number:
            self.process.kill()


class Climbs:
    """An evaluator that trains to a rung: what it measures gets nearer to the fit's error with the epochs."""

    offers = frozenset({"epochs"})
    needs: frozenset[str] = frozenset()
    keeps_weights = False

    def evaluate(self, task: Any, scratch: Path, *, emit: Any) -> Trial:
        standin.note(scratch, number=task.number, epochs=task.epochs)
        time.sleep(0.1)
        fitted = standin.fit_curve(task.dataset, task.policy, task.candidate, task.config, task.number, scratch, emit=emit)
        rungs = {str(e): fitted.values["rmse"] + 1.0 / e for e in range(1, task.epochs + 1)}
        kept = {epochs: value for epochs, value in rungs.items() if int(epochs) in (1, 3, 9)}
        return fitted.replace(rungs=kept, fidelity={"epochs": task.epochs}, values={**fitted.values, "rmse": rungs[str(task.epochs)]})


def test_parents_whose_trials_rest_do_not_wait_for_each_other(server: postgres.Server, dataset: DatasetVersion, tmp_path: Path) -> None:
    """With a scheduler each parent carries on its own trials; both end, each trial is over, and both say the same of it."""
    folders = [tmp_path / "a/s", tmp_path / "b/s"]
    asha = {"_target_": "components.search.scheduler.asha.ASHA", "reduction": 3, "least": 1}
    settings = {"trials": 9, "epochs": 9, "scheduler": asha, "evaluator": {"_target_": f"{__name__}.Climbs"}, "storage": server.url}
    first, second = together(dataset, folders, **settings)
    assert {t.state for t in first.trials} <= {"complete", "pruned"}
    assert [outcome(t) for t in first.trials] == [outcome(t) for t in second.trials]
