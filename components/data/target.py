"""A table's target: classes or numbers, inferred or said, as an array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.data.columns import number
from components.data.table import Table
from components.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    import numpy as np

TASKS = ("classification", "regression")
MOST_INTEGER_CLASSES = 20  # integers with more distinct values than this are taken for a quantity


def encode_target(table: Table, name: str, task: str | None, num_training: int) -> tuple[np.ndarray, str, tuple[str, ...], str]:
    """The target of all rows (the first `num_training` of them from the training file), its task, classes and a note.

    Raises `DataError` that names the row of a missing target, a value that is no number, or a class only the test file has."""
    if task is not None and task not in TASKS:
        raise UnknownNameError("dataset.task", str(task), TASKS)
    cells = table.columns[name]
    _refuse_missing(table, name, cells)
    told = task or infer_task(cells[:num_training])
    if told == "regression":
        return _values(table, name, cells), told, (), _note(name, told, task, "a quantity")
    labels = _labels(cells, num_training)
    classes = _ordered(labels[:num_training])
    target = _indices(table, name, labels, classes)
    return target, told, classes, _note(name, told, task, f"{len(classes)} classes")


def infer_task(cells: Sequence[str]) -> str:
    """Regression for numbers that are fractions or take many values, classification for everything else."""
    counts = Counter(cells)
    values = [number(text) for text in counts]
    if any(value is None for value in values):
        return "classification"
    whole = all(value is not None and value.is_integer() for value in values)
    few = len(counts) <= MOST_INTEGER_CLASSES and len(counts) <= max(2, len(cells) // 5)
    return "classification" if (whole and few) or len(counts) <= 2 else "regression"


def _note(name: str, told: str, asked: str | None, what: str) -> str:
    return "" if asked else f"target {name!r} taken for {what}: {told} (dataset.task overrides)"


def _refuse_missing(table: Table, name: str, cells: Sequence[str]) -> None:
    if "" in cells:
        where = table.where(cells.index(""))
        count = sum(cell == "" for cell in cells)
        more = f" and {count - 1} more rows" if count > 1 else ""
        raise DataError(f"{where}, column {name!r}: the target is missing (empty or NaN){more}; fill it in or remove the row")


def _values(table: Table, name: str, cells: Sequence[str]) -> np.ndarray:
    import numpy as np

    values = [number(text) for text in cells]
    if None in values:
        row = values.index(None)
        raise DataError(
            f"{table.where(row)}, column {name!r}: the target {cells[row]!r} is not a finite number, which regression needs; "
            "correct it or say dataset.task=classification"
        )
    return np.array(values, dtype=np.float32)


def _labels(cells: Sequence[str], num_training: int) -> list[str]:
    """The labels as classes are compared: whole numbers in one spelling, and a test file's trailing dots (adult's
    `>50K.`) taken off where that makes them labels of the training file."""
    known = set(cells[:num_training])
    values = {text: number(text) for text in set(cells)}
    if all(value is not None and value.is_integer() for value in values.values()):
        return [str(int(values[text] or 0)) for text in cells]
    return [text if text in known or text.rstrip(". ") not in known else text.rstrip(". ") for text in cells]


def _ordered(labels: Sequence[str]) -> tuple[str, ...]:
    classes = set(labels)
    if all(number(text) is not None for text in classes):
        return tuple(sorted(classes, key=lambda text: (number(text), text)))
    return tuple(sorted(classes))


def _indices(table: Table, name: str, labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    import numpy as np

    places = {label: place for place, label in enumerate(classes)}
    for row, label in enumerate(labels):
        if label not in places:
            listed = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise DataError(f"{table.where(row)}, column {name!r}: class {label!r} is in no training row (classes: {listed}); correct it")
    return np.array([places[label] for label in labels], dtype=np.int64)
