"""A table's target: classes or numbers, inferred or said, as an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING

from components.data.cells import number
from components.data.table import Table
from components.data.tally import tally
from components.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    import numpy as np

TASKS = ("classification", "regression")
MOST_INTEGER_CLASSES = 20  # integers with more distinct values than this are taken for a quantity


def encode_target(table: Table, name: str, task: str | None, training: Sequence[str]) -> tuple[np.ndarray, str, tuple[str, ...], str]:
    """The target of all rows, its task, classes and a note; `training` are its cells in the training file.

    Raises `DataError` that names the row of a missing target, a value that is no number, or a class only the test file has."""
    if task is not None and task not in TASKS:
        raise UnknownNameError("dataset.task", str(task), TASKS)
    cells = table.columns[name]
    _refuse_missing(table, name, cells)
    told = task or infer_task(training)
    if told == "regression":
        return _values(table, name, cells), told, (), _note(name, told, task, "a quantity")
    known = set(training)
    labels = _labels(set(cells), known)
    classes = _ordered({labels[text] for text in known})
    target = _indices(table, name, labels, classes)
    return target, told, classes, _note(name, told, task, f"{len(classes)} classes")


def infer_task(cells: Sequence[str]) -> str:
    """Regression for numbers that are fractions or take many values, classification for everything else."""
    counts = tally(cells)
    if counts.num_others:
        return "classification"
    few = counts.num_distinct <= MOST_INTEGER_CLASSES and counts.num_distinct <= max(2, len(cells) // 5)
    return "classification" if (counts.are_whole and few) or counts.num_distinct <= 2 else "regression"


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

    values = np.empty(len(table), dtype=np.float32)
    for row, text in enumerate(cells):
        value = number(text)
        if value is None:
            raise DataError(
                f"{table.where(row)}, column {name!r}: the target {text!r} is not a finite number, which regression needs; "
                "correct it or say dataset.task=classification"
            )
        values[row] = value
    return values


def _labels(texts: Set[str], known: Set[str]) -> dict[str, str]:
    """Each text as classes are compared: whole numbers in one spelling, and a test file's trailing dots (adult's
    `>50K.`) taken off where that makes them one of the `known` labels of the training file."""
    values = {text: number(text) for text in texts}
    if all(value is not None and value.is_integer() for value in values.values()):
        return {text: str(int(value or 0)) for text, value in values.items()}
    return {text: text if text in known or text.rstrip(". ") not in known else text.rstrip(". ") for text in texts}


def _ordered(classes: Set[str]) -> tuple[str, ...]:
    if all(number(text) is not None for text in classes):
        return tuple(sorted(classes, key=lambda text: (number(text), text)))
    return tuple(sorted(classes))


def _indices(table: Table, name: str, labels: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
    import numpy as np

    places = {label: place for place, label in enumerate(classes)}
    codes = {text: places.get(label, -1) for text, label in labels.items()}
    target = np.fromiter((codes[text] for text in table.columns[name]), dtype=np.int64, count=len(table))
    unknown = np.flatnonzero(target < 0)
    if unknown.size:
        row = int(unknown[0])
        label, listed = labels[table.columns[name][row]], ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise DataError(f"{table.where(row)}, column {name!r}: class {label!r} is in no training row (classes: {listed}); correct it")
    return target
