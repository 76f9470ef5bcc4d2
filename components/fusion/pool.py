"""The models that can be fused, what they say of the validation rows, and which of two results is preferred.

Legend: N validation rows, K classes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from components import metrics
from components.artifacts import (
    JSON,
    AugmentationPolicy,
    DatasetVersion,
    SearchResult,
    TrainedModel,
    Trial,
)
from components.errors import CorruptArtifactError
from components.models.network import load_network, num_parameters, save_weights
from components.models.parent import Parent
from components.training.batches import Rows, load_rows, seed_of
from components.training.learner import predict
from components.workspace import Workspace

Outputs = NDArray[Any]
SPACE = "components.models.fused.Fused"
RESAMPLES = 100


class Pool:
    """The teacher and those trials of the search that kept their weights, the best first.

    `config` holds space, trainer, optimizer, schedule, loss, training and metrics, and in `joining` the records of networks that
    the user wants in a soup. Networks are built and judged when they
    are asked for, once, as far as the time reaches.
    """

    def __init__(
        self, dataset: DatasetVersion, policy: AugmentationPolicy, teacher: TrainedModel, others: Sequence[TrainedModel], config: JSON,
        work: Workspace,
    ) -> None:  # fmt: skip
        self.dataset, self.policy, self.teacher, self.config, self.work = dataset, policy, teacher, config, work
        self.models = (teacher, *others)
        self.joining = tuple(Parent.from_json(record) for record in config.get("joining") or ())
        self.objective = metrics.objective((config.get("metrics") or {}).get("objective"), dataset.task)
        self.is_classifier = dataset.task == "classification"
        self.is_cut = False  # by the time limit
        self._networks: dict[str, nn.Module] = {}
        self._outputs: dict[str, Outputs] = {}

    @functools.cached_property
    def rows(self) -> Rows:
        """The validation rows."""
        return self.load("validation")

    @functools.cached_property
    def targets(self) -> Outputs:
        """Class indices [N], or values [N] in the target's own unit."""
        targets: Outputs = self.rows.targets.numpy()
        return targets if self.is_classifier else targets * self.dataset.target_std + self.dataset.target_mean

    def load(self, split: str, limit: int | None = None) -> Rows:
        """Rows of a split, kept where `training.data` says."""
        training = self.config.get("training") or {}
        where = {name: training.get(name, "auto") for name in ("data", "workers")}
        return load_rows(self.dataset, split, limit=limit, seed=self.work.seed, **where)

    def network(self, model: TrainedModel) -> nn.Module:
        """A model's network in eval mode; always the same object, not to be changed."""
        if model.identity not in self._networks:
            self._networks[model.identity] = load_network(model, self.dataset)
        return self._networks[model.identity]

    def outputs(self, model: TrainedModel) -> Outputs:
        """What a model says of the validation rows: probabilities [N, K], or values [N] in the target's own unit."""
        if model.identity not in self._outputs:
            self._outputs[model.identity] = predict(self.network(model), self.dataset, self.rows)
        return self._outputs[model.identity]

    def score(self, outputs: Outputs) -> dict[str, float]:
        """Validation metrics, as training tells them."""
        told = ("accuracy", "log_loss") if self.is_classifier else ("rmse", "mae", "r2")
        return {name: metrics.compute(name, outputs, self.targets) for name in dict.fromkeys((self.objective, *told))}

    def prefers(self, found: dict[str, float], kept: dict[str, float]) -> bool:
        """Whether metrics are strictly better than others: in the objective, or equal there and with a smaller log-loss."""
        if found[self.objective] != kept[self.objective]:
            return metrics.is_better(self.objective, found[self.objective], kept[self.objective])
        return self.is_classifier and metrics.is_better("log_loss", found["log_loss"], kept["log_loss"])

    def is_worth_it(self, outputs: Outputs, certainty: float) -> bool:
        """Whether several networks that give these answers are worth asking: no worse than the best single one in the
        objective, and that or the rows' losses better by more than `certainty` standard errors. A few hits more may be luck."""
        ours, best = self.outputs(self.best), self.best_metrics[self.objective]
        reached = metrics.compute(self.objective, outputs, self.targets)
        if metrics.is_better(self.objective, best, reached):
            return False
        saved_N = self._losses(ours) - self._losses(outputs)
        if float(saved_N.mean()) > certainty * float(saved_N.std()) / max(1, len(saved_N)) ** 0.5:
            return True
        return metrics.is_better(self.objective, reached, best) and abs(reached - best) > certainty * self._error(outputs, ours)

    def _error(self, outputs: Outputs, others: Outputs) -> float:
        """Standard error of how two answers differ in the objective: the deviation over resamples of the rows."""
        random, count = np.random.default_rng(seed_of(self.work.seed, "resamples")), len(self.targets)
        found = []
        for _ in range(RESAMPLES):
            rows = random.integers(0, count, count)
            both = (metrics.compute(self.objective, side[rows], self.targets[rows]) for side in (outputs, others))
            found.append(next(both) - next(both))
        return float(np.nanstd(found))

    def _losses(self, outputs: Outputs) -> NDArray[np.float64]:
        """Of each row: nats, or the squared error."""
        return metrics.surprise(outputs, self.targets) if self.is_classifier else np.square(metrics.residuals(outputs, self.targets))

    @functools.cached_property
    def able(self) -> tuple[TrainedModel, ...]:
        """The teacher and the others whose weights fit and whose outputs are finite, in the pool's order."""
        return tuple(model for model in self.models if model is self.teacher or self._is_fit(model))

    def _is_fit(self, model: TrainedModel) -> bool:
        if self.work.left() == 0.0:
            self.is_cut = True
            self.leave_out(model.role, "there is no time left to judge it")
            return False
        try:
            return bool(np.isfinite(self.outputs(model)).all())
        except CorruptArtifactError as error:
            self.leave_out(model.role, error)
            return False

    def leave_out(self, what: str, reason: Exception | str) -> None:
        """Tells of what could not be used."""
        self.work.emit("fuse.left_out", what=what, reason=str(reason).splitlines()[0])

    @functools.cached_property
    def best(self) -> TrainedModel:
        """The best single model on validation; the teacher, if none is strictly better."""
        return self.ranked[0]

    @functools.cached_property
    def ranked(self) -> tuple[TrainedModel, ...]:
        """Those that can be used, the best first; of equals the pool's order."""
        scores = [self.score(self.outputs(model)) for model in self.able]
        return tuple(self.able[place] for place in self.in_order(scores))

    def in_order(self, scores: Sequence[dict[str, float]]) -> list[int]:
        """The places of metrics, the best first; of equals the earlier one."""

        def order(one: int, other: int) -> int:
            return self.prefers(scores[other], scores[one]) - self.prefers(scores[one], scores[other])

        return sorted(range(len(scores)), key=functools.cmp_to_key(order))

    @functools.cached_property
    def best_metrics(self) -> dict[str, float]:
        """Validation metrics of the best single model."""
        return self.score(self.outputs(self.best))

    def fused(
        self, role: str, models: Sequence[TrainedModel], head: JSON, network: nn.Module, found: dict[str, float], *,
        truncated: bool = False, **fields: Any,
    ) -> TrainedModel:  # fmt: skip
        """The record of a network of several `models`, the best of them first, whose weights are saved."""
        nodes = distinct(model.space for model in models)
        rows = [{"space": nodes.index(model.space), "architecture": model.candidate.architecture} for model in models]
        first = models[0].candidate
        candidate = first.replace(architecture={**head, "members": rows})
        return TrainedModel(
            role=role, candidate=candidate, space={"_target_": SPACE, "spaces": nodes}, dataset=self.dataset.identity,
            seed=seed_of(self.work.seed, role), weights=save_weights(network, self.work.out / "weights.safetensors"), metrics=found,
            num_parameters=num_parameters(network), truncated=truncated or self.is_cut, **fields,
        )  # fmt: skip


def distinct(values: Any) -> list[JSON]:
    """JSON values, each once, in order."""
    return [json.loads(text) for text in dict.fromkeys(json.dumps(value, sort_keys=True) for value in values)]


def share_of(model: TrainedModel, share: float | None = None) -> JSON:
    """A row of a fused model's `members`: which model, what weights, what it came from, and how much it counts."""
    row: JSON = {"model": model.identity, "role": model.role, "weights": model.weights.sha256, "parents": list(model.parents)}
    return row if share is None else {**row, "share": share}


def trials_of(result: SearchResult, dataset: DatasetVersion, config: JSON, seed: int) -> tuple[TrainedModel, ...]:
    """The trials of a search that kept their weights, as models, in the search's order of merit."""
    kept = [trial for trial in result.trials if trial.weights is not None]
    sign = -1.0 if result.direction == "maximize" else 1.0
    kept.sort(key=lambda trial: (sign * trial.values[result.objective], trial.values.get("log_loss", 0.0), trial.number))
    return tuple(_as_model(trial, dataset, config["space"], seed) for trial in kept)


def _as_model(trial: Trial, dataset: DatasetVersion, space: JSON, seed: int) -> TrainedModel:
    assert trial.weights is not None
    return TrainedModel(
        role=f"trial{trial.number}", candidate=trial.candidate, space=dict(space), dataset=dataset.identity,
        seed=seed_of(seed, "trial", trial.number), weights=trial.weights, metrics=trial.values, num_parameters=trial.num_parameters,
        epochs=float(trial.fidelity.get("epochs", 0.0)), history=trial.history, seconds=trial.seconds,
    )  # fmt: skip
