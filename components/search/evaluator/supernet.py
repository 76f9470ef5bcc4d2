"""Judges a candidate by the weights it shares with all others: validation metrics without any training.

The values are those of a supernet, lower than a trained network's and comparable only with each other. Hyper-parameters
of training have no part in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components import metrics
from components.artifacts import Trial
from components.build import build
from components.errors import UsageError
from components.search.interface import Assignment
from components.search.supernet import TRAINED


class SupernetEvaluator:
    """Needs a strategy that trains a supernet."""

    offers: frozenset[str] = frozenset()
    needs = frozenset({TRAINED})
    keeps_weights = False
    judges_on_folds = False
    scores: Mapping[str, str] = {}

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Callable[..., Any]) -> Trial:
        """Raises `UsageError` without a supernet, `CorruptArtifactError` for one of another space."""
        if task.supernet is None:
            raise UsageError(
                "evaluator=supernet judges by a supernet and the strategy trained none; choose strategy=oneshot or strategy=darts"
            )
        from components.training.trial import failed  # imports torch, which the parent of a search does without

        started = time.monotonic()
        space, supernet = _loaded(task)
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            values = _judged(supernet, task)
            size = _num_parameters(space, task)
        except Exception as error:
            return failed(task.number, task.candidate, error, scratch, started)
        return Trial(
            number=task.number, candidate=task.candidate, state="complete", values=values, num_parameters=size,
            fidelity={"supernet": True}, seconds=round(time.monotonic() - started, 3),
        )  # fmt: skip


def _loaded(task: Assignment) -> tuple[Any, Any]:
    from components.search.supernet_training import load_supernet

    assert task.supernet is not None
    space = build(task.config["space"])
    return space, load_supernet(space, task.dataset, task.supernet)


def _judged(supernet: Any, task: Assignment) -> dict[str, float]:
    import torch

    from components.search.supernet_training import one_thread
    from components.training.batches import load_rows
    from components.training.learner import validate

    class Candidate(torch.nn.Module):
        """One candidate of the supernet, as a network of its own."""

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return supernet(task.candidate.architecture, *inputs)

    objective = metrics.objective((task.config.get("metrics") or {}).get("objective"), task.dataset.task)
    with one_thread():
        return validate(Candidate(), task.dataset, load_rows(task.dataset, "validation"), objective)


def _num_parameters(space: Any, task: Assignment) -> int:
    """Of the network that the candidate would be trained as, whose size has nothing to do with the supernet's."""
    from components.models.network import build_network, num_parameters

    if hasattr(space, "num_parameters"):
        found: int = space.num_parameters(task.candidate.architecture, task.dataset.inputs, task.dataset.num_outputs)
        return found
    return num_parameters(build_network(task.config["space"], task.candidate, task.dataset, 0))
