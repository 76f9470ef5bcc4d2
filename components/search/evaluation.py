"""What a trial's own process does: evaluate one candidate, then leave the result where the parent finds it.

The file comes first and the answer second, so that whoever is killed in between, the trial is not lost.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.artifacts import JSON, Trial
from components.build import allow, resolve
from components.search.interface import Assignment
from components.search.ranking import without_nan
from components.search.study import TrialFolder
from components.store import FULL_DISK, full_disk_says_so

Evaluator = Callable[..., Trial]


def evaluate_trial(task: Assignment, *, emit: Callable[..., None]) -> int:
    """Runs the evaluator and leaves `result.json`; returns the trial's number. A trial that failed is a result as well.

    Raises `TryAgainError` when the disk is full, which says nothing about the candidate.
    """
    place = TrialFolder(task.folder, task.study, task.number)
    with full_disk_says_so(task.folder):
        trial = _evaluate(task, place.prepare(task.candidate), emit)
        if trial.state == "failed" and (full := next((code for code in FULL_DISK if os.strerror(code) in trial.reason), None)):
            raise OSError(full, os.strerror(full))
        place.write(task.candidate, without_nan(trial, task.objective))
    _tidy(place)
    return task.number


def _evaluate(task: Assignment, scratch: Path, emit: Callable[..., None]) -> Trial:
    started = time.monotonic()
    trial = _evaluator(task.config)(
        task.dataset, task.policy, task.candidate, task.config, task.number, scratch,
        seconds=task.seconds, rows=task.config["search"].get("rows"), emit=emit,
    )  # fmt: skip
    return trial.replace(seconds=trial.seconds or time.monotonic() - started)


def _tidy(place: TrialFolder) -> None:
    """Keeps the traceback of a trial that met a bug, and frees the checkpoints."""
    trace = place.work / "error.txt"
    if trace.exists():
        trace.replace(place.path / "traceback.txt")
    shutil.rmtree(place.work, ignore_errors=True)


def _evaluator(config: JSON) -> Evaluator:
    for package in config.get("plugins") or ():
        allow(package)
    if named := config["search"].get("evaluator"):
        found: Any = resolve(named)
        return found
    from components.training.trial import run_trial

    return run_trial
