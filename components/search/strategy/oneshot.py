"""One-shot search: a supernet trained by candidates drawn alike, then a search that costs no training.

Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020, with every value of a
choice trained equally often (Chu et al., "FairNAS", ICCV 2021). With `evaluator=supernet` a trial is judged by the
shared weights, in a second, and any strategy may search (`by`); with `evaluator=train` the candidates that the supernet
holds worth most become ordinary trials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler

from components.artifacts import JSON
from components.errors import UsageError
from components.search.derivation import DerivedSampler
from components.search.interface import Strategy
from components.search.paths import fair_paths
from components.search.problem import Problem
from components.search.supernet import SUPERNET, TRAINED, Recipe, SupernetTask

if TYPE_CHECKING:
    from components.search.supernet_data import Data, Forward

PATHS = 5  # candidates a step, whose gradients are averaged


class OneShotStrategy:
    """Trains a supernet by uniform paths, then lets `by` search, or suggests what it derived. Raises `UsageError`."""

    needs: frozenset[str] = frozenset({SUPERNET})
    offers = frozenset({TRAINED})

    def __init__(
        self,
        *,
        by: Strategy | None = None,
        epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 0.1,
        holdout: float = 0.3,
        views: int = 20,
        candidates: int = 8,
    ) -> None:
        self.recipe = Recipe(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, holdout=holdout, views=views, candidates=candidates
        )
        if by is not None and not hasattr(by, "sampler"):
            raise UsageError(f"strategy.by must be another strategy, as +strategy@strategy.by=evolution, got {by!r}")
        if by is not None and by.needs:
            raise UsageError(f"strategy.by must be a strategy that needs no supernet or epochs of its own, got {type(by).__name__}")
        self.by = by

    @property
    def learns(self) -> bool:
        return self.by is None or self.by.learns

    @property
    def objectives(self) -> str:
        return "many" if self.by is None else self.by.objectives

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return DerivedSampler(seed, problem) if self.by is None else self.by.sampler(seed, problem)

    def train_supernet(self, task: SupernetTask, *, emit: Callable[..., Any]) -> Path:
        """See `SupernetStrategy`. Raises `DivergedError`."""
        from components.search.supernet_training import trained

        def uniform(supernet: Any, space: Any, data: Data) -> _Uniform:
            return _Uniform(supernet, lambda trial: space.sample(trial, task.dataset), task.seed)

        return trained(task, self.recipe, uniform, emit=emit)


class _Uniform:
    """The curriculum: candidates in which every value of a choice comes equally often. Nothing of it is learned."""

    def __init__(self, supernet: Any, program: Callable[[Any], Any], seed: int) -> None:
        self.supernet, self.program, self.seed = supernet, program, seed

    def forwards(self, step: int, progress: float) -> Sequence[Forward]:
        points = fair_paths(self.program, PATHS, Random(f"{self.seed}/{step}"))
        return [lambda *inputs, point=point: self.supernet(point.value, *inputs) for point in points]

    def after_step(self, step: int, progress: float) -> None:
        return None

    def state(self) -> JSON:
        return {}

    def restore(self, state: JSON) -> None:
        return None

    def figures(self) -> JSON:
        return {}
