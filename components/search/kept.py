"""The weights of a search's best trials, kept with its result: what did not win can still be a member of an ensemble or a soup.

A trial has weights if its evaluator left some (`keeps_weights`); where several machines work on one study, those that were
trained elsewhere have none here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from components.artifacts import JSON, SearchResult, StoredFile, Trial
from components.search.proposal import decision_of
from components.search.ranking import in_order, violation
from components.settings import whole

KEPT = 8  # unless `search.keep` says otherwise


def most_kept(config: JSON) -> int:
    """`search.keep`: of how many trials at most the weights are kept. Raises `UsageError`."""
    return whole("search.keep", config["search"].get("keep", KEPT), 0)


def with_weights(trials: Sequence[Trial], place: Callable[[int], Path]) -> tuple[Trial, ...]:
    """The trials, those that have left weights at their `place` with where they are."""
    return tuple(
        trial.replace(weights=StoredFile.of(path)) if trial.state == "complete" and (path := place(trial.number)).exists() else trial
        for trial in trials
    )  # fmt: skip


def publish(result: SearchResult, most: int, out: Path) -> SearchResult:
    """The result with the weights of its best trials below `out`, at most `most` and each candidate once; of the others none."""
    able = in_order((t for t in result.trials if t.weights and not violation(t)), result.objective, result.direction)
    distinct = {decision_of(trial.candidate): trial.number for trial in reversed(able)}
    chosen = [trial.number for trial in able if distinct[decision_of(trial.candidate)] == trial.number][:most]
    trials = tuple(t.replace(weights=_copied(t, out) if t.number in chosen else None) for t in result.trials)
    return result.replace(trials=trials)


def _copied(trial: Trial, out: Path) -> StoredFile:
    assert trial.weights
    path = out / "trials" / f"{trial.number}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(trial.weights.path, path)
    return StoredFile.of(path)
