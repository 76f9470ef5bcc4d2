"""Figures that explain a metric: calibration, one row per class, residuals. Plain JSON for the report."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components import metrics
from components.artifacts import JSON

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def calibration(probabilities_NK: NDArray[np.floating], targets_N: NDArray[np.integer], num_bins: int) -> JSON:
    """Equal-width bins of the top class's probability, and the expected calibration error: the mean gap between
    confidence and accuracy, weighted by rows (Naeini et al. 2015). Empty bins are left out."""
    confidence_N = probabilities_NK.max(axis=1).astype(np.float64)
    hit_N = (probabilities_NK.argmax(axis=1) == targets_N).astype(np.float64)
    bin_N = np.minimum((confidence_N * num_bins).astype(np.int64), num_bins - 1)
    count_B = np.bincount(bin_N, minlength=num_bins)
    filled = np.flatnonzero(count_B)
    confidence_B = np.bincount(bin_N, confidence_N, minlength=num_bins)[filled] / count_B[filled]
    accuracy_B = np.bincount(bin_N, hit_N, minlength=num_bins)[filled] / count_B[filled]
    error = float((np.abs(confidence_B - accuracy_B) * count_B[filled]).sum() / count_B.sum())
    rows = zip(filled, count_B[filled], confidence_B, accuracy_B)
    bins = [
        {"low": int(b) / num_bins, "high": (int(b) + 1) / num_bins, "rows": int(n), "confidence": float(c), "accuracy": float(a)}
        for b, n, c, a in rows
    ]
    return {"error": error, "bins": bins}


def per_class(probabilities_NK: NDArray[np.floating], targets_N: NDArray[np.integer]) -> list[JSON]:
    """Rows, precision and recall of each class, in the order of the classes; 0 where a ratio has no denominator."""
    counts_KK = metrics.confusion(probabilities_NK, targets_N)
    hit_K, predicted_K, actual_K = counts_KK.diagonal(), counts_KK.sum(axis=0), counts_KK.sum(axis=1)
    precision_K, recall_K = hit_K / np.maximum(predicted_K, 1), hit_K / np.maximum(actual_K, 1)
    return [{"rows": int(n), "precision": float(p), "recall": float(r)} for n, p, r in zip(actual_K, precision_K, recall_K)]


def residual_summary(values_N: NDArray[np.floating], targets_N: NDArray[np.floating], num_bins: int) -> JSON:
    """Quantiles and a histogram of target minus value, in the target's unit."""
    residuals_N = metrics.residuals(values_N, targets_N)
    counts, edges = np.histogram(residuals_N, bins=num_bins)
    quantiles = np.quantile(residuals_N, QUANTILES)
    return {
        "quantiles": {f"{q:g}": float(value) for q, value in zip(QUANTILES, quantiles)},
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def baseline(train_targets_N: NDArray[np.generic], num_rows: int, num_classes: int) -> NDArray[np.float32]:
    """What a model without inputs answers: the classes' frequencies in training [N, K], or their mean [N] (`num_classes` 0)."""
    if not num_classes:
        return np.full(num_rows, train_targets_N.mean(), dtype=np.float32)
    frequency_K = np.bincount(train_targets_N.astype(np.int64), minlength=num_classes) / len(train_targets_N)
    return np.tile(frequency_K.astype(np.float32), (num_rows, 1))
