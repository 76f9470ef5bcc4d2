"""Tables as text: CSV and its kin, and Parquet, as columns of cells whose place in the file is known.

A cell is text without surrounding blanks, "" where it is missing. Types are inferred later (`columns`), from the
cells alone, so that a CSV file and a Parquet file of the same content become the same data set.
"""

from __future__ import annotations

import bisect
import codecs
import contextlib
import csv
import io
import itertools
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from components.data.cells import BLOCK_ROWS, Cells, CellStore, Kept
from components.data.reader import opened
from components.errors import DataError, UsageError

# What pandas reads as missing, so that a file means the same here and there.
MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None"}
    | {"n/a", "nan", "null"}
)
DELIMITERS = (",", "\t", ";", "|")
PARQUET_SUFFIXES = (".parquet", ".pq")
SNIFFED = 65_536  # characters that the delimiter is found out from
READ_BYTES = 2**20
Record = tuple[list[str], int]


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

    columns: Mapping[str, Cells]
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
    records = _records(path, form)
    first = next(records, None)
    if first is None:
        raise DataError(f"{path} is empty: a table needs at least one row")
    names = _header(path, first[0], form) if form.header else _given_names(path, len(first[0]), form, without)
    builder = _Builder(path, names, form)
    for batch in _batches(records if form.header else itertools.chain([first], records)):
        _refuse_ragged(path, batch, names, form)
        builder.add(zip(*(row for row, _ in batch), strict=True), [line for _, line in batch])
    if not builder.lines:
        raise DataError(f"{path} has a header line but no rows; add rows, or say dataset.header=false if the line is a row")
    return builder.table()


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(itertools.islice(records, BLOCK_ROWS)):
        yield batch


def join(first: Table, second: Table) -> Table:
    """The rows of `first`, then those of `second` in the same columns. Raises `DataError` for a column that `second` lacks."""
    for name in first.names:
        if name not in second.columns:
            raise DataError(
                f"{second.places[0][1]} lacks column {name!r}, which {first.places[0][1].name} has{_offer(name, second.names)}"
            )
    return Table(
        columns={name: cells.followed_by(second.columns[name]) for name, cells in first.columns.items()},
        places=(*first.places, (len(first), second.places[0][1])),
        lines=array("q", itertools.chain(first.lines, second.lines)),
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


@contextlib.contextmanager
def _text(path: Path, encoding: str) -> Iterator[TextIO]:
    """A file's text, decoded as it is read. Raises `DataError` that names the line of a byte which is not of the encoding."""
    with opened(path) as file:
        name = _encoding(file.read(len(codecs.BOM_UTF8)), encoding)
    try:
        with opened(path) as file:
            yield io.TextIOWrapper(file, encoding=name, newline="")
    except UnicodeDecodeError as error:
        raise _undecodable(path, name, encoding) from error


def _encoding(start: bytes, encoding: str) -> str:
    try:
        known = codecs.lookup(encoding).name
    except LookupError:
        raise UsageError(f"dataset.encoding {encoding!r} is not one that Python knows; utf-8 and latin-1 are the usual ones") from None
    return "utf-8-sig" if known == "utf-8" and start == codecs.BOM_UTF8 else known


def _undecodable(path: Path, name: str, encoding: str) -> DataError:
    """Says which byte is not of the encoding: the text is decoded once more, this time counting lines."""
    decoder, line = codecs.getincrementaldecoder(name)(), 1
    with opened(path) as file:
        while True:
            block = file.read(READ_BYTES)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                return DataError(
                    f"{path} line {line} is not {encoding} text (byte 0x{error.object[error.start]:02x}); save it as UTF-8 or set "
                    "dataset.encoding, often latin-1"
                )
            line += block.count(b"\n")
            assert block, "the text could not be decoded a moment ago"


def _records(path: Path, form: Form) -> Iterator[Record]:
    """The records of a delimited text, and the line each one ends on; blank lines and comment lines are passed over."""
    delimiter = form.delimiter or _sniff(path, form)
    with _text(path, form.encoding) as text:
        lines = _Lines(text, form.comment)
        try:
            for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=form.strip, strict=True, **_quotes(form)):
                lines.between_records = True
                if row and not (len(row) == 1 and not row[0].strip()):
                    yield row, lines.number
        except csv.Error as error:
            raise DataError(
                f"{path} line {lines.number} cannot be cut into fields ({error}); mend its quotes or set dataset.quote=null"
            ) from error
        except TypeError as error:
            raise UsageError(
                f"dataset.delimiter and dataset.quote must be one character each, got {delimiter!r} and {form.quote!r}"
            ) from error


class _Lines:
    """A text's lines, numbered from 1, without comment lines; a line inside a quoted field is never a comment."""

    def __init__(self, text: TextIO, comment: str | None) -> None:
        self._lines = text
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


def _sniff(path: Path, form: Form) -> str:
    """The delimiter that cuts the first lines into the same number of fields, the most of them; a .tsv file's is the tab."""
    if ".tsv" in (suffix.lower() for suffix in path.suffixes):
        return "\t"
    with _text(path, form.encoding) as text:
        start = [line for line in text.read(SNIFFED).splitlines() if line.strip()]
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


def _refuse_ragged(path: Path, records: Sequence[Record], names: Sequence[str], form: Form) -> None:
    for row, line in records:
        if len(row) != len(names):
            rule = "the header has" if form.header else "the first line has" if not form.columns else "dataset.columns has"
            raise DataError(
                f"{path} line {line} has {len(row)} fields where {rule} {len(names)}; correct the line"
                " (dataset.delimiter, dataset.quote and dataset.comment say how lines are cut)"
            )


class _Builder:
    """A table in the making, block by block."""

    def __init__(self, path: Path, names: Sequence[str], form: Form, **more: Any) -> None:
        self._path, self._form, self._more = path, form, more
        self._store, self._kept = CellStore(), {name: list[Kept]() for name in names}
        self._sizes: list[int] = []
        self.lines = array("q")

    def add(self, columns: Iterable[Sequence[str]], lines: Sequence[int]) -> None:
        """Adds rows, given by columns, and the line each one is on."""
        for kept, cells in zip(self._kept.values(), columns, strict=True):
            texts = (cell.strip() for cell in cells) if self._form.strip else cells
            kept.append(self._store.keep(["" if text in self._form.missing else text for text in texts]))
        self._sizes.append(len(lines))
        self.lines.extend(lines)

    def table(self) -> Table:
        """All that was added."""
        cells = {name: Cells(kept, self._sizes) for name, kept in self._kept.items()}
        return Table(columns=cells, places=((0, self._path),), lines=self.lines, **self._more)


def _read_parquet(path: Path, form: Form) -> Table:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        with path.open("rb") as file:
            content = parquet.ParquetFile(file)
            if not content.metadata.num_rows:
                raise DataError(f"{path} has no rows; a table needs at least one")
            schema = content.schema_arrow
            names = _header(path, schema.names, form)
            textual = frozenset(name for name, column in zip(names, schema) if _is_text(column.type, arrow))
            builder = _Builder(path, names, form, textual=textual, unit="row")
            for batch in content.iter_batches(BLOCK_ROWS):
                first = len(builder.lines) + 1
                texts = [_texts(path, name, column, arrow) for name, column in zip(names, batch.columns)]
                builder.add(texts, range(first, first + batch.num_rows))
            return builder.table()
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError) as error:
        raise DataError(f"{path} is not a Parquet file that can be read ({str(error).splitlines()[0]}); write it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); check the file") from error


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
