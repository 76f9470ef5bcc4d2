"""32 workers of several parents on one PostgreSQL study, an objective that sleeps 10 s: the share of their time that they work.

.venv/bin/python benchmarks/scaling.py            about 2 minutes; needs Debian's postgresql, a throw-away server is started
.venv/bin/python benchmarks/scaling.py --parents 1 --strategy surrogate --trials 640

Everything but the sleeping counts as lost: suggesting by turns, starting processes, telling. The steady state begins
when all workers have work and ends with the last start of a trial.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from measure import ROOT, machine

from components import processes
from components.artifacts import AugmentationPolicy, DatasetVersion, Trial
from components.workspace import Workspace
from tests import postgres

HERE = "benchmarks.scaling"
PRELOAD = ["components.lifeline", "numpy", "optuna", "components.search.evaluation", HERE]
POLICY = AugmentationPolicy(name="none", modality="any", config={})
TABLE: dict[str, Any] = {"inputs": (), "target": "y", "classes": (), "splits": {"train": 1}, "files": {}, "source": {}}
DATASET = DatasetVersion(name="nothing", digest="0" * 64, modality="table", task="regression", **TABLE)


class Numbers:
    """A space of six numbers."""

    modality = "table"

    def sample(self, trial: Any, dataset: DatasetVersion) -> dict[str, Any]:
        return {f"x{i}": trial.suggest_float(f"arch.x{i}", -1.0, 1.0) for i in range(6)}

    def hyperparameters(self, trial: Any, dataset: DatasetVersion, optimizers: Any) -> dict[str, Any]:
        return {}


class Sleeps:
    """Takes its time, notes when, and has the sphere's value."""

    offers: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    keeps_weights = False

    def __init__(self, *, seconds: float, notes: str) -> None:
        self.seconds, self.notes = seconds, notes

    def evaluate(self, task: Any, scratch: Path, *, emit: Any) -> Trial:
        started = time.time()
        time.sleep(self.seconds)
        with open(self.notes, "a") as file:
            file.write(f"{started} {time.time()}\n")
        value = sum(x * x for x in task.candidate.architecture.values())
        return Trial(number=task.number, candidate=task.candidate, state="complete", values={"rmse": value})


def parent(asked: argparse.Namespace) -> None:
    """One parent: a search on the shared study, with its share of the workers."""
    from components.search.search import search

    processes.PRELOAD = PRELOAD
    folder = Path(asked.parent)
    notes = {"_target_": f"{HERE}.Sleeps", "seconds": asked.seconds, "notes": str(folder.parent / "notes.txt")}
    config = {
        "plugins": ["benchmarks"], "space": {"_target_": f"{HERE}.Numbers"}, "optimizer": {"none": {}}, "training": {},
        "strategy": yaml.safe_load((ROOT / "conf" / "strategy" / f"{asked.strategy}.yaml").read_text()), "evaluator": notes,
        "scheduler": {"_target_": "components.search.scheduler.none.NoScheduler"}, "metrics": {"objective": None},
        "runner": {"_target_": "components.search.runner.process.ProcessRunner"},
        "search": {"trials": asked.trials, "workers": asked.workers // asked.parents, "epochs": 1, "storage": asked.storage},
    }  # fmt: skip
    search(DATASET, POLICY, config, Workspace(out=folder / "out", scratch=folder / "study"))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--workers", type=int, default=32)
    words.add_argument("--parents", type=int, default=4)
    words.add_argument("--trials", type=int, default=320)
    words.add_argument("--seconds", type=float, default=10.0)
    words.add_argument("--strategy", default="evolution")
    words.add_argument("--parent", help=argparse.SUPPRESS)
    words.add_argument("--storage", default=os.environ.get("ATHANOR_BENCHMARK_STORAGE"), help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.parent:
        return parent(asked)
    if postgres.MISSING:
        raise SystemExit(postgres.MISSING)
    with tempfile.TemporaryDirectory(prefix="athanor-scaling-") as folder, postgres.server() as server:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "ATHANOR_BENCHMARK_STORAGE": server.url}
        sizes = [f"--{name}={getattr(asked, name)}" for name in ("workers", "parents", "trials", "seconds", "strategy")]
        script = [sys.executable, "-c", f"import {HERE}; {HERE}.main()", *sizes]
        started = time.time()
        running = [subprocess.Popen([*script, f"--parent={folder}/{i}"], env=environment, cwd=folder) for i in range(asked.parents)]
        codes = [process.wait() for process in running]
        assert codes == [0] * asked.parents, codes
        rows = [tuple(map(float, line.split())) for line in (Path(folder) / "notes.txt").read_text().splitlines()]
    report(asked, sorted(rows), time.time() - started)


def report(asked: argparse.Namespace, rows: list[tuple[float, ...]], seconds: float) -> None:
    """Prints the share of the workers' time that they slept in the steady state."""
    begins, ends = rows[asked.workers - 1][0], rows[-1][0]
    assert ends > begins, "too few trials for a steady state: raise --trials"
    busy = sum(max(0.0, min(end, ends) - max(start, begins)) for start, end in rows)
    figures = {
        "workers": asked.workers, "parents": asked.parents, "trials": len(rows), "strategy": asked.strategy,
        "objective_seconds": asked.seconds, "steady_state_seconds": round(ends - begins, 1), "wall_seconds": round(seconds, 1),
        "share_of_linear": round(busy / (asked.workers * (ends - begins)), 3),
    }  # fmt: skip
    print(machine())
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
