"""Tables as they are in the wild: what is read, what is inferred, what the user overrides."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts import Column, DatasetVersion
from components.data.arrays import load_inputs, load_target
from components.data.columns import Wishes, date_format, infer, number
from components.data.table import Form, Table, read_table
from components.data.target import infer_task
from components.data.version import read_rows
from components.errors import DataError
from tests.datasets import read_version

pytestmark = pytest.mark.usefixtures("home")


def write(tmp_path: Path, text: str, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def cells(tmp_path: Path, text: str, name: str = "t.csv", **form: Any) -> Table:
    return read_table(write(tmp_path, text, name), Form(**form))


def columns(record: DatasetVersion) -> dict[str, Column]:
    return {column.name: column for field in record.inputs for column in field.columns}


def made(tmp_path: Path, header: str, row: Any, count: int = 200, **options: Any) -> DatasetVersion:
    """A version of `count` rows made by `row(i)`; the last column is the target."""
    lines = [header, *(",".join(map(str, row(i))) for i in range(count))]
    path = write(tmp_path, "\n".join(lines) + "\n", "made.csv")
    return read_version(tmp_path / "out", "csv", path=str(path), target=header.split(",")[-1], **options)


# ---- reading --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found_out(tmp_path: Path, delimiter: str) -> None:
    """The delimiter that cuts all lines alike is taken, though others occur in cells."""
    text = "\n".join(delimiter.join(row) for row in (["name", "price"], ["a b", "1.5"], ["c:d", "2.5"])) + "\n"
    assert cells(tmp_path, text).columns == {"name": ["a b", "c:d"], "price": ["1.5", "2.5"]}


def test_one_column_is_a_table_too(tmp_path: Path) -> None:
    """Without any delimiter there is one column."""
    assert cells(tmp_path, "a\n1\n2\n").columns == {"a": ["1", "2"]}


def test_quotes_hold_delimiters_newlines_and_comment_signs(tmp_path: Path) -> None:
    """A quoted field is one cell whatever is in it; lines are counted as an editor counts them."""
    table = cells(tmp_path, '# made by hand\na,b\n"x, y","1\n# no comment\n2"\n\n3,4\n', comment="#")
    assert table.columns == {"a": ["x, y", "3"], "b": ["1\n# no comment\n2", "4"]}
    assert [table.where(row).rpartition(" ")[2] for row in range(2)] == ["5", "7"]


def test_quotes_can_be_plain_characters(tmp_path: Path) -> None:
    """Texts with stray quotation marks, as in SMS messages."""
    table = cells(tmp_path, 'ham\tHe said "hi\nspam\t"win" now\n', header=False, quote=None, delimiter="\t")
    assert table.columns == {"0": ["ham", "spam"], "1": ['He said "hi', '"win" now']}


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    """What spreadsheets write: a byte order mark is no part of the first name, \\r\\n is one line end."""
    table = cells(tmp_path, "\ufeffa,b\r\n1,2\r\n3,4\r\n")
    assert table.columns == {"a": ["1", "3"], "b": ["2", "4"]}
    assert table.where(1).endswith("line 3")


def test_gzip_is_told_by_its_bytes(tmp_path: Path) -> None:
    """A gzip file needs no suffix."""
    (tmp_path / "t.csv").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert read_table(tmp_path / "t.csv", Form()).columns == {"a": ["1"], "b": ["2"]}


def test_latin_1(tmp_path: Path) -> None:
    """Another encoding, said."""
    (tmp_path / "t.csv").write_bytes("city\nZürich\n".encode("latin-1"))
    assert read_table(tmp_path / "t.csv", Form(encoding="latin-1")).columns == {"city": ["Zürich"]}


def test_unnamed_header_cells_get_a_name(tmp_path: Path) -> None:
    """The index that pandas writes has no name."""
    assert cells(tmp_path, ",a\n0,x\n1,y\n").names == ["column 1", "a"]


def test_parquet_and_csv_of_the_same_content_are_the_same_rows(tmp_path: Path) -> None:
    """Numbers, gaps, text and dates arrive alike from both forms; text that looks like numbers stays text in Parquet."""
    import datetime

    import pyarrow as arrow
    import pyarrow.parquet as parquet

    count = 120
    content = {
        "x": [None if i % 7 == 0 else i / 4 for i in range(count)],
        "k": [i % 5 for i in range(count)],
        "plan": [("a", "b", None)[i % 3] for i in range(count)],
        "day": [datetime.date(2024, 1, 1) + datetime.timedelta(days=i % 90) for i in range(count)],
        "zip": [f"{10 + i % 4:05d}" for i in range(count)],
        "y": [("no", "yes")[i % 2] for i in range(count)],
    }
    parquet.write_table(arrow.table(content), tmp_path / "t.parquet")
    lines = [",".join(content), *(",".join("" if v is None else str(v) for v in row) for row in zip(*content.values(), strict=True))]
    write(tmp_path, "\n".join(lines) + "\n")
    typed = read_version(tmp_path / "a", "csv", path=str(tmp_path / "t.parquet"), target="y")
    text = read_version(tmp_path / "b", "csv", path=str(tmp_path / "t.csv"), target="y", categories=["zip"])
    assert columns(typed) == columns(text)
    assert typed.splits == text.splits
    assert {n: f.sha256 for n, f in typed.files.items()} == {n: f.sha256 for n, f in text.files.items()}


# ---- inference ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), ("-2.5e3", -2500.0), (" 7 ", 7.0), ("1_000", None), ("inf", None), ("NaN", None), ("", None), ("x", None)],
)
def test_number(text: str, value: float | None) -> None:
    """Finite decimal numbers are numbers; Python's underscores and infinities are not."""
    assert number(text) == value


def test_kinds_are_inferred(tmp_path: Path) -> None:
    """Numbers, categories, a flag with gaps, dates; identifiers, constants, empty and prose columns are left out and named."""
    record = made(
        tmp_path, "row,user_id,uid,age,plan,flag,since,same,empty,prose,y",
        lambda i: (
            i, 9000 - i, f"u{i:x}", i % 61, "abc"[i % 3], "1" if i % 2 else "", f"{i % 28 + 1:02d}.{i % 12 + 1:02d}.2023", "k", "",
            f"the {i} quick brown foxes and {i * 7 % 50} dogs", "ny"[i % 2],
        ),
    )  # fmt: skip
    kinds = {name: column.kind for name, column in columns(record).items()}
    numbers = dict.fromkeys(("age", "since (days)", "since (month)", "since (weekday)"), "number")
    assert kinds == {**numbers, "plan": "category", "flag": "category"}
    left_out = [note.split("'")[1] for note in record.notes if "left out" in note]
    assert left_out == ["row", "user_id", "uid", "same", "empty", "prose"]


def test_overrides_win(tmp_path: Path) -> None:
    """`numbers`, `categories`, `drop` and `dates` are stronger than the inference."""
    record = made(
        tmp_path, "row,code,zip,odd,when,y",
        lambda i: (i, i % 9, i % 4, "xyz"[i % 3], f"{i % 12 + 1:02d}/{i % 28 + 1:02d}/23", "ny"[i % 2]),
        numbers=["row"], categories=["code"], drop=["zip", "odd"], dates={"when": "%m/%d/%y"},
    )  # fmt: skip
    kinds = {name: column.kind for name, column in columns(record).items()}
    assert kinds == {"row": "number", "code": "category", "when (days)": "number", "when (month)": "number", "when (weekday)": "number"}


def test_date_parts_are_right(tmp_path: Path) -> None:
    """2024-02-29 18:30 is day 19782.77 since 1970, February, a Thursday, half past six."""
    record = made(tmp_path, "t,y", lambda i: (f"2024-{i % 12 + 1:02d}-{i % 27 + 1:02d}T{i % 24:02d}:30:00", "ny"[i % 2]))
    path = write(tmp_path, "t\n2024-02-29T18:30:00\n", "new.csv")
    _, arrays = read_rows(record.source, record.inputs, path)
    names = [column.name for column in record.inputs[0].columns]
    values = dict(zip(names, arrays["numbers"][0].tolist(), strict=True))
    assert values["t (days)"] == pytest.approx(19782.7708, abs=0.01)
    assert (values["t (month)"], values["t (weekday)"], values["t (hour)"]) == (2.0, 3.0, 18.5)


@pytest.mark.parametrize(
    ("texts", "layout"),
    [(["2024-01-31", "2023-12-01"], "iso"), (["31.01.2024"], "%d.%m.%Y"), (["13/01/2024", "02/01/2024"], "%d/%m/%Y"),
     (["01/13/2024"], "%m/%d/%Y"), (["5 Jan 2024"], "%d %b %Y"), (["abc"], None), (["2024-01-31", "soon"], None)],
)  # fmt: skip
def test_date_formats(texts: list[str], layout: str | None) -> None:
    """The format is one that every text has."""
    assert date_format(texts) == layout


def test_placeholder_among_numbers_is_missing(tmp_path: Path) -> None:
    """A `?` in a column of numbers is a gap, noted, and stays one for new rows; the user did not have to say so."""
    record = made(tmp_path, "x,y", lambda i: ("?" if i % 20 == 0 else i / 8, "ny"[i % 2]))
    assert columns(record)["x"].kind == "number"
    assert any("'?' read as missing among numbers" in note for note in record.notes)
    _, arrays = read_rows(record.source, record.inputs, write(tmp_path, "x\n?\n3\n", "new.csv"))
    assert np.isnan(arrays["numbers"][0, 0])
    assert arrays["numbers"][1, 0] == 3


def test_many_categories_are_capped(tmp_path: Path) -> None:
    """The most frequent values are told apart; rarer ones share code 0 with those never seen."""
    record = made(tmp_path, "x,k,y", lambda i: (i / 7, f"k{i % 40 if i % 3 else 0}", "ny"[i % 2]), count=600, max_categories=5)
    vocabulary = columns(record)["k"].vocabulary
    assert len(vocabulary) == 5
    assert vocabulary[0] == "k0"
    assert any("5 most frequent categories are kept" in note for note in record.notes)
    assert (load_inputs(record, "train")["categories"] == 0).any()


def test_gap_in_a_category_is_a_value_of_its_own(tmp_path: Path) -> None:
    """Missing is "" in the vocabulary where training has it; a value never seen is code 0."""
    record = made(tmp_path, "x,k,y", lambda i: (i / 7, ("a", "b", "")[i % 3], "ny"[i % 2]))
    vocabulary = columns(record)["k"].vocabulary
    assert sorted(vocabulary) == ["", "a", "b"]
    _, arrays = read_rows(record.source, record.inputs, write(tmp_path, "x,k\n1,a\n2,\n3,new\n", "new.csv"))
    assert arrays["categories"][:, 0].tolist() == [vocabulary.index("a") + 1, vocabulary.index("") + 1, 0]


def test_vocabulary_and_knots_come_from_training_rows(tmp_path: Path) -> None:
    """A category that only the test file has is no word of the vocabulary, its numbers move no quantile."""
    path = write(tmp_path, "x,k,y\n" + "".join(f"{i % 50},{'ab'[i % 2]},{'no' if i % 3 else 'yes'}\n" for i in range(300)))
    test = write(tmp_path, "x,k,y\n1000,c,no\n2000,c,yes\n", "test.csv")
    record = read_version(tmp_path / "out", "csv", path=str(path), test_path=str(test), target="y")
    assert set(columns(record)["k"].vocabulary) == {"a", "b"}
    assert max(columns(record)["x"].quantiles) == 49
    assert load_inputs(record, "test")["categories"].tolist() == [[0], [0]]


def test_knots_rise_and_reach_into_the_tail(tmp_path: Path) -> None:
    """A column that is mostly zero keeps knots where it is not; few values are all knots; never more than 17."""
    record = made(tmp_path, "tail,few,y", lambda i: (0 if i % 10 else i * i + 0.5, i % 3, "ny"[i % 2]), count=2000)
    tail, few = columns(record)["tail"].quantiles, columns(record)["few"].quantiles
    assert len(tail) == 17
    assert all(low < high for low, high in itertools.pairwise(tail))
    assert few == (0.0, 1.0, 2.0)


def test_rows_keep_their_split_when_others_arrive(tmp_path: Path) -> None:
    """Rows added to a file, in any place, move none of the old rows, though another column becomes useful."""
    old = [(i * 7 % 300 / 2, "ab"[i % 2], "k", "ny"[i % 2]) for i in range(300)]
    new = [(500 + i / 2, "ab"[i % 2], "m", "ny"[i % 2]) for i in range(100)]

    def test_values(rows: list[tuple[Any, ...]], name: str) -> set[float]:
        path = write(tmp_path, "x,k,c,y\n" + "".join(",".join(map(str, row)) + "\n" for row in rows), f"{name}.csv")
        record = read_version(tmp_path / name, "csv", path=str(path), target="y")
        return {float(value) for value in load_inputs(record, "test")["numbers"][:, 0]}

    before, after = test_values(old, "old"), test_values([*new[:50], *old, *new[50:]], "more")
    assert before == {value for value in after if value < 500}


def test_a_corrected_label_moves_no_row(tmp_path: Path) -> None:
    """The split follows the inputs alone."""
    rows = [(i * 7 % 300 / 2, "ab"[i % 2], "ny"[i % 2]) for i in range(300)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = made(tmp_path / "a", "x,k,y", lambda i: rows[i], count=300)
    second = made(tmp_path / "b", "x,k,y", lambda i: (*rows[i][:2], "n"), count=300)
    assert (load_inputs(first, "test")["numbers"] == load_inputs(second, "test")["numbers"]).all()


# ---- target ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task"),
    [(["a", "b"] * 50, "classification"), (["0", "1"] * 50, "classification"), ([str(i % 7) for i in range(100)], "classification"),
     ([str(i % 40) for i in range(400)], "regression"), ([str(i / 3) for i in range(100)], "regression"),
     ([str(i) for i in range(15)], "regression")],
)  # fmt: skip
def test_task_is_inferred(values: list[str], task: str) -> None:
    """Words and a few whole numbers are classes; fractions and many values are a quantity."""
    assert infer_task(values) == task


def test_task_can_be_said(tmp_path: Path) -> None:
    """26 numbers as classes, in the order of numbers and not of their texts."""
    record = made(tmp_path, "x,y", lambda i: (i / 7, i % 26), count=1040, task="classification")
    assert record.classes == tuple(str(label) for label in range(26))
    assert load_target(record, "train").dtype == np.int64


def test_whole_numbers_have_one_spelling(tmp_path: Path) -> None:
    """1 and 1.0 are the same class, also across files."""
    path = write(tmp_path, "x,y\n" + "".join(f"{i / 7},{i % 3}\n" for i in range(300)))
    test = write(tmp_path, "x,y\n1.5,1.0\n2.5,2.0\n", "test.csv")
    record = read_version(tmp_path / "out", "csv", path=str(path), test_path=str(test), target="y")
    assert record.classes == ("0", "1", "2")
    assert load_target(record, "test").tolist() == [1, 2]


def test_trailing_dot_is_kept_where_it_is_part_of_the_label(tmp_path: Path) -> None:
    """Labels that end in a dot in training are left alone."""
    record = made(tmp_path, "x,y", lambda i: (i / 7, ("Inc.", "Ltd")[i % 2]))
    assert record.classes == ("Inc.", "Ltd")


def test_one_class_is_left_to_the_checks(tmp_path: Path) -> None:
    """A table with one class is read; `classes` fails it with the reason."""
    from components.quality.check.classes import Classes

    record = made(tmp_path, "x,y", lambda i: (i / 7, "yes"))
    result = Classes().check(record)
    assert result.status == "fail"
    assert result.reason == "target 'y' has one class only ('yes'): there is nothing to tell apart"


# ---- new rows -------------------------------------------------------------------------------------------------


def test_new_rows_need_no_target_and_no_order(tmp_path: Path) -> None:
    """Columns are found by name; the target and strangers among them are ignored."""
    record = made(tmp_path, "x,k,y", lambda i: (i / 7, "ab"[i % 2], "ny"[i % 2]))
    plain = read_rows(record.source, record.inputs, write(tmp_path, "x,k\n1,a\n2,b\n", "plain.csv"))[1]
    other = read_rows(record.source, record.inputs, write(tmp_path, "y;k;extra;x\n?;a;9;1\n?;b;9;2\n", "other.csv"))[1]
    assert (plain["numbers"] == other["numbers"]).all()
    assert (plain["categories"] == other["categories"]).all()


def test_new_rows_without_header_may_leave_out_the_target(tmp_path: Path) -> None:
    """A headerless file has the columns of the training file, or all of them but the target."""
    path = write(tmp_path, "".join(f"{i / 7},{'ab'[i % 2]},{'ny'[i % 2]}\n" for i in range(200)))
    record = read_version(tmp_path / "out", "csv", path=str(path), header=False, columns=["x", "k", "y"], target="y")
    full = read_rows(record.source, record.inputs, write(tmp_path, "1,a,n\n2,b,y\n", "full.csv"))[1]
    short = read_rows(record.source, record.inputs, write(tmp_path, "1,a\n2,b\n", "short.csv"))[1]
    assert (full["numbers"] == short["numbers"]).all()


def test_schema_of_an_ambiguous_table() -> None:
    """`infer` looks at the cells alone: the same cells give the same schema."""
    table = Table(columns={"a": ["1", "2"] * 20, "b": ["x", "y"] * 20, "y": ["0", "1"] * 20}, places=((0, Path("t")),), lines=range(40))
    first, second = infer(table, "y", Wishes()), infer(table, "y", Wishes())
    assert first == second
    assert first.numbers == ("a",)
    assert first.categories == ("b",)


# ---- large tables ---------------------------------------------------------------------------------------------


def test_a_table_on_disk_is_the_table_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that do not fit are kept in a file, a few rows at a time: arrays, schema and notes are the same; so is a mistake's place."""
    from components.data import cells, columns, spool, table, tally

    def row(i: int) -> tuple[object, ...]:
        when, gap = f"2024-{i % 12 + 1:02d}-{i % 28 + 1:02d}", "?" if i % 50 == 3 else i % 90 + 0.5
        return i / 7, when, gap, ("é", "b", "")[i % 3], f"id{i}", "ny"[i % 2]

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    held = made(tmp_path / "a", "x,when,gaps,k,id,y", row, count=1000)
    for module, name, value in (
        (cells, "BLOCK_ROWS", 64), (table, "BLOCK_ROWS", 64), (cells, "MOST_HELD", 0), (tally, "FEW", 100),
        (spool, "BLOCK_BYTES", 999), (columns, "HELD_BYTES", 99),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    spilled = made(tmp_path / "b", "x,when,gaps,k,id,y", row, count=1000)
    assert spilled.digest == held.digest
    assert spilled.identity == held.identity
    assert any("1000 texts in 1000 rows identify the row" in note for note in held.notes)
    path = write(tmp_path, "x,y\n" + "".join(f"{'oops' if i == 777 else i / 3},{'ny'[i % 2]}\n" for i in range(1000)), "wrong.csv")
    with pytest.raises(DataError, match=r"wrong\.csv line 779, column 'x': 'oops' is not a number"):
        read_version(tmp_path / "out", "csv", path=str(path), target="y")


def test_cells_on_disk_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of 2 MB, whose cells are 10 MB as strings, is read within 1 MB."""
    from components.data import cells, spool, table

    for module, name, value in (
        (cells, "BLOCK_ROWS", 256), (table, "BLOCK_ROWS", 256), (cells, "MOST_HELD", 0), (spool, "IN_MEMORY_BYTES", 999),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    path = write(tmp_path, "a,b,c,d\n" + "".join(f"{i / 7:.6f},{i},{i * i},x{i % 5000}\n" for i in range(50_000)))
    tracemalloc.start()
    try:
        found = read_table(path, Form())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 50_000
    assert found.columns["b"][49_999] == "49999"
    assert peak < 1_000_000


def test_a_table_of_two_files_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test file follows the training file, and its lines are its own."""
    from components.data import cells

    monkeypatch.setattr(cells, "MOST_HELD", 0)
    path = write(tmp_path, "x,y\n" + "".join(f"{i / 7},{i % 3}\n" for i in range(300)))
    test = write(tmp_path, "y,x\n1,1.5\n7,2.5\n", "test.csv")
    with pytest.raises(DataError, match=r"test\.csv line 3, column 'y': class '7' is in no training row"):
        read_version(tmp_path / "out", "csv", path=str(path), test_path=str(test), target="y", task="classification")


def test_a_wrong_byte_far_into_a_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is counted over the parts that are read at a time, gzip or not."""
    from components.data import table

    monkeypatch.setattr(table, "READ_BYTES", 1000)
    rows = b"".join(b"%d,a\n" % i for i in range(3_000))
    content = b"x,y\n" + rows + b"1,\xfc\n"
    for name, data in (("t.csv", content), ("t.csv.gz", gzip.compress(content, 1))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"{name} line 3002 is not utf-8 text \(byte 0xfc\)"):
            read_table(tmp_path / name, Form())
