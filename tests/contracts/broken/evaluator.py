"""Evaluators that look right and are not: each must fail the family's contract."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.artifacts import Trial
from components.data.arrays import load_target
from components.search.evaluator.train import Train
from components.search.interface import Assignment
from components.training.trial import run_trial

Emit = Callable[..., Any]


class Silent(Train):
    """Trains, and says nothing of the result."""

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Emit) -> Trial:
        return super().evaluate(task, scratch, emit=emit).replace(values={})


class RollsDice(Train):
    """Adds a little chance of its own."""

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Emit) -> Trial:
        found = super().evaluate(task, scratch, emit=emit)
        return found.replace(values={name: value + random.random() for name, value in found.values.items()})


class Indifferent(Train):
    """Gives every candidate the same value."""

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Emit) -> Trial:
        return super().evaluate(task, scratch, emit=emit).replace(values={"accuracy": 0.5})


class Peeks(Train):
    """Looks at the test split."""

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Emit) -> Trial:
        found = super().evaluate(task, scratch, emit=emit)
        return found.replace(values={**found.values, "share": float(load_target(task.dataset, "test").mean())})


class Optimist(Train):
    """Calls what failed complete."""

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Emit) -> Trial:
        found = super().evaluate(task, scratch, emit=emit)
        return found if found.state == "complete" else found.replace(state="complete", cause="", values={"accuracy": 0.0})


class Forgetful(Train):
    """Says that it keeps weights and does not."""

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Emit) -> Trial:
        self.keeps_weights = False
        try:
            return super().evaluate(task, scratch, emit=emit)
        finally:
            self.keeps_weights = True

    def __init__(self) -> None:
        super().__init__(keep_weights=True)


class Hasty(Train):
    """Completes a schedule of the rung's length at every rung."""

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Emit) -> Trial:
        return super().evaluate(dataclasses.replace(task, full_epochs=task.epochs), scratch, emit=emit)


class BeginsAgain(Train):
    """Trains from the first epoch at every rung."""

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Emit) -> Trial:
        (scratch / "last.ckpt").unlink(missing_ok=True)
        return super().evaluate(task, scratch, emit=emit)


class Restless(Train):
    """Trains to the end whatever the rung."""

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Emit) -> Trial:
        return super().evaluate(dataclasses.replace(task, epochs=task.full_epochs), scratch, emit=emit)


class Amnesiac(Train):
    """Draws other weights whenever it is started in a folder that is not empty."""

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Emit) -> Trial:
        number = task.number + 1 if scratch.exists() else task.number
        shutil.rmtree(scratch, ignore_errors=True)
        return run_trial(task.dataset, task.policy, task.candidate, task.config, number, scratch, emit=emit).replace(number=task.number)
