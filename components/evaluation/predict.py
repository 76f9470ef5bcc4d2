"""Predictions for new files with an exported graph alone: ONNX Runtime and the data set's own reader, no PyTorch.

    found = predict(Path("champion.onnx"), Path("new.csv"))
    with open("predictions.csv", "w", newline="") as file:
        write_csv(found, file)
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from components.artifacts import JSON

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """Answers in the order of the rows: `outputs` are probabilities [N, K] of `classes`, or values [N] where there are none."""

    rows: list[str]
    classes: tuple[str, ...]
    outputs: NDArray

    def answers(self) -> list[str] | list[float]:
        """The most probable class of each row, or its value."""
        if not self.classes:
            return [float(value) for value in self.outputs]
        return [self.classes[index] for index in self.outputs.argmax(axis=1)]

    def to_json(self) -> list[JSON]:
        """One object per row: `row`, `prediction` and, for classes, `probabilities` by class."""
        rows = [{"row": name, "prediction": answer} for name, answer in zip(self.rows, self.answers())]
        if not self.classes:
            return rows
        shares = ({"probabilities": dict(zip(self.classes, (float(p) for p in of_row)))} for of_row in self.outputs)
        return [{**row, **share} for row, share in zip(rows, shares)]


def predict(model: Path, path: Path, source: JSON | None = None) -> Predictions:
    """Reads new rows from `path` as the model's data set was read (or as `source`, another reader's configuration, says) and answers them.

    Raises `DataError` for rows that do not fit the model's inputs, and for a model file that is none.
    """
    from components.data.version import read_rows
    from components.export.runtime import Session, feeds

    session = Session(model)
    names, arrays = read_rows(source or session.spec.source, session.spec.inputs, path)
    outputs = session.run_in_batches(feeds(session.spec, arrays))
    return Predictions(rows=names, classes=session.spec.classes, outputs=outputs)


def write_csv(predictions: Predictions, file: IO[str]) -> None:
    """Columns `row`, `prediction` and, for classes, `probability:<class>` (six decimals)."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "prediction", *(f"probability:{name}" for name in predictions.classes)])
    writer.writerows(_lines(predictions))


def _lines(predictions: Predictions) -> Iterator[list[str]]:
    answers = predictions.answers()
    for index, (name, answer) in enumerate(zip(predictions.rows, answers)):
        shares = [f"{share:.6f}" for share in predictions.outputs[index]] if predictions.classes else []
        yield [name, str(answer), *shares]
