"""What a table's columns are: numbers, categories, dates, or nothing a model can use; and their arrays.

Kinds are inferred from all rows of the training file (they are its schema). Statistics and vocabularies come from the
training rows alone. A date becomes several numbers, named `<column> (days)`, `(month)`, `(weekday)` and `(hour)`.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.artifacts import Column, InputField
from components.data.cells import blocks
from components.data.cells import number as number
from components.data.table import Table
from components.data.tally import MOST_TEXTS, Tally, tally
from components.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    import numpy as np

    from components.data.spool import Columns, Spool

NUM_KNOTS = 17  # quantile knots of a number: 16 pieces of a piecewise-linear encoding
DATE_PARTS = ("days", "month", "weekday", "hour")
DATE_FORMATS = (
    "iso", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%d-%m-%Y", "%d %b %Y", "%d %B %Y",
    "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y %H:%M",
    "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S",
)  # fmt: skip
PLACEHOLDER = re.compile(r"[^\w]+|unknown|missing|none|nil|n\.a\.|not available", re.IGNORECASE)
IDENTIFIER = re.compile(r"(^|[^a-z])(id|uuid|guid)$|[a-z]I[dD]$")
ALMOST_ALL = 0.99  # this share of numbers in a column makes the rest mistakes, not categories
MOSTLY = 0.9  # this share of numbers, with only placeholders beside them, makes placeholders missing values
HELD_BYTES = 2**20  # of a column of numbers that stay in memory
FEW_ROWS = 20  # below it, "every value differs" says nothing about identifiers
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The columns a model can use, in the table's order; `dates` maps a column to its format, `placeholders` are texts
    that stand for a missing number."""

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    dates: dict[str, str]
    placeholders: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user says of columns, against the inference."""

    drop: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    dates: Mapping[str, str] = ()  # type: ignore[assignment]


@dataclass
class _Findings:
    numbers: list[str]
    categories: list[str]
    dates: dict[str, str]
    placeholders: list[str]
    notes: list[str]


def infer(table: Table, target: str, wishes: Wishes) -> Schema:
    """The kind of each column but the target. Raises `DataError` if no column is left or one is neither numbers nor text."""
    for option, names in (("drop", wishes.drop), ("numbers", wishes.numbers), ("categories", wishes.categories), ("dates", wishes.dates)):
        for name in names:
            if name not in table.columns:
                raise UnknownNameError(f"column in dataset.{option}", name, table.names)
    found = _Findings([], [], {}, [], [])
    for name in table.names:
        if name != target and name not in wishes.drop:
            _infer_column(table, name, wishes, found)
    if not (found.numbers or found.categories or found.dates):
        raise DataError(f"{table.places[0][1]} has no column to learn from beside {target!r}: {'; '.join(found.notes) or 'add one'}")
    return Schema(
        numbers=tuple(found.numbers), categories=tuple(found.categories), dates=found.dates,
        placeholders=tuple(dict.fromkeys(found.placeholders)), notes=tuple(found.notes),
    )  # fmt: skip


def _infer_column(table: Table, name: str, wishes: Wishes, found: _Findings) -> None:
    cells = table.columns[name]
    counts = tally(cells)
    if not counts.num_texts:
        found.notes.append(f"column {name!r} left out: it is empty")
    elif name in dict(wishes.dates):
        found.dates[name] = dict(wishes.dates)[name]
    elif name in wishes.numbers:
        found.numbers.append(name)
    elif name in wishes.categories or name in table.textual:
        _as_text(name, cells, counts, found, forced=name in wishes.categories)
    elif _are_numbers(table, name, counts, found):
        _as_number(name, cells, counts, found)
    else:
        _as_text(name, cells, counts, found, forced=False)


def _are_numbers(table: Table, name: str, counts: Tally, found: _Findings) -> bool:
    """Whether a column holds numbers; placeholders among them are noted, a mistake among them is refused."""
    others = list(counts.others)
    share = 1 - counts.num_others / counts.num_texts
    if not others:
        return True
    if share >= MOSTLY and all(PLACEHOLDER.fullmatch(text) for text in others):
        found.placeholders.extend(others)
        found.notes.append(f"column {name!r}: {', '.join(map(repr, others))} read as missing among numbers")
        return True
    if share >= ALMOST_ALL and counts.num_distinct > FEW_ROWS:
        row = table.columns[name].index(others[0])
        raise DataError(
            f"{table.where(row)}, column {name!r}: {others[0]!r} is not a number, as {share:.1%} of the column are; correct it, "
            f"list it in dataset.na_values, or name the column in dataset.categories"
        )
    return False


def _as_number(name: str, cells: Sequence[str], counts: Tally, found: _Findings) -> None:
    if len(counts.values) == 1 and counts.num_missing:
        found.categories.append(name)
    elif len(counts.values) == 1:
        found.notes.append(f"column {name!r} left out: it is always {counts.first}")
    elif _counts_rows(cells) or (IDENTIFIER.search(name) and counts.num_distinct == len(cells) > FEW_ROWS):
        found.notes.append(f"column {name!r} left out: it identifies the row (dataset.numbers keeps it)")
    else:
        found.numbers.append(name)


def _counts_rows(cells: Sequence[str]) -> bool:
    if len(cells) <= FEW_ROWS or not cells[0].isdecimal():
        return False
    first = int(cells[0])
    return all(cell == str(first + offset) for offset, cell in enumerate(cells))


def _as_text(name: str, cells: Sequence[str], counts: Tally, found: _Findings, *, forced: bool) -> None:
    layout = None if forced else date_format(cells)
    total, num_distinct = counts.num_texts, counts.num_distinct
    if num_distinct == 1 and not counts.num_missing:
        found.notes.append(f"column {name!r} left out: it is always {counts.first!r}")
    elif layout is not None:
        found.dates[name] = layout
        found.notes.append(f"column {name!r} read as dates ({layout}); dataset.dates={{{name}: FORMAT}} overrides")
    elif not forced and total > FEW_ROWS and num_distinct > 0.9 * total:
        found.notes.append(f"column {name!r} left out: {num_distinct} texts in {total} rows identify the row (dataset.categories keeps it)")
    elif not forced and _is_prose(counts):
        found.notes.append(f"column {name!r} left out: it holds free text (dataset.categories keeps it)")
    else:
        found.categories.append(name)


def _is_prose(counts: Tally) -> bool:
    numbers = counts.num_distinct - len(counts.others) if len(counts.others) < MOST_TEXTS else 0
    words = numbers + sum(len(text.split()) for text in counts.others)
    return words > 5 * (numbers + len(counts.others)) and counts.num_distinct > 0.5 * counts.num_texts


def date_format(cells: Sequence[str]) -> str | None:
    """The first known format that every text has, None if there is none."""
    left = list(DATE_FORMATS)
    for block in blocks(cells):
        texts = set(block) - {""}
        left = [layout for layout in left if all(map(_date_parser(layout), texts))]
        if not left:
            return None
    return left[0]


def _date_parser(layout: str) -> Callable[[str], datetime.datetime | None]:
    def parse(text: str) -> datetime.datetime | None:
        try:
            moment = datetime.datetime.fromisoformat(text) if layout == "iso" else datetime.datetime.strptime(text, layout)
        except ValueError:
            return None
        return moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)

    return parse


# ---- arrays ---------------------------------------------------------------------------------------------------


def number_vectors(table: Table, schema: Schema) -> dict[str, Spool]:
    """float32 [N] for each number and each part of a date, NaN where missing, in the table's order."""
    vectors: dict[str, Spool] = {}
    for name in table.names:
        if name in schema.numbers:
            vectors[name] = _vector(table, name, number, "a number")
        elif name in schema.dates:
            vectors |= _date_vectors(table, name, schema.dates[name])
    return vectors


def _vector(table: Table, name: str, parse: Callable[[str], float | None], what: str) -> Spool:
    """float32 [N] of a column. Raises `DataError` that names the first cell which does not parse."""
    import numpy as np

    from components.data.spool import Spool

    vector = Spool((), np.float32, in_memory=HELD_BYTES)
    for block in blocks(table.columns[name]):
        values = {text: parse(text) for text in set(block) - {""}}
        if None in values.values():
            row, text = next((row, text) for row, text in enumerate(block, start=len(vector)) if text and values[text] is None)
            raise DataError(f"{table.where(row)}, column {name!r}: {text!r} is not {what}; correct it or list it in dataset.na_values")
        values[""] = float("nan")
        with np.errstate(over="ignore"):
            part = np.array([values[text] for text in block], dtype=np.float64).astype(np.float32)
        part[np.isinf(part)] = np.nan
        vector.append(part)
    return vector


def _date_vectors(table: Table, name: str, layout: str) -> dict[str, Spool]:
    parse = _date_parser(layout)

    def part(of: Callable[[datetime.datetime], float]) -> Callable[[str], float | None]:
        def read(text: str) -> float | None:
            moment = parse(text)
            return None if moment is None else of(moment)

        return read

    parts = {
        "days": part(lambda moment: (moment - EPOCH).total_seconds() / 86400),
        "month": part(lambda moment: moment.month),
        "weekday": part(lambda moment: moment.weekday()),
        "hour": part(lambda moment: moment.hour + moment.minute / 60),
    }
    return {f"{name} ({unit})": _vector(table, name, parts[unit], f"a date of the format {layout}") for unit in DATE_PARTS}


def number_column(name: str, training_values: np.ndarray) -> Column:
    """Statistics of a number over its training values (NaN left out); the knots are quantiles of the distinct values,
    so that a column that is mostly zero keeps knots where it is not."""
    import numpy as np

    values = training_values[~np.isnan(training_values)].astype(np.float64)
    distinct = np.unique(values.astype(np.float32))
    if distinct.size > NUM_KNOTS:
        distinct = np.unique(np.quantile(distinct.astype(np.float64), np.linspace(0, 1, NUM_KNOTS)).astype(np.float32))
    knots = tuple(float(knot) for knot in distinct)
    return Column(name=name, kind="number", mean=float(values.mean()), std=float(values.std()) or 1.0, quantiles=knots)


def category_column(name: str, training_cells: Iterable[str], most: int) -> tuple[Column, int]:
    """The vocabulary of a category, most frequent first and at most `most` values ("" counts as one where cells are
    missing), and how many values it leaves to code 0."""
    counts = Counter(training_cells)
    ordered = sorted(counts, key=lambda text: (-counts[text], text))
    return Column(name=name, kind="category", vocabulary=tuple(ordered[:most])), max(0, len(ordered) - most)


def codes(cells: Sequence[str], vocabulary: Sequence[str]) -> np.ndarray:
    """int64 [N]: 1 + the place in the vocabulary, 0 for a value that is not in it."""
    import numpy as np

    places = {text: place for place, text in enumerate(vocabulary, start=1)}
    return np.fromiter((places.get(text, 0) for text in cells), dtype=np.int64, count=len(cells))


def encode(
    table: Table, schema: Schema, training: np.ndarray, most: int
) -> tuple[tuple[InputField, ...], dict[str, Columns], list[str]]:
    """The fields `numbers` and `categories` (each only if it has columns), their arrays over all rows, and notes on columns
    that are constant in the training rows and left out."""
    from components.data.spool import Columns

    notes: list[str] = []
    fields: list[InputField] = []
    arrays: dict[str, Columns] = {}
    vectors = number_vectors(table, schema)
    numbers = _number_columns(vectors, training, notes)
    if numbers:
        fields.append(_field("numbers", "float32", numbers))
        arrays["numbers"] = Columns([vectors[column.name] for column in numbers])
    categories = _category_columns(table, schema, training, most, notes)
    if categories:
        fields.append(_field("categories", "int64", categories))
        arrays["categories"] = Columns([_coded(table.columns[c.name], c.vocabulary) for c in categories])
    if not fields:
        raise DataError(f"{table.places[0][1]} has no column that varies in the training rows: {'; '.join(notes)}")
    return tuple(fields), arrays, notes


def _number_columns(vectors: Mapping[str, Spool], training: np.ndarray, notes: list[str]) -> list[Column]:
    found = []
    for name, vector in vectors.items():
        values = vector[:][training]
        if _varies(name, values, notes):
            found.append(number_column(name, values))
    return found


def _coded(cells: Sequence[str], vocabulary: Sequence[str]) -> Spool:
    import numpy as np

    from components.data.spool import Spool

    found = Spool((), np.int64, in_memory=HELD_BYTES)
    for block in blocks(cells):
        found.append(codes(block, vocabulary))
    return found


def _varies(name: str, values: np.ndarray, notes: list[str]) -> bool:
    import numpy as np

    if np.unique(values[~np.isnan(values)]).size > 1:
        return True
    if not name.endswith(tuple(f" ({unit})" for unit in DATE_PARTS)):
        notes.append(f"column {name!r} left out: it does not vary in the training rows")
    return False


def _category_columns(table: Table, schema: Schema, training: np.ndarray, most: int, notes: list[str]) -> list[Column]:
    import numpy as np

    is_training = np.zeros(len(table), dtype=bool)
    is_training[training] = True
    found = []
    for name in schema.categories:
        column, num_folded = category_column(name, itertools.compress(table.columns[name], is_training), most)
        if len(column.vocabulary) < 2:
            notes.append(f"column {name!r} left out: it does not vary in the training rows")
            continue
        if num_folded:
            notes.append(f"column {name!r}: the {most} most frequent categories are kept, {num_folded} rarer ones count as unseen")
        found.append(column)
    return found


def _field(name: str, dtype: str, columns: Sequence[Column]) -> InputField:
    mean = tuple(column.mean for column in columns) if dtype == "float32" else ()
    std = tuple(column.std for column in columns) if dtype == "float32" else ()
    return InputField(name=name, dtype=dtype, shape=(len(columns),), columns=tuple(columns), mean=mean, std=std)


def encode_as(
    table: Table, inputs: tuple[InputField, ...], dates: Mapping[str, str], find: Callable[[str], object]
) -> dict[str, np.ndarray]:
    """Arrays of new rows for fields that are already fixed. `find` is called with each column needed and raises if it is missing."""
    import numpy as np

    parts = {f"{name} ({unit})": name for name in dates for unit in DATE_PARTS}
    numbers = [column.name for field in inputs for column in field.columns if column.kind == "number"]
    wanted = [parts.get(name, name) for name in numbers]
    for name in wanted:
        find(name)
    used = {name: layout for name, layout in dates.items() if name in wanted}
    vectors = number_vectors(table, Schema(numbers=tuple(n for n in wanted if n not in used), categories=(), dates=used))
    arrays = {}
    for field in inputs:
        if field.dtype == "int64":
            columns = []
            for column in field.columns:
                find(column.name)
                columns.append(codes(table.columns[column.name], column.vocabulary))
            arrays[field.name] = np.stack(columns, axis=1)
        else:
            arrays[field.name] = np.stack([vectors[column.name][:] for column in field.columns], axis=1)
    return arrays
