"""Intervals by resampling rows: each metric is computed for a thousand resamples at once, as sums weighted by counts.

A resample is how often each row was drawn. Two models judged on the same rows with the same seed share their resamples,
so the difference of their values is a paired bootstrap.

Legend: R resamples, N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from components import metrics
from components.artifacts import Estimate

Floats = NDArray[np.float64]
Weighted = Callable[[Floats], Floats]
CHUNK_ENTRIES = 2_000_000  # counts held at once: 16 MB


def estimates(
    names: tuple[str, ...], outputs: metrics.Array, targets_N: metrics.Array, *,
    resamples: int = 1000, confidence: float = 0.95, seed: int = 0,
) -> dict[str, Estimate]:  # fmt: skip
    """Each metric with its percentile interval, widened to hold the value; a metric undefined on these rows is left out.

    A metric that no resample changes (all rows right) gets an interval without width.
    """
    values = {name: metrics.compute(name, outputs, targets_N) for name in names}
    defined = tuple(name for name, value in values.items() if not np.isnan(value))
    spread = distributions(defined, outputs, targets_N, resamples=resamples, seed=seed)
    return {name: _estimate(values[name], spread[name], confidence) for name in defined}


def distributions(
    names: tuple[str, ...], outputs: metrics.Array, targets_N: metrics.Array, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Floats]:  # fmt: skip
    """Each metric's values [R] over resamples of the rows; NaN where a resample leaves it undefined."""
    outputs, targets_N = np.asarray(outputs), np.asarray(targets_N)
    weighted = {name: WEIGHTED[name](outputs, targets_N) for name in names}
    found: dict[str, list[Floats]] = {name: [] for name in names}
    for counts_RN in _resamples(len(targets_N), resamples, seed):
        for name in names:
            found[name].append(weighted[name](counts_RN))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def paired_difference(
    name: str, outputs: metrics.Array, others: metrics.Array, targets_N: metrics.Array, *,
    resamples: int = 1000, confidence: float = 0.95, seed: int = 0,
) -> Estimate:  # fmt: skip
    """How much `outputs` exceeds `others` in a metric on the same rows, with its interval (positive: the value is larger)."""
    ours, theirs = (distributions((name,), side, targets_N, resamples=resamples, seed=seed)[name] for side in (outputs, others))
    value = metrics.compute(name, outputs, targets_N) - metrics.compute(name, others, targets_N)
    return _estimate(value, ours - theirs, confidence)


def _estimate(value: float, values_R: Floats, confidence: float) -> Estimate:
    finite_R = values_R[np.isfinite(values_R)]
    if not len(finite_R):
        return Estimate(value=value, low=value, high=value)
    low, high = np.quantile(finite_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))


def _resamples(num_rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Counts [R, N] of how often each row was drawn, in chunks of bounded size."""
    generator = np.random.default_rng(seed)
    chunk = max(1, min(resamples, CHUNK_ENTRIES // max(num_rows, 1)))
    for start in range(0, resamples, chunk):
        rounds = range(min(chunk, resamples - start))
        yield np.stack([np.bincount(generator.integers(0, num_rows, num_rows), minlength=num_rows) for _ in rounds]).astype(np.float64)


# ---- one weighted form per metric -----------------------------------------------------------------------------


def _mean_of(per_row_N: Floats) -> Weighted:
    return lambda counts_RN: counts_RN @ per_row_N / counts_RN.sum(axis=1)


def _accuracy(probabilities_NK: metrics.Array, targets_N: metrics.Array) -> Weighted:
    return _mean_of((probabilities_NK.argmax(axis=1) == targets_N).astype(np.float64))


def _log_loss(probabilities_NK: metrics.Array, targets_N: metrics.Array) -> Weighted:
    return _mean_of(metrics.surprise(probabilities_NK, targets_N))


def _macro(ratio: Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]) -> Callable[[metrics.Array, metrics.Array], Weighted]:
    def prepare(probabilities_NK: metrics.Array, targets_N: metrics.Array) -> Weighted:
        one_hot_KK = np.eye(probabilities_NK.shape[1])
        predicted_NK, actual_NK = one_hot_KK[probabilities_NK.argmax(axis=1)], one_hot_KK[targets_N.astype(np.int64)]

        def values(counts_RN: Floats) -> Floats:
            hit_RK, predicted_RK, actual_RK = (counts_RN @ of_NK for of_NK in (predicted_NK * actual_NK, predicted_NK, actual_NK))
            upper_RK, lower_RK = ratio(hit_RK, predicted_RK, actual_RK)
            occurs_RK = (predicted_RK + actual_RK) > 0
            return np.where(occurs_RK, upper_RK / np.maximum(lower_RK, 1), 0).sum(axis=1) / occurs_RK.sum(axis=1)

        return values

    return prepare


def _auc(probabilities_NK: metrics.Array, targets_N: metrics.Array) -> Weighted:
    """To first order in the counts (Hájek's projection): a resample's area is the mean of its rows' placements (DeLong 1988).

    Exact areas need a sort per class and resample; with 77 classes they take sixty times as long, and differ by O(1 / N).
    """
    num_classes = probabilities_NK.shape[1]
    named = [1] if num_classes == 2 else range(num_classes)
    judged = [k for k in named if 0 < (targets_N == k).sum() < len(targets_N)]
    if not judged:
        return lambda counts_RN: np.full(len(counts_RN), np.nan)
    positive_NK = np.stack([targets_N == k for k in judged], axis=1).astype(np.float64)
    placed_NK = np.stack([_placements(probabilities_NK[:, k], targets_N == k) for k in judged], axis=1)
    area_K = (positive_NK * placed_NK).sum(axis=0) / positive_NK.sum(axis=0)

    def values(counts_RN: Floats) -> Floats:
        upper_RK, lower_RK = counts_RN @ (positive_NK * placed_NK), counts_RN @ ((1 - positive_NK) * placed_NK)
        num_positive_RK = counts_RN @ positive_NK
        num_negative_RK = counts_RN.sum(axis=1, keepdims=True) - num_positive_RK
        defined_RK = (num_positive_RK > 0) & (num_negative_RK > 0)
        area_RK = upper_RK / np.maximum(num_positive_RK, 1) + lower_RK / np.maximum(num_negative_RK, 1) - area_K
        num_defined_R = defined_RK.sum(axis=1)
        mean_R = np.where(defined_RK, np.clip(area_RK, 0, 1), 0).sum(axis=1) / np.maximum(num_defined_R, 1)
        return np.where(num_defined_R > 0, mean_R, np.nan)

    return values


def _placements(scores_N: metrics.Array, positive_N: NDArray[np.bool_]) -> Floats:
    """For a positive row the share of negatives below it, for a negative row the share of positives above it; ties half."""
    rank_N = metrics.mid_ranks(scores_N)
    placed_N = np.empty(len(rank_N))
    for side_N in (positive_N, ~positive_N):
        placed_N[side_N] = (rank_N[side_N] - metrics.mid_ranks(scores_N[side_N])) / max(int((~side_N).sum()), 1)
    return np.where(positive_N, placed_N, 1 - placed_N)


def _rmse(values_N: metrics.Array, targets_N: metrics.Array) -> Weighted:
    mean_square = _mean_of(np.square(metrics.residuals(values_N, targets_N)))
    return lambda counts_RN: np.sqrt(mean_square(counts_RN))


def _mae(values_N: metrics.Array, targets_N: metrics.Array) -> Weighted:
    return _mean_of(np.abs(metrics.residuals(values_N, targets_N)))


def _r2(values_N: metrics.Array, targets_N: metrics.Array) -> Weighted:
    square_N = np.square(metrics.residuals(values_N, targets_N))
    centred_N = targets_N.astype(np.float64) - targets_N.astype(np.float64).mean()

    def values(counts_RN: Floats) -> Floats:
        num_rows_R = counts_RN.sum(axis=1)
        total_R = counts_RN @ np.square(centred_N) - np.square(counts_RN @ centred_N) / num_rows_R
        return 1 - np.divide(counts_RN @ square_N, total_R, out=np.full(len(total_R), np.nan), where=total_R > 0)

    return values


WEIGHTED: dict[str, Callable[[metrics.Array, metrics.Array], Weighted]] = {
    "accuracy": _accuracy, "auc": _auc, "log_loss": _log_loss,
    "f1": _macro(lambda hit, predicted, actual: (2 * hit, predicted + actual)),
    "precision": _macro(lambda hit, predicted, actual: (hit, predicted)),
    "recall": _macro(lambda hit, predicted, actual: (hit, actual)),
    "rmse": _rmse, "mae": _mae, "r2": _r2,
}  # fmt: skip
