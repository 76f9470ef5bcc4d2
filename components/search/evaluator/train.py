"""Trains the candidate: its value is what it reaches on validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.artifacts import Trial
from components.errors import UsageError
from components.search.interface import WEIGHTS, Assignment


class Train:
    """Every candidate is trained from its own initial weights, to the rung it is given of a schedule of full length."""

    offers = frozenset({"epochs"})
    needs: frozenset[str] = frozenset()
    judges_on_folds = True
    adopts = True  # with `parent` a candidate begins from that model's weights instead

    def __init__(self, keep_weights: bool = True) -> None:
        if not isinstance(keep_weights, bool):
            raise UsageError(f"evaluator.keep_weights must be true or false, got {keep_weights!r}")
        self.keeps_weights = keep_weights

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Callable[..., Any]) -> Trial:
        from components.training.trial import folds_asked, run_trial  # imports torch, which the parent of a search does without

        whole = folds_asked(task.config, task.dataset) is None  # what a fold leaves has seen rows that others are judged by

        return run_trial(
            task.dataset, task.policy, task.candidate, task.config, task.number, scratch, task.seconds,
            task.config["search"].get("rows"), epochs=task.epochs, full_epochs=task.full_epochs,
            weights=scratch / WEIGHTS if self.keeps_weights and whole else None, emit=emit,
        )  # fmt: skip
