"""What stored arrays show: class counts, confusion, calibration, residuals and the worst mistakes, ready to be drawn.

Everything is computed from the arrays that the records point at; an array that is no longer stored (the artifact
store may be cleaned) is None here, and the page leaves out what needed it.

Legend: N rows, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import metrics
from components.artifacts import DatasetVersion, EvaluationReport, InputField, StoredFile
from components.report import pictures, words
from components.report.charts import Bin

Floats = NDArray[np.floating]

MOST_POINTS = 1500  # of a scatter chart; more rows are thinned evenly
LARGEST_MATRIX = 100  # classes; a larger confusion matrix is told by its worst pairs only


def array(file: StoredFile | None) -> NDArray[Any] | None:
    """A stored .npy, memory-mapped; None where the file is gone."""
    return np.load(file.path, mmap_mode="r", allow_pickle=False) if file is not None and file.path.is_file() else None


def outcome(report: EvaluationReport) -> tuple[Floats, NDArray[Any]] | None:
    """The chosen model's test outputs (probabilities [N, K] or values [N]) and the targets [N]; None if they are gone."""
    outputs, targets = array(report.predictions), array(report.targets)
    return None if outputs is None or targets is None or not len(targets) else (np.asarray(outputs), np.asarray(targets))


# ---- classes --------------------------------------------------------------------------------------------------


def class_counts(dataset: DatasetVersion) -> dict[str, list[int]]:
    """Rows of each class by split, for the splits whose targets are stored."""
    found = {split: array(dataset.files.get(f"{split}/target")) for split in dataset.splits}
    counted = {s: np.bincount(t.astype(np.int64), minlength=len(dataset.classes)) for s, t in found.items() if t is not None}
    return {split: [int(n) for n in counts] for split, counts in counted.items()}


@dataclass(frozen=True)
class ClassRow:
    """One class on the test split."""

    name: str
    rows: int
    precision: float
    recall: float
    taken_for: str  # the class it is most often mistaken for, with the count


def confusion(report: EvaluationReport) -> NDArray[np.int64] | None:
    """Counts [K, K], row the target, column the answer; None where the evaluation kept none."""
    counts = report.figures.get("confusion")
    return np.asarray(counts, dtype=np.int64) if counts else None


def class_rows(counts_KK: NDArray[np.int64], classes: tuple[str, ...]) -> list[ClassRow]:
    """Precision, recall and the commonest mistake of each class, the lowest recall first."""
    actual_K, predicted_K, right_K = counts_KK.sum(axis=1), counts_KK.sum(axis=0), counts_KK.diagonal()
    wrong_KK = counts_KK - np.diag(right_K)
    rows = []
    for k, name in enumerate(classes):
        other = int(wrong_KK[k].argmax())
        taken_for = f"{classes[other]} ({wrong_KK[k, other]})" if wrong_KK[k, other] else words.NONE
        precision, recall = right_K[k] / max(predicted_K[k], 1), right_K[k] / max(actual_K[k], 1)
        rows.append(ClassRow(name, int(actual_K[k]), float(precision), float(recall), taken_for))
    return sorted(rows, key=lambda row: (row.recall, -row.rows))


def calibration(report: EvaluationReport) -> tuple[list[Bin], float] | None:
    """The reliability diagram's bins, empty ones left out, and the expected calibration error."""
    found = report.figures.get("calibration")
    return ([Bin(**row) for row in found["bins"]], float(found["error"])) if found else None


# ---- values ---------------------------------------------------------------------------------------------------


def pairs(values_N: Floats, targets_N: NDArray[Any]) -> list[tuple[float, float]]:
    """(predicted, true) of the rows, thinned evenly to what a chart can bear."""
    step = max(1, -(-len(targets_N) // MOST_POINTS))
    return [(float(v), float(t)) for v, t in zip(values_N.reshape(-1)[::step], targets_N[::step])]


def bins_of(values_N: NDArray[Any], num_bins: int = 24) -> tuple[list[float], list[int]]:
    """Edges and counts of a histogram over the middle 99 % of the values; the end bins take what lies beyond."""
    kept = np.asarray(values_N, dtype=np.float64).reshape(-1)
    low, high = np.quantile(kept, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(kept, low, high), bins=num_bins, range=(low, high))
    return [float(e) for e in edges], [int(c) for c in counts]


# ---- the worst mistakes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mistake:
    """A test row that the chosen model got wrong: in words, and as a picture or as named values where it has such inputs."""

    row: int
    truth: str
    said: str
    sureness: str
    picture: str = ""
    values: tuple[tuple[str, str], ...] = ()


def mistakes(report: EvaluationReport, outputs: Floats, targets_N: NDArray[Any], most: int = 12) -> list[Mistake]:
    """The wrong rows the model was surest of, or the largest residuals, worst first."""
    shown = _Rows(report.dataset)
    if report.dataset.task != "classification":
        residual_N = metrics.residuals(outputs, targets_N)
        worst = [int(i) for i in np.argsort(-np.abs(residual_N), kind="stable")[:most]]
        return [_miss(i, float(outputs.reshape(-1)[i]), float(targets_N[i]), shown) for i in worst]
    classes = report.dataset.classes
    said_N, sure_N = outputs.argmax(axis=1), outputs.max(axis=1)
    wrong = np.flatnonzero(said_N != targets_N)
    worst = [int(i) for i in wrong[np.argsort(-sure_N[wrong], kind="stable")][:most]]
    return [
        Mistake(i, classes[int(targets_N[i])], classes[int(said_N[i])], words.share(float(sure_N[i])), shown.picture(i), shown.values(i))
        for i in worst
    ]


def _miss(row: int, value: float, target: float, shown: _Rows) -> Mistake:
    return Mistake(row, words.figure(target), words.figure(value), words.difference(target, value), shown.picture(row), shown.values(row))


class _Rows:
    """The test rows as people can look at them: an input [C, H, W] of bytes is a picture, columns are named values."""

    def __init__(self, dataset: DatasetVersion) -> None:
        arrays = [(spec, array(dataset.files.get(f"test/{spec.name}"))) for spec in dataset.inputs]
        self._fields = [(spec, stored) for spec, stored in arrays if stored is not None]

    def picture(self, row: int) -> str:
        for spec, stored in self._fields:
            if spec.dtype == "uint8" and len(spec.shape) == 3:
                return pictures.of_array(np.asarray(stored[row]))
        return ""

    def values(self, row: int) -> tuple[tuple[str, str], ...]:
        found = [pair for spec, stored in self._fields for pair in _named(spec, stored[row])]
        return tuple(found)


def _named(spec: InputField, row: NDArray[Any]) -> list[tuple[str, str]]:
    return [(column.name, _cell(column.kind, column.vocabulary, value)) for column, value in zip(spec.columns, row)]


def _cell(kind: str, vocabulary: tuple[str, ...], value: Any) -> str:
    if kind == "category":
        return vocabulary[int(value) - 1] if 0 < int(value) <= len(vocabulary) else "(unseen)"
    return "missing" if np.isnan(value) else words.setting(float(value))
