"""Does a single column give the target away?

For classes, a column's score is the mean one-against-rest AUC of the class frequencies seen in its quantile bins (or
categories), counted on one half of the training rows and scored on the other. For quantities it is the rank
correlation with the target (categories: the share of variance their means explain on the other half).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.artifacts import CheckResult, DatasetVersion
from components.data.arrays import load_inputs, load_target
from components.quality.interface import ANY, Arrays, grade, limits

if TYPE_CHECKING:
    import numpy as np

MAX_ROWS = 20_000
NUM_BINS = 64
FEW_ROWS = 500  # with fewer, a perfect column may be chance: warn at most


class Leakage:
    """Warns when a column alone scores `warn`, fails from `fail` (given at least 500 training rows)."""

    name = "leakage"
    modalities = ("table",)
    tasks = ANY

    def __init__(self, warn: float = 0.98, fail: float = 0.9995) -> None:
        self.warn, self.fail = limits(self.name, warn, fail)

    def check(self, dataset: DatasetVersion) -> CheckResult:
        scores = column_scores(dataset)
        best = max(scores, key=lambda name: scores[name])
        status = grade(scores[best], self.warn, self.fail if dataset.splits["train"] >= FEW_ROWS else float("inf"))
        figure = "AUC" if dataset.task == "classification" else "correlation"
        reason = f"the best single column, {best!r}, reaches {figure} {scores[best]:.4f}"
        if status != "pass":
            reason += (
                f"; if it is known only after the fact, leave it out with dataset.drop=[{best}], else raise check.leakage.{status} above it"
            )
        return CheckResult(name=self.name, status=status, reason=reason, figures={"by_column": scores})

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays:
        """The first number becomes the target."""
        flawed = dict(arrays)
        for split in ("train", "validation", "test"):
            flawed[f"{split}/numbers"] = arrays[f"{split}/numbers"].copy()
            flawed[f"{split}/numbers"][:, 0] = arrays[f"{split}/target"]
        return flawed


def column_scores(dataset: DatasetVersion) -> dict[str, float]:
    """How well each column alone tells the target: AUC (classes) or absolute correlation (quantities)."""
    import numpy as np

    total = dataset.splits["train"]
    rows = np.random.default_rng(0).permutation(total)[:MAX_ROWS]
    target = np.asarray(load_target(dataset, "train"))[rows]
    arrays = load_inputs(dataset, "train")
    scores = {}
    for field in dataset.inputs:
        for place, column in enumerate(field.columns):
            values = np.asarray(arrays[field.name][:, place])[rows]
            is_number = column.kind == "number"
            if dataset.task == "classification":
                scores[column.name] = _auc(_bins(values) if is_number else values, target, len(dataset.classes))
            else:
                scores[column.name] = _rank_correlation(values, target) if is_number else _explained(values, target)
    return scores


def _bins(values: np.ndarray) -> np.ndarray:
    """int64 [N]: the quantile bin of each value, NaN in a bin of its own."""
    import numpy as np

    distinct = np.unique(values[~np.isnan(values)])
    edges = distinct[1:] if distinct.size <= NUM_BINS else np.unique(np.quantile(distinct, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
    return np.where(np.isnan(values), edges.size + 1, np.searchsorted(edges, values, side="right")).astype(np.int64)


def _auc(bins: np.ndarray, target: np.ndarray, num_classes: int) -> float:
    """Mean AUC over the classes that occur on both halves; 0.5 if there is none."""
    import numpy as np

    half = len(bins) // 2
    table = np.zeros((int(bins.max(initial=0)) + 1, num_classes))
    np.add.at(table, (bins[:half], target[:half]), 1.0)
    prior = np.bincount(target[:half], minlength=num_classes) / max(1, half)
    scores_NK = ((table + prior) / (table.sum(axis=1, keepdims=True) + 1.0))[bins[half:]]
    aucs = [_binary_auc(scores_NK[:, label], target[half:] == label) for label in range(num_classes)]
    known = [auc for auc in aucs if auc is not None]
    return float(np.mean(known)) if known else 0.5


def _binary_auc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    import numpy as np

    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return None
    ranks = _ranks(scores)
    return (
        float((ranks[positive].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)) if np.size(ranks) else None
    )


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties averaged."""
    import numpy as np

    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[places]


def _rank_correlation(values: np.ndarray, target: np.ndarray) -> float:
    import numpy as np

    known = ~np.isnan(values)
    first, second = _ranks(values[known]), _ranks(target[known])
    if len(first) < 3 or first.std() == 0 or second.std() == 0:
        return 0.0
    return float(abs(np.corrcoef(first, second)[0, 1]))


def _explained(codes: np.ndarray, target: np.ndarray) -> float:
    """Square root of the variance explained on the second half by the first half's mean of each category."""
    import numpy as np

    half = len(codes) // 2
    size = int(codes.max(initial=0)) + 1
    sums = np.bincount(codes[:half], weights=target[:half], minlength=size)
    counts = np.bincount(codes[:half], minlength=size)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), target[:half].mean() if half else 0.0)
    rest = target[half:].astype(np.float64)
    residual, spread = float(((rest - means[codes[half:]]) ** 2).mean()), float(rest.var())
    return max(0.0, 1 - residual / spread) ** 0.5 if spread else 0.0
