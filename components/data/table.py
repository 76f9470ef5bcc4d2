"""Tables as text: CSV and its kin, and Parquet, as columns of cells whose place in the file is known.

A cell is text without surrounding blanks, "" where it is missing. Types are inferred later (`columns`), from the
cells alone, so that a CSV file and a Parquet file of the same content become the same data set.
"""

from __future__ import annotations

import bisect
import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.data.reader import read_bytes
from components.errors import DataError, UsageError

# What pandas reads as missing, so that a file means the same here and there.
MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None"}
    | {"n/a", "nan", "null"}
)
DELIMITERS = (",", "\t", ";", "|")
PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a file is to be read: the options of a delimited file that are not about what it means."""

    header: bool = True
    columns: tuple[str, ...] = ()
    delimiter: str | None = None
    quote: str | None = '"'
    encoding: str = "utf-8"
    comment: str | None = None
    missing: frozenset[str] = MISSING
    strip: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of cells by name, all of one length. `textual` are columns whose file says that they are text."""

    columns: Mapping[str, Sequence[str]]
    places: tuple[tuple[int, Path], ...]
    lines: Sequence[int]
    textual: frozenset[str] = frozenset()
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    def where(self, row: int) -> str:
        """File and line (a Parquet file's row) of a row, for messages."""
        starts = [start for start, _ in self.places]
        return f"{self.places[bisect.bisect_right(starts, row) - 1][1]} {self.unit} {self.lines[row]}"


def read_table(path: Path, form: Form, *, without: str | None = None) -> Table:
    """A table from a Parquet file, or from a delimited text file, plain or gzip.

    A file without a header may leave out the column `without` (the target, when new rows are predicted)."""
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return _read_parquet(path, form)
    rows, lines = _records(path, _text(path, form.encoding), form)
    if not rows:
        raise DataError(f"{path} is empty: a table needs at least one row")
    if form.header:
        names, rows, lines = _header(path, rows[0], form), rows[1:], lines[1:]
    else:
        names = _given_names(path, len(rows[0]), form, without)
    if not rows:
        raise DataError(f"{path} has a header line but no rows; add rows, or say dataset.header=false if the line is a row")
    _refuse_ragged(path, rows, lines, names, form)
    return _table(path, names, zip(*rows, strict=True), lines, form)


def join(first: Table, second: Table) -> Table:
    """The rows of `first`, then those of `second` in the same columns. Raises `DataError` for a column that `second` lacks."""
    for name in first.names:
        if name not in second.columns:
            raise DataError(
                f"{second.places[0][1]} lacks column {name!r}, which {first.places[0][1].name} has{_offer(name, second.names)}"
            )
    return Table(
        columns={name: [*cells, *second.columns[name]] for name, cells in first.columns.items()},
        places=(*first.places, (len(first), second.places[0][1])),
        lines=[*first.lines, *second.lines],
        textual=first.textual,
        unit=first.unit,
    )


def column(table: Table, name: str, option: str) -> Sequence[str]:
    """A column's cells. Raises `DataError` that offers the nearest name, where the table has none of that name."""
    if name in table.columns:
        return table.columns[name]
    raise DataError(f"{table.places[0][1]} has no column {name!r} ({option}){_offer(name, table.names)}")


def _offer(name: str, names: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    remedy = "a file without a header line needs dataset.header=false"
    return f"{hint} (columns: {listed}; {remedy})" if hint else f"; its columns are {listed} ({remedy})"


def _text(path: Path, encoding: str) -> str:
    content = read_bytes(path)
    name = _encoding(content, encoding)
    try:
        return content.decode(name)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} line {line} is not {encoding} text (byte 0x{content[error.start]:02x}); save it as UTF-8 or set dataset.encoding, "
            "often latin-1"
        ) from error


def _encoding(content: bytes, encoding: str) -> str:
    try:
        known = codecs.lookup(encoding).name
    except LookupError:
        raise UsageError(f"dataset.encoding {encoding!r} is not one that Python knows; utf-8 and latin-1 are the usual ones") from None
    return "utf-8-sig" if known == "utf-8" and content.startswith(codecs.BOM_UTF8) else known


def _records(path: Path, text: str, form: Form) -> tuple[list[list[str]], list[int]]:
    """The records of a delimited text, and the line each one ends on; blank lines and comment lines are passed over."""
    lines = _Lines(text, form.comment)
    delimiter = form.delimiter or _sniff(path, text, form)
    rows: list[list[str]] = []
    numbers: list[int] = []
    try:
        for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=form.strip, strict=True, **_quotes(form)):
            lines.between_records = True
            if row and not (len(row) == 1 and not row[0].strip()):
                rows.append(row)
                numbers.append(lines.number)
    except csv.Error as error:
        raise DataError(
            f"{path} line {lines.number} cannot be cut into fields ({error}); mend its quotes or set dataset.quote=null"
        ) from error
    except TypeError as error:
        raise UsageError(f"dataset.delimiter and dataset.quote must be one character each, got {delimiter!r} and {form.quote!r}") from error
    return rows, numbers


class _Lines:
    """A text's lines, numbered from 1, without comment lines; a line inside a quoted field is never a comment."""

    def __init__(self, text: str, comment: str | None) -> None:
        self._lines = io.StringIO(text, newline="")
        self._comment = comment
        self.number = 0
        self.between_records = True

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.number += 1
            if self._comment and self.between_records and line.lstrip().startswith(self._comment):
                continue
            self.between_records = False
            yield line


def _quotes(form: Form) -> dict[str, Any]:
    return {"quotechar": form.quote} if form.quote else {"quoting": csv.QUOTE_NONE}


def _sniff(path: Path, text: str, form: Form) -> str:
    """The delimiter that cuts the first lines into the same number of fields, the most of them; a .tsv file's is the tab."""
    if ".tsv" in (suffix.lower() for suffix in path.suffixes):
        return "\t"
    start = [line for line in text[:65536].splitlines() if line.strip()]
    lines = [line for line in start if not (form.comment and line.lstrip().startswith(form.comment))][:20]

    def score(delimiter: str) -> tuple[int, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=form.strip, **_quotes(form))]
        steady = min(counts, default=1) > 1 and len(set(counts)) == 1
        return (2 if steady else int(max(counts, default=1) > 1), counts[0] if counts else 0)

    return max(DELIMITERS, key=score)


def _header(path: Path, cells: Sequence[str], form: Form) -> list[str]:
    found = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]
    if form.columns and len(form.columns) != len(found):
        raise UsageError(f"dataset.columns names {len(form.columns)} columns, but {path} has {len(found)}; name all or none")
    return _distinct(path, list(form.columns) or found)


def _given_names(path: Path, num_fields: int, form: Form, without: str | None) -> list[str]:
    """The names of a headerless file's columns: those given, else "0", "1", ..."""
    if not form.columns:
        return [str(number) for number in range(num_fields)]
    names = _distinct(path, list(form.columns))
    if without in names and num_fields == len(names) - 1:
        return [name for name in names if name != without]
    if num_fields != len(names):
        raise DataError(f"{path} has {num_fields} columns, but dataset.columns names {len(names)}; name every column once")
    return names


def _distinct(path: Path, names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"{path} has two columns named {twice!r}; rename one, or say dataset.header=false if its first line is a row and not a header"
        )
    return names


def _refuse_ragged(path: Path, rows: Sequence[Sequence[str]], lines: Sequence[int], names: Sequence[str], form: Form) -> None:
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            rule = "the header has" if form.header else "the first line has" if not form.columns else "dataset.columns has"
            raise DataError(
                f"{path} line {line} has {len(row)} fields where {rule} {len(names)}; correct the line"
                " (dataset.delimiter, dataset.quote and dataset.comment say how lines are cut)"
            )


def _table(path: Path, names: Sequence[str], columns: Any, lines: Sequence[int], form: Form, **more: Any) -> Table:
    cleaned = {}
    for name, cells in zip(names, columns, strict=True):
        texts = (cell.strip() for cell in cells) if form.strip else cells
        cleaned[name] = ["" if text in form.missing else text for text in texts]
    return Table(columns=cleaned, places=((0, path),), lines=lines, **more)


def _read_parquet(path: Path, form: Form) -> Table:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        with path.open("rb") as file:
            content = parquet.read_table(file)
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError) as error:
        raise DataError(f"{path} is not a Parquet file that can be read ({str(error).splitlines()[0]}); write it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); check the file") from error
    if not content.num_rows:
        raise DataError(f"{path} has no rows; a table needs at least one")
    names = _header(path, content.column_names, form)
    columns = [_texts(path, name, content.column(index), arrow) for index, name in enumerate(names)]
    textual = frozenset(name for index, name in enumerate(names) if _is_text(content.column(index).type, arrow))
    return _table(path, names, columns, range(1, content.num_rows + 1), form, textual=textual, unit="row")


def _is_text(kind: Any, arrow: Any) -> bool:
    if arrow.types.is_dictionary(kind):
        return _is_text(kind.value_type, arrow)
    return bool(arrow.types.is_string(kind) or arrow.types.is_large_string(kind) or arrow.types.is_boolean(kind))


def _texts(path: Path, name: str, values: Any, arrow: Any) -> list[str]:
    kind = values.type.value_type if arrow.types.is_dictionary(values.type) else values.type
    if arrow.types.is_nested(kind) or arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind):
        raise DataError(f"{path} column {name!r} holds {kind}, not numbers, text or dates; write it as one of these or leave it out")
    return ["" if value is None else _cell(value) for value in values.to_pylist()]


def _cell(value: Any) -> str:
    """One value as a CSV file would hold it: whole floats without a fraction, dates in ISO form."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
