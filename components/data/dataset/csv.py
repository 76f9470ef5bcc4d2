"""Tables from CSV files and their kin (.csv .tsv .txt, also .gz) and from Parquet files.

    athanor run dataset=csv dataset.path=churn.csv dataset.target=left

Numbers, categories and dates are inferred and shown in the report's notes; `dataset.numbers`, `categories`, `dates`
and `drop` override. Missing values stay missing: the model deals with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import InputField
from components.data.cells import blocks, number
from components.data.reader import Encoded, Reading, RowDigests, plain_name, required_path, row_digest
from components.data.table import MISSING, Form, Table, column, join, read_table
from components.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np


class Csv:
    """A table with one column to predict, and perhaps a test file of its own."""

    modality = "table"
    places = ("path", "test_path")

    def __init__(
        self,
        path: str | None = None,
        test_path: str | None = None,
        target: str | int | None = None,
        name: str | None = None,
        task: str | None = None,
        header: bool = True,
        columns: Sequence[str] | None = None,
        delimiter: str | None = None,
        quote: str | None = '"',
        encoding: str = "utf-8",
        comment: str | None = None,
        na_values: Sequence[str] | None = None,
        strip: bool = True,
        drop: Sequence[str] | None = None,
        numbers: Sequence[str] | None = None,
        categories: Sequence[str] | None = None,
        dates: Mapping[str, str] | None = None,
        max_categories: int = 256,
    ) -> None:
        self.path, self.test_path, self._name, self.task = path, test_path, name, task
        self.target = None if target is None else str(target)
        self.na_values = _texts("na_values", na_values)
        self.form = Form(
            header=bool(header), columns=_texts("columns", columns), delimiter=_character("delimiter", delimiter),
            quote=_character("quote", quote), encoding=encoding, comment=comment, missing=MISSING | set(self.na_values), strip=bool(strip),
        )  # fmt: skip
        self.drop, self.numbers, self.categories = _texts("drop", drop), _texts("numbers", numbers), _texts("categories", categories)
        self.dates = {str(key): str(value) for key, value in dict(dates or {}).items()}
        if isinstance(max_categories, bool) or not isinstance(max_categories, int) or max_categories < 2:
            raise UsageError(f"dataset.max_categories must be a whole number of at least 2, got {max_categories!r}; 256 is usual")
        self.max_categories = max_categories

    @property
    def name(self) -> str:
        return plain_name(self._name, Path(self.path) if self.path else None)

    def sources(self) -> dict[str, Path]:
        files = {"train": _file(self.path, "the table to learn from", "dataset.path")}
        if self.test_path:
            files["test"] = _file(self.test_path, "the table to test on", "dataset.test_path")
        return files

    def read(self) -> Reading:
        from components.data.columns import Wishes, encode, infer
        from components.data.target import encode_target

        main, table = self._tables()
        num_training, target = len(main), self._target(table)
        wishes = Wishes(drop=self.drop, numbers=self.numbers, categories=self.categories, dates=self.dates)
        schema = infer(main, target, wishes)
        table = _without_placeholders(table, schema.numbers, schema.placeholders)
        values, task, classes, note = encode_target(table, target, self.task, main.columns[target])

        def finish(training: np.ndarray) -> Encoded:
            inputs, arrays, notes = encode(table, schema, training, self.max_categories)
            return Encoded(
                inputs=inputs, arrays=arrays, target=values, task=task, classes=classes, target_name=target,
                source=self._source(target, schema.dates, schema.placeholders), notes=tuple(n for n in (note, *schema.notes, *notes) if n),
            )  # fmt: skip

        given = [("train" if self.test_path else "") if row < num_training else "test" for row in range(len(table))]
        return Reading(digests=self._digests(table, target), given=given, encode=finish)

    def rows(self, path: Path, inputs: tuple[InputField, ...]) -> tuple[list[str], dict[str, np.ndarray]]:
        """New rows by column name; columns the model does not use, the target among them, are ignored."""
        from components.data.columns import encode_as

        table = read_table(path, self.form, without=self.target)
        arrays = encode_as(table, inputs, self.dates, lambda name: column(table, name, "which the model was trained on"))
        return [f"{table.unit} {line}" for line in table.lines], arrays

    @staticmethod
    def example(folder: Path) -> dict[str, Any]:
        """200 rows with a number, a category with gaps, a date and an identifier; `left` follows from the first two."""
        lines = ["id,usage,plan,since,left"]
        for row in range(200):
            usage = (row * 37) % 101 / 10
            plan = ("basic", "pro", "")[row % 3]
            left = "yes" if usage + (row % 3) * 2 > 7 else "no"
            lines.append(f"u{row:04d},{usage},{plan},2024-{row % 12 + 1:02d}-{row % 28 + 1:02d},{left}")
        (folder / "churn.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {"path": str(folder / "churn.csv"), "target": "left"}

    def _tables(self) -> tuple[Table, Table]:
        """The rows of the training file, and all rows."""
        sources = self.sources()
        main = read_table(sources["train"], self.form)
        return main, join(main, read_table(sources["test"], self.form)) if "test" in sources else main

    def _target(self, table: Table) -> str:
        if self.target is None:
            raise UsageError(f"dataset.target must name the column to predict; the columns are {', '.join(table.names)}")
        column(table, self.target, "dataset.target")
        if self.target in self.drop:
            raise UsageError(f"dataset.drop holds the target {self.target!r}; take it out of one of the two")
        return self.target

    def _digests(self, table: Table, target: str) -> RowDigests:
        """A row's content is its cells but the target, by order of column name and with one spelling per number: neither a
        corrected label nor another program's way of writing 1.0 moves a row."""
        digests = RowDigests()
        kept = [table.columns[name] for name in sorted(table.names) if name != target and name not in self.drop]
        for columns in zip(*map(blocks, kept), strict=True):
            for cells in zip(*map(_spelled_alike, columns), strict=True):
                digests.append(row_digest("\x1f".join(cells).encode()))
        for _ in range(len(digests), len(table)):
            digests.append(row_digest(b""))
        return digests

    def _source(self, target: str, dates: Mapping[str, str], placeholders: Sequence[str]) -> dict[str, Any]:
        return {
            "_target_": f"{type(self).__module__}.{type(self).__qualname__}", "name": self.name, "target": target,
            "header": self.form.header, "columns": list(self.form.columns), "delimiter": self.form.delimiter, "quote": self.form.quote,
            "encoding": self.form.encoding, "comment": self.form.comment, "na_values": [*self.na_values, *placeholders],
            "strip": self.form.strip, "dates": dict(dates),
        }  # fmt: skip


def _spelled_alike(cells: Sequence[str]) -> list[str]:
    values = {text: number(text) for text in set(cells)}
    spelling = {text: text if value is None else repr(value) for text, value in values.items()}
    return [spelling[text] for text in cells]


def _file(value: str | None, what: str, option: str) -> Path:
    path = required_path(value, what, option)
    if path.is_dir():
        raise DataError(f"{option} {str(path)!r} is a folder; dataset=csv reads one file, so name the file in it")
    return path


def _texts(option: str, values: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(values, str):
        raise UsageError(f"dataset.{option} must be a list, got the text {values!r}; write dataset.{option}=[{values}]")
    return tuple(str(value) for value in values or ())


def _character(option: str, value: str | None) -> str | None:
    if not value:
        return None
    text = {"\\t": "\t", "tab": "\t"}.get(value, value)
    if len(text) != 1:
        raise UsageError(f"dataset.{option} must be one character, got {value!r}; a tab is written dataset.{option}=tab")
    return text


def _without_placeholders(table: Table, numbers: Sequence[str], placeholders: Sequence[str]) -> Table:
    if not placeholders:
        return table
    gone = frozenset(placeholders)
    cells = {name: cells.without(gone) if name in numbers else cells for name, cells in table.columns.items()}
    return Table(columns=cells, places=table.places, lines=table.lines, textual=table.textual, unit=table.unit)
