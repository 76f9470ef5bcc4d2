"""Ways of fusing that look right and are not: each must fail the family's contract."""

from __future__ import annotations

import numpy as np
from safetensors.torch import load_file

from components.artifacts import TrainedModel
from components.fusion.method.ensemble import Ensemble, _combined
from components.fusion.pool import Pool
from components.fusion.soup import ROLE, Ingredient, average
from components.models.network import load_network, save_weights
from components.training.learner import predict


def everyone(pool: Pool) -> TrainedModel:
    """The mean of all models, whatever it is worth."""
    best, found = pool.best, pool.best_metrics
    pool.best_metrics = {name: -1e9 if name in ("accuracy", "r2") else 1e9 for name in found}
    model = _combined(pool, np.full(len(pool.models), 1 / len(pool.models)))
    pool.best, pool.best_metrics = best, found
    return model


class EveryoneCounts:
    """Takes the mean of all, the worst included, without a look at validation."""

    def fuse(self, pool: Pool) -> TrainedModel:
        return everyone(pool)


class AveragesAsTheyLie:
    """A soup of networks whose units are in different places."""

    def fuse(self, pool: Pool) -> TrainedModel:
        kin = [model for model in pool.models if model.candidate.architecture == pool.teacher.candidate.architecture]
        parts = [Ingredient(model, load_file(model.weights.path), {}, model.role) for model in kin]
        network = load_network(pool.teacher, pool.dataset)
        network.load_state_dict(average([part.state for part in parts]))
        rows = tuple({"model": part.model.identity, "role": part.model.role, "weights": part.model.weights.sha256} for part in parts)
        return pool.teacher.replace(
            role=ROLE, weights=save_weights(network, pool.work.out / "weights.safetensors"), members=rows,
            metrics=pool.score(predict(network, pool.dataset, pool.rows)), parents=tuple(part.model.identity for part in parts),
        )  # fmt: skip


class Eager(Ensemble):
    """Takes an ensemble wherever it is any better; sound, the ones below are made of it."""

    def __init__(self) -> None:
        super().__init__(certainty=0.0)


class ForgetsItsParents(Eager):
    """Does not say what it is made of."""

    def fuse(self, pool: Pool) -> TrainedModel:
        return super().fuse(pool).replace(parents=(), members=(), role="orphan")


class Boasts(Eager):
    """Says more than its network reaches."""

    def fuse(self, pool: Pool) -> TrainedModel:
        model = super().fuse(pool)
        return model.replace(metrics={**model.metrics, "log_loss": 0.5 * model.metrics["log_loss"]}, role="boaster")


class RollsDice(Eager):
    """Another model each time it is asked."""

    def fuse(self, pool: Pool) -> TrainedModel:
        return super().fuse(pool).replace(seed=int(np.random.default_rng().integers(2**31)))
