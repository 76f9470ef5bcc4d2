"""What a quantisation method may look at: training rows to calibrate on, and the objective of a graph on validation.

A method is any object with `precisions: tuple[str, ...]` and `quantize(model, out, precision, validation)`, which writes
`out` from `model` (both .onnx) for one of its precisions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components import metrics
from components.artifacts import DatasetVersion
from components.data.arrays import load_inputs, load_target
from components.export.runtime import Session, feeds

LARGEST_SAMPLE = 2000  # validation rows that judge a graph here: enough to see a broken one; `evaluate` reads all


class Method(Protocol):
    """The interface of the family."""

    precisions: tuple[str, ...]

    def quantize(self, model: Path, out: Path, precision: str, validation: Validation) -> None:
        """Writes `out`, a graph with the inputs, outputs and metadata of `model`."""


class Validation:
    """Rows of one dataset, chosen by `seed`, and the scores of graphs on them."""

    def __init__(self, dataset: DatasetVersion, objective: str, seed: int = 0) -> None:
        self.dataset, self.objective, self.seed = dataset, objective, seed
        self._scores: dict[Path, float] = {}

    def calibration(self, num_rows: int) -> dict[str, NDArray]:
        """Feeds of training rows, drawn without replacement."""
        return self._feeds("train", num_rows)

    def score(self, path: Path) -> float:
        """The objective of a graph on validation rows; remembered by path."""
        if path not in self._scores:
            target = load_target(self.dataset, "validation")[self._rows("validation", LARGEST_SAMPLE)]
            outputs = Session(path).run_in_batches(self._feeds("validation", LARGEST_SAMPLE))
            self._scores[path] = metrics.compute(self.objective, outputs, target)
        return self._scores[path]

    def forget(self, path: Path) -> None:
        """The file at `path` is about to change."""
        self._scores.pop(path, None)

    def loss(self, before: Path, after: Path) -> float:
        """How much of the objective `after` loses: in its own unit, for errors as a share; NaN counts as infinite."""
        old, new = self.score(before), self.score(after)
        lost = old - new if metrics.direction(self.objective) == "maximize" else (new - old) / max(abs(old), 1e-12)
        return float("inf") if np.isnan(lost) else lost

    def _feeds(self, split: str, num_rows: int) -> dict[str, NDArray]:
        rows = self._rows(split, num_rows)
        return feeds(self.dataset, {name: array[rows] for name, array in load_inputs(self.dataset, split).items()})

    def _rows(self, split: str, num_rows: int) -> NDArray[np.intp]:
        count = self.dataset.splits[split]
        return np.sort(np.random.default_rng(self.seed).permutation(count)[:num_rows])
