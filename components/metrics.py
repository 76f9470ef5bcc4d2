"""Metrics by name: what training, search and evaluation mean by accuracy, auc, rmse and the rest.

Outputs are what an exported graph returns: probabilities [N, K] for classification, values [N] for regression.
Targets are class indices [N] or values [N]. Every metric is a number for the whole of the rows; outputs that are not
finite give NaN, which `is_better` never prefers.

Legend: N rows, K classes, G groups of equal scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import UnknownNameError, UsageError

Array = NDArray[Any]

# Probabilities leave the graph as float32: below its epsilon a zero is a rounding, not a certainty.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)


def compute(name: str, outputs: Array, targets: Array) -> float:
    """The metric `name` of `outputs` against `targets`; NaN where it is undefined (no rows, no finite output, one class for auc)."""
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    if not len(targets) or not np.isfinite(outputs).all():
        return math.nan
    return float(_metric(name)(outputs, targets))


def direction(name: str) -> str:
    """`maximize` or `minimize`."""
    _metric(name)
    return "minimize" if name in ERRORS else "maximize"


def task(name: str) -> str:
    """The task a metric judges: `classification` or `regression`."""
    _metric(name)
    return "classification" if name in CLASSIFICATION else "regression"


def names(for_task: str) -> tuple[str, ...]:
    """The metrics of a task, the default objective first."""
    return tuple(CLASSIFICATION if for_task == "classification" else REGRESSION)


def default_objective(for_task: str) -> str:
    """What is optimised when the user names nothing: accuracy, or the root of the mean squared error."""
    return names(for_task)[0]


def objective(name: str | None, for_task: str) -> str:
    """`name`, or the task's default for None. Raises `UsageError` for a metric that does not exist or does not fit the task."""
    if name is None:
        return default_objective(for_task)
    if not isinstance(name, str) or name not in METRICS:
        raise UnknownNameError("metrics.objective", name, names(for_task))
    if name not in names(for_task):
        fitting = ", ".join(names(for_task))
        raise UsageError(f"metrics.objective={name} judges {task(name)}, this dataset's task is {for_task}; choose one of {fitting}")
    return name


def is_better(name: str, value: float, than: float) -> bool:
    """Whether `value` is strictly better; NaN is worse than any number."""
    if math.isnan(value):
        return False
    if math.isnan(than):
        return True
    return value < than if direction(name) == "minimize" else value > than


def _metric(name: str) -> Callable[[Array, Array], float]:
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    return METRICS[name]


# ---- classification -------------------------------------------------------------------------------------------


def accuracy(probabilities_NK: Array, targets_N: Array) -> float:
    """Share of rows whose most probable class is the target."""
    return float((probabilities_NK.argmax(axis=1) == targets_N).mean())


def log_loss(probabilities_NK: Array, targets_N: Array) -> float:
    """Mean negative log-likelihood (nats) of the targets."""
    return float(surprise(probabilities_NK, targets_N).mean())


def surprise(probabilities_NK: Array, targets_N: Array) -> NDArray[np.float64]:
    """Negative log-likelihood (nats) of each row's target, [N]."""
    of_target = np.take_along_axis(probabilities_NK, targets_N.astype(np.int64)[:, None], axis=1)[:, 0].astype(np.float64)
    return -np.log(np.clip(of_target, SMALLEST_PROBABILITY, 1.0))


def auc(probabilities_NK: Array, targets_N: Array) -> float:
    """Area under the ROC curve: of the second class for two, else the mean of one-versus-rest over the classes whose area exists."""
    num_classes = probabilities_NK.shape[1]
    judged = (1,) if num_classes == 2 else range(num_classes)
    areas = [ranking_area(probabilities_NK[:, k], targets_N == k) for k in judged]
    areas = [area for area in areas if not math.isnan(area)]
    return float(np.mean(areas)) if areas else math.nan


def ranking_area(scores_N: Array, positive_N: NDArray[np.bool_]) -> float:
    """Probability that a positive row scores above a negative one, ties half (Mann-Whitney); NaN without both kinds."""
    num_positive = int(positive_N.sum())
    num_negative = len(positive_N) - num_positive
    if not num_positive or not num_negative:
        return math.nan
    rank_sum = mid_ranks(scores_N)[positive_N].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def mid_ranks(scores_N: Array) -> NDArray[np.float64]:
    """Ranks from 1 in ascending order; equal scores share their mean rank."""
    _, group_N, size_G = np.unique(scores_N, return_inverse=True, return_counts=True)
    return (np.cumsum(size_G) - (size_G - 1) / 2)[group_N]


def confusion(probabilities_NK: Array, targets_N: Array) -> NDArray[np.int64]:
    """Counts [K, K]: row the target, column the most probable class."""
    num_classes = probabilities_NK.shape[1]
    pairs_N = targets_N.astype(np.int64) * num_classes + probabilities_NK.argmax(axis=1)
    return np.bincount(pairs_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def precision(probabilities_NK: Array, targets_N: Array) -> float:
    """Mean over the classes that occur of true positives by predicted ones (0 where none is predicted)."""
    return _macro(probabilities_NK, targets_N, lambda hit, predicted, actual: (hit, predicted))


def recall(probabilities_NK: Array, targets_N: Array) -> float:
    """Mean over the classes that occur of true positives by actual ones (0 where none is actual)."""
    return _macro(probabilities_NK, targets_N, lambda hit, predicted, actual: (hit, actual))


def f1(probabilities_NK: Array, targets_N: Array) -> float:
    """Mean over the classes that occur of the harmonic mean of precision and recall."""
    return _macro(probabilities_NK, targets_N, lambda hit, predicted, actual: (2 * hit, predicted + actual))


def _macro(probabilities_NK: Array, targets_N: Array, ratio: Callable[..., tuple[Array, Array]]) -> float:
    counts_KK = confusion(probabilities_NK, targets_N)
    hit_K, predicted_K, actual_K = counts_KK.diagonal(), counts_KK.sum(axis=0), counts_KK.sum(axis=1)
    upper_K, lower_K = ratio(hit_K, predicted_K, actual_K)
    occurs_K = (predicted_K + actual_K) > 0
    return float((upper_K[occurs_K] / np.maximum(lower_K[occurs_K], 1)).mean())


# ---- regression -----------------------------------------------------------------------------------------------


def rmse(values_N: Array, targets_N: Array) -> float:
    """Root of the mean squared error, in the target's unit."""
    return float(np.sqrt(np.square(residuals(values_N, targets_N)).mean()))


def mae(values_N: Array, targets_N: Array) -> float:
    """Mean absolute error, in the target's unit."""
    return float(np.abs(residuals(values_N, targets_N)).mean())


def r2(values_N: Array, targets_N: Array) -> float:
    """Share of the targets' variance that is explained; for constant targets 1 if exact, else 0."""
    unexplained = np.square(residuals(values_N, targets_N)).sum()
    total = np.square(targets_N.astype(np.float64) - targets_N.astype(np.float64).mean()).sum()
    if total == 0:
        return 1.0 if unexplained == 0 else 0.0
    return float(1 - unexplained / total)


def residuals(values_N: Array, targets_N: Array) -> NDArray[np.float64]:
    """Target minus value, [N]; a trailing axis of one is dropped."""
    return targets_N.astype(np.float64).reshape(-1) - values_N.astype(np.float64).reshape(-1)


CLASSIFICATION = {"accuracy": accuracy, "auc": auc, "log_loss": log_loss, "f1": f1, "precision": precision, "recall": recall}
REGRESSION = {"rmse": rmse, "mae": mae, "r2": r2}
METRICS: dict[str, Callable[[Array, Array], float]] = {**CLASSIFICATION, **REGRESSION}
ERRORS = frozenset({"log_loss", "rmse", "mae"})
