"""What a trial's own process does: evaluate one candidate, then leave the result where the parent finds it.

The file comes first and the answer second, so that whoever is killed in between, the trial is not lost.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from components import metrics
from components.artifacts import Trial
from components.build import allow, build
from components.search.interface import WEIGHTS, Assignment
from components.search.plan import COSTS
from components.search.ranking import without_nan
from components.search.study import TrialFolder
from components.search.target import shelf_of
from components.store import FULL_DISK, fsync, full_disk_says_so


def evaluate_trial(task: Assignment, *, emit: Callable[..., None]) -> int:
    """Runs the evaluator and leaves `result.json`; returns the trial's number. A trial that failed is a result as well.

    Raises `TryAgainError` when the disk is full, which says nothing about the candidate.
    """
    for package in task.config.get("plugins") or ():
        allow(package)
    place = TrialFolder(task.folder, task.study, task.number)
    with full_disk_says_so(task.folder):
        earlier = place.read(task.candidate)
        trial = _evaluate(task, place.prepare(task.candidate), emit)
        if trial.state == "failed" and (full := next((code for code in FULL_DISK if os.strerror(code) in trial.reason), None)):
            raise OSError(full, os.strerror(full))
        trial = _with_rung(without_nan(trial, *(task.objectives or (task.objective,))), earlier, task)
        _keep(place)
        place.write(task.candidate, trial)
    if trial.state != "complete" or task.epochs == task.full_epochs:
        shutil.rmtree(place.work, ignore_errors=True)
    return task.number


def _evaluate(task: Assignment, scratch: Path, emit: Callable[..., None]) -> Trial:
    started = time.monotonic()
    costs = _costs(task)
    missed = {name: costs[name] - bound for name, bound in task.constraints.items() if name in costs}
    if any(by > 0 for by in missed.values()):  # known to be unfit: its value only has to be an honest one, not a good one
        task = dataclasses.replace(task, epochs=1, full_epochs=1)
    trial: Trial = build(task.config["evaluator"]).evaluate(task, scratch, emit=emit)
    trial = trial.replace(seconds=trial.seconds or time.monotonic() - started)
    if trial.state != "complete":
        return trial
    values = {**trial.values, **costs}
    return trial.replace(values=values, constraints={name: _missed(name, values, bound) for name, bound in task.constraints.items()})


def _missed(name: str, values: dict[str, float], bound: float) -> float:
    """By how much a limit is missed: an upper bound for costs and errors, a lower one for what is maximised."""
    value = values[name]
    return bound - value if name in metrics.METRICS and metrics.direction(name) == "maximize" else value - bound


def _costs(task: Assignment) -> dict[str, float]:
    """The costs among the objectives and the constraints: measured before training, since they do not depend on it."""
    names = [name for name in dict.fromkeys((*task.objectives, *task.constraints)) if name in COSTS]
    if not names:
        return {}
    from components.search.costs import measure

    return measure(names, task.config["space"], task.candidate, task.dataset, shelf_of(task.folder) / "costs")


def _with_rung(trial: Trial, earlier: Trial | None, task: Assignment) -> Trial:
    """The trial with its value at this rung beside those at the rungs before, and the seconds of all of them."""
    if task.epochs is None or earlier is None or earlier.state != "complete":
        return trial if task.epochs is None or trial.state != "complete" else trial.replace(rungs=_rung(trial, task))
    if trial.state != "complete":
        return trial.replace(rungs=earlier.rungs, seconds=trial.seconds + earlier.seconds)
    return trial.replace(rungs={**earlier.rungs, **_rung(trial, task)}, seconds=trial.seconds + earlier.seconds)


def _rung(trial: Trial, task: Assignment) -> dict[str, float]:
    return {str(task.epochs): trial.values[task.objective]}


def _keep(place: TrialFolder) -> None:
    """Keeps the traceback of a trial that met a bug, and the weights that an evaluator left for others."""
    for source, name in ((place.work / "error.txt", "traceback.txt"), (place.work / WEIGHTS, WEIGHTS)):
        if source.exists():
            fsync(source)
            source.replace(place.path / name)

