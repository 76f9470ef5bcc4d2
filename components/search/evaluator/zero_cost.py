"""Scores the candidate without training it: a fresh network and one batch of rows are all that it takes.

Thousands of candidates a minute, for a first look at a space; the best of them still has to be trained. The objective
of such a study is one of the scores (components/search/zero_cost.py), by default `naswot`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.artifacts import Trial
from components.errors import UsageError
from components.search.interface import Assignment

SCORES = {"naswot": "maximize", "synflow": "maximize", "num_parameters": "maximize", "macs": "maximize"}


class ZeroCost:
    """`rows` training rows are the batch, `networks` fresh networks are scored and their scores averaged."""

    offers: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    keeps_weights = False
    judges_on_folds = False
    scores = SCORES

    def __init__(self, rows: int = 64, networks: int = 1) -> None:
        for name, value in (("rows", rows), ("networks", networks)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"evaluator.{name} is a whole number of at least 1, got {value!r}")
        self.rows, self.networks = rows, networks

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Callable[..., Any]) -> Trial:
        """All scores are among the values. Raises `UsageError` for an objective that is none of them."""
        from components.training.trial import failed

        if task.objective not in SCORES:
            raise UsageError(f"evaluator=zero_cost gives {', '.join(SCORES)}, no {task.objective}; set objective={next(iter(SCORES))}")
        started = time.monotonic()
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            values = self._scores(task)
        except Exception as error:
            return failed(task.number, task.candidate, error, scratch, started)
        return Trial(
            number=task.number, candidate=task.candidate, state="complete", values=values, num_parameters=int(values["num_parameters"]),
            fidelity={"epochs": 0, "rows": self.rows}, seconds=round(time.monotonic() - started, 3),
        )  # fmt: skip

    def _scores(self, task: Assignment) -> dict[str, float]:
        import statistics

        import torch

        from components.models.network import build_network
        from components.search.zero_cost import scores
        from components.training.batches import load_rows, seed_of
        from components.training.trial import seed_of_trial

        torch.set_num_threads(1)
        batch = load_rows(task.dataset, "train", limit=self.rows)
        inputs = [batch.fields[field.name] for field in task.dataset.inputs]
        found = []
        for draw in range(self.networks):
            seed = seed_of(seed_of_trial(task.config, task.number), draw)
            found.append(scores(list(SCORES), build_network(task.config["space"], task.candidate, task.dataset, seed), inputs))
        return {name: statistics.fmean(row[name] for row in found) for name in SCORES}
