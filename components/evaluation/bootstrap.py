"""Intervals by resampling rows: each metric is computed for a thousand resamples at once, as sums weighted by counts.

A resample is how often each row was drawn. Two models judged on the same rows with the same seed share their resamples,
so the difference of their values is a paired bootstrap.

Legend: R resamples, N rows, K classes, G groups of equal scores.
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
    num_classes = probabilities_NK.shape[1]
    areas = [_ranking_area(probabilities_NK[:, k], targets_N == k) for k in ((1,) if num_classes == 2 else range(num_classes))]

    def values(counts_RN: Floats) -> Floats:
        area_KR = np.stack([area(counts_RN) for area in areas])
        defined_R = np.isfinite(area_KR).sum(axis=0)
        return np.where(defined_R > 0, np.nansum(area_KR, axis=0) / np.maximum(defined_R, 1), np.nan)

    return values


def _ranking_area(scores_N: metrics.Array, positive_N: NDArray[np.bool_]) -> Weighted:
    """Area under the ROC curve: per positive the weight of negatives below it, those of equal score half."""
    order_N = np.argsort(scores_N, kind="stable")
    sorted_N, positive_N = scores_N[order_N], positive_N[order_N]
    starts_G = np.flatnonzero(np.r_[True, sorted_N[1:] != sorted_N[:-1]])
    has_ties = len(starts_G) < len(sorted_N)

    def values(counts_RN: Floats) -> Floats:
        counts_RN = counts_RN[:, order_N]
        positive_RG = counts_RN * positive_N
        negative_RG = counts_RN - positive_RG
        if has_ties:
            positive_RG, negative_RG = (np.add.reduceat(of_RN, starts_G, axis=1) for of_RN in (positive_RG, negative_RG))
        below_RG = np.cumsum(negative_RG, axis=1)
        pairs_R = positive_RG.sum(axis=1) * below_RG[:, -1]
        won_R = np.einsum("rg,rg->r", positive_RG, below_RG - negative_RG / 2)
        return np.divide(won_R, pairs_R, out=np.full(len(pairs_R), np.nan), where=pairs_R > 0)

    return values


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
