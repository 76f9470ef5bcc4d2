"""Stacking: a small model learns from the models' validation answers how much each is to be believed (Wolpert 1992).

For classes it is a multinomial logistic model of the models' log-probabilities, one non-negative weight a model and an offset a
class; for numbers a linear one with non-negative weights (Breiman, "Stacked Regressions", 1996). So few parameters cannot
learn a validation split by heart, and what they are worth is judged on rows that they were not fitted to.
Legend: N rows, M models, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.artifacts import TrainedModel
from components.settings import number, whole

if TYPE_CHECKING:
    from components.fusion.pool import Outputs, Pool

Array = NDArray[np.float64]
SMALLEST = float(np.finfo(np.float32).tiny)
NEGLIGIBLE = 1e-3  # a share of the weights below which a model is left out


class Stacking:
    """At most `members` models, by their own merit; `folds` parts of the validation rows judge each other; `penalty` draws
    towards the plain mean. The objective or the loss of rows that were held out must gain by `certainty` standard errors."""

    def __init__(self, *, members: int = 4, folds: int = 5, penalty: float = 1e-3, certainty: float = 1.0) -> None:
        self.members, self.folds = whole("fusion.members", members, 2), whole("fusion.folds", folds, 2)
        self.penalty, self.certainty = number("fusion.penalty", penalty, 0.0), number("fusion.certainty", certainty, 0.0)

    def fuse(self, pool: Pool) -> TrainedModel:
        """Its metrics are those on the parts that were held out; the best single model where these are no better."""
        models = pool.ranked[: self.members]
        told = [_told(pool, model) for model in models]
        if len(models) < 2 or len(pool.targets) < 2 * self.folds:
            return pool.best
        held_out = self._held_out(pool, told)
        weights, offsets = self._fitted(pool, told, np.arange(len(pool.targets)))
        kept = np.flatnonzero(weights > NEGLIGIBLE * weights.sum())
        if len(kept) < 2 or not pool.is_worth_it(held_out, self.certainty):
            return pool.best
        return _stacked(pool, [models[place] for place in kept], weights[kept], offsets, pool.score(held_out))

    def _held_out(self, pool: Pool, told: Sequence[Array]) -> Outputs:
        """What the stack says of each row when it was fitted to the other parts."""
        from components.training.batches import folds_of  # imports torch, which reading the settings does without

        folds = min(self.folds, len(pool.targets))
        fold_N = folds_of(pool.rows.targets, folds, pool.is_classifier).numpy()
        answers = np.zeros_like(pool.outputs(pool.teacher), dtype=np.float64)
        for fold in range(folds):
            weights, offsets = self._fitted(pool, told, np.flatnonzero(fold_N != fold))
            rows = np.flatnonzero(fold_N == fold)
            answers[rows] = _answers(pool, [part[rows] for part in told], weights, offsets)
        return answers

    def _fitted(self, pool: Pool, told: Sequence[Array], rows: NDArray[np.intp]) -> tuple[Array, Array]:
        """Weights [M] and offsets [K] (one for values) by these validation rows."""
        parts = [part[rows] for part in told]
        targets = pool.rows.targets.numpy()[rows]
        return _logistic(parts, targets, self.penalty) if pool.is_classifier else _linear(parts, targets)


def _told(pool: Pool, model: TrainedModel) -> Array:
    """Log-probabilities [N, K], or standardised values [N]."""
    outputs = pool.outputs(model).astype(np.float64)
    if pool.is_classifier:
        return np.asarray(np.log(np.maximum(outputs, SMALLEST)))
    return (outputs - pool.dataset.target_mean) / pool.dataset.target_std


def _answers(pool: Pool, told: Sequence[Array], weights: Array, offsets: Array) -> Outputs:
    """Probabilities [N, K], or values [N] in the target's own unit."""
    summed = np.tensordot(weights, np.stack(told), axes=1) - offsets
    if not pool.is_classifier:
        return np.asarray(summed * pool.dataset.target_std + pool.dataset.target_mean)
    exponents = np.exp(summed - summed.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def _logistic(told: Sequence[Array], targets: NDArray[np.int64], penalty: float) -> tuple[Array, Array]:
    from scipy.optimize import minimize

    told_MNK = np.stack(told)
    members, rows, classes = told_MNK.shape
    plain = np.full(members, 1.0 / members)
    ones_NK = np.eye(classes)[targets]

    def loss(point: Array) -> tuple[float, Array]:
        weights, offsets = point[:members], point[members:]
        logits_NK = np.tensordot(weights, told_MNK, axes=1) - offsets
        top_N1 = logits_NK.max(axis=1, keepdims=True)
        log_sum_N1 = top_N1 + np.log(np.exp(logits_NK - top_N1).sum(axis=1, keepdims=True))
        wrong_NK = (np.exp(logits_NK - log_sum_N1) - ones_NK) / rows
        value = float((log_sum_N1[:, 0] - (logits_NK * ones_NK).sum(axis=1)).mean())
        value += penalty * float(np.square(weights - plain).sum() + np.square(offsets).sum())
        slope = np.concatenate([np.tensordot(told_MNK, wrong_NK, axes=2), -wrong_NK.sum(axis=0)])
        return value, slope + 2 * penalty * np.concatenate([weights - plain, offsets])

    start = np.concatenate([plain, np.zeros(classes)])
    bounds = [(0.0, None)] * members + [(None, None)] * classes
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return found[:members], found[members:]


def _linear(told: Sequence[Array], targets: Array) -> tuple[Array, Array]:
    """Least squares of the deviations from the means, so that the offset is free."""
    from scipy.optimize import nnls

    told_NM = np.stack(told, axis=1).astype(np.float64)
    weights, _ = nnls(told_NM - told_NM.mean(axis=0), targets.astype(np.float64) - targets.mean())
    return weights, np.array([float(told_NM.mean(axis=0) @ weights - targets.mean())])


def _stacked(pool: Pool, models: Sequence[TrainedModel], weights: Array, offsets: Array, found: dict[str, float]) -> TrainedModel:
    import torch

    from components.fusion.pool import share_of
    from components.models.fused import Stack

    network = Stack([pool.network(model) for model in models], pool.dataset.num_outputs, pool.is_classifier).eval()
    with torch.no_grad():
        network.weights.copy_(torch.from_numpy(weights).view(-1, 1, 1))
        network.offsets.copy_(torch.from_numpy(offsets))
    return pool.fused(
        "stack", models, {"head": "stack"}, network, found, parents=tuple(model.identity for model in models),
        members=tuple(share_of(model, float(weight)) for model, weight in zip(models, weights)),
    )  # fmt: skip
