"""What a trial's own process does: evaluate one candidate, then leave the result where the parent finds it.

The file comes first and the answer second, so that whoever is killed in between, the trial is not lost.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts import JSON, AugmentationPolicy, Candidate, DatasetVersion, Trial
from components.build import allow, resolve
from components.search.ranking import without_nan
from components.search.study import TrialFolder

Evaluator = Callable[..., Trial]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that a process needs to evaluate one trial. `folder` is the study's; `seconds` bounds the trial (None: no limit)."""

    dataset: DatasetVersion
    policy: AugmentationPolicy
    candidate: Candidate
    config: JSON
    study: str
    number: int
    objective: str
    folder: Path
    seconds: float | None = None


def evaluate_trial(task: Assignment, *, emit: Callable[..., None]) -> int:
    """Runs the evaluator and leaves `result.json`; returns the trial's number. A trial that failed is a result as well."""
    place = TrialFolder(task.folder, task.study, task.number)
    place.work.mkdir(mode=0o700, parents=True, exist_ok=True)
    started = time.monotonic()
    trial = _evaluator(task.config)(
        task.dataset, task.policy, task.candidate, task.config, task.number, place.work,
        seconds=task.seconds, rows=task.config["search"].get("rows"), emit=emit,
    )  # fmt: skip
    trial = without_nan(trial, task.objective)
    place.write(task.candidate, trial.replace(seconds=trial.seconds or time.monotonic() - started))
    shutil.rmtree(place.work, ignore_errors=True)
    return task.number


def _evaluator(config: JSON) -> Evaluator:
    for package in config.get("plugins") or ():
        allow(package)
    if named := config["search"].get("evaluator"):
        found: Any = resolve(named)
        return found
    from components.training.trial import run_trial

    return run_trial
