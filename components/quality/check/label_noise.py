"""Do rows that look alike carry the same label?

Each of at most `rows` training rows is compared with its k nearest others (images shrunk to at most 16 pixels a side,
numbers standardised, categories equal or not). A row is a suspect when at least four fifths of them agree on another
class. A thin check: it finds labels that do not follow from the inputs and gross mislabelling, not single mistakes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.artifacts import CheckResult, DatasetVersion, InputField
from components.data.arrays import load_inputs, load_target
from components.errors import UsageError
from components.quality.interface import Arrays

if TYPE_CHECKING:
    import numpy as np

SIDE = 16


class LabelNoise:
    """Warns when `warn` of the rows are suspects, or when neighbours guess labels no better than the most frequent class does."""

    name = "label_noise"
    modalities = ("image", "table")
    tasks = ("classification",)

    def __init__(self, warn: float = 0.2, rows: int = 2000, neighbours: int = 5) -> None:
        if neighbours < 1 or rows <= neighbours:
            raise UsageError(f"check.label_noise needs 1 <= neighbours < rows, got {neighbours!r} and {rows!r}")
        self.warn, self.rows, self.neighbours = warn, rows, neighbours

    def check(self, dataset: DatasetVersion) -> CheckResult:
        import numpy as np

        total = dataset.splits["train"]
        if total <= self.neighbours or len(dataset.classes) < 2:
            return CheckResult(name=self.name, status="pass", reason=f"{total} training rows are too few to compare neighbours")
        rows = np.sort(np.random.default_rng(0).permutation(total)[: self.rows])
        labels = np.asarray(load_target(dataset, "train"))[rows]
        votes = neighbour_votes(_distances(dataset, rows), labels, len(dataset.classes), self.neighbours)
        others = votes.copy()
        others[np.arange(len(rows)), labels] = 0
        suspects = others.max(axis=1) >= 0.8 * self.neighbours
        disagreement = float((votes.argmax(axis=1) != labels).mean())
        baseline = 1 - float(np.bincount(labels).max() / len(labels))
        return self._result(rows, suspects, disagreement, baseline)

    def _result(self, rows: np.ndarray, suspects: np.ndarray, disagreement: float, baseline: float) -> CheckResult:
        share = float(suspects.mean())
        reason = f"{share:.1%} of {len(rows):,} rows looked at have neighbours that agree on another label"
        chance = 2 * (baseline * (1 - baseline) / len(rows)) ** 0.5  # two standard errors
        unrelated = baseline > 0 and disagreement >= baseline - chance
        if unrelated:
            reason = f"neighbours guess {1 - disagreement:.1%} of the labels, the most frequent class alone {1 - baseline:.1%}"
            reason += ": the labels may not follow from the inputs; check that they were not shuffled"
        elif share >= self.warn:
            reason += "; look at the suspect rows listed in the figures"
        figures = {"suspects": share, "disagreement": disagreement, "baseline": baseline, "rows": rows[suspects][:20].tolist()}
        return CheckResult(name=self.name, status="warn" if unrelated or share >= self.warn else "pass", reason=reason, figures=figures)

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays:
        """The training labels, shuffled."""
        import numpy as np

        return {**arrays, "train/target": np.random.default_rng(0).permutation(arrays["train/target"])}


def neighbour_votes(distances_NN: np.ndarray, labels: np.ndarray, num_classes: int, neighbours: int) -> np.ndarray:
    """int [N, K]: how many of each row's nearest others carry each label."""
    import numpy as np

    distances_NN = distances_NN.copy()
    np.fill_diagonal(distances_NN, np.inf)
    nearest = np.argpartition(distances_NN, neighbours - 1, axis=1)[:, :neighbours]
    votes = np.zeros((len(labels), num_classes), dtype=np.int64)
    np.add.at(votes, (np.repeat(np.arange(len(labels)), neighbours), labels[nearest].ravel()), 1)
    return votes


def _distances(dataset: DatasetVersion, rows: np.ndarray) -> np.ndarray:
    """float32 [N, N]: squared distances summed over the fields, each scaled to weigh by its number of columns."""
    import numpy as np

    arrays = load_inputs(dataset, "train")
    total = np.zeros((len(rows), len(rows)), dtype=np.float32)
    for field in dataset.inputs:
        values = np.asarray(arrays[field.name][rows])
        total += _mismatches(values) if field.dtype == "int64" else _squared(_features(field, values))
    return total


def _features(field: InputField, values: np.ndarray) -> np.ndarray:
    """float32 [N, D]: standardised columns with gaps at their mean, or a shrunken, flattened array."""
    import numpy as np

    if field.columns:
        mean, std = np.array(field.mean, dtype=np.float32), np.array(field.std, dtype=np.float32)
        return np.nan_to_num(np.clip((values - mean) / std, -5, 5)).astype(np.float32)
    steps = [slice(None)] + [slice(None, None, max(1, -(-size // SIDE))) for size in values.shape[1:]]
    return values[tuple(steps)].reshape(len(values), -1).astype(np.float32) / 255


def _squared(features_ND: np.ndarray) -> np.ndarray:
    import numpy as np

    norms = (features_ND**2).sum(axis=1)
    return np.maximum(norms[:, None] + norms[None] - 2 * features_ND @ features_ND.T, 0).astype(np.float32)


def _mismatches(codes_NK: np.ndarray) -> np.ndarray:
    """Twice the number of categories that differ: the squared distance of their one-hot codes."""
    import numpy as np

    total = np.zeros((len(codes_NK), len(codes_NK)), dtype=np.float32)
    for codes in codes_NK.T:
        total += 2 * (codes[:, None] != codes[None])
    return total
