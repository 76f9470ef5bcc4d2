"""Data that cannot be used: each mistake is one line with the file, the row or column, the rule and what to do; exit 65."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.data.dataset.csv import Csv
from components.data.dataset.idx import Idx
from components.data.dataset.image_folder import ImageFolder
from components.data.version import read_rows
from components.errors import AthanorError, DataError, UnknownNameError, UsageError
from tests.datasets import CONF, read_version

pytestmark = pytest.mark.usefixtures("home")


def refused(tmp_path: Path, expected: str, choice: str, /, kind: type[AthanorError] = DataError, **options: Any) -> None:
    """The version verb refuses, with exactly this sentence (TMP stands for the test's folder) and nothing written."""
    out = tmp_path / "out"
    with pytest.raises(kind) as caught:
        read_version(out, choice, **options)
    said = str(caught.value).replace(str(tmp_path), "TMP")
    assert said == expected
    assert caught.value.exit_code == (2 if issubclass(kind, UsageError) else 65)
    assert list(out.rglob("*")) == []


def table(tmp_path: Path, text: str, name: str = "t.csv") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


# ---- tables ---------------------------------------------------------------------------------------------------


def test_path_that_does_not_exist(tmp_path: Path) -> None:
    """The neighbour whose name is nearest is offered."""
    table(tmp_path, "a,b\n1,2\n", "churn.csv")
    expected = "dataset.path 'TMP/chrun.csv' does not exist; did you mean 'TMP/churn.csv'?"
    refused(tmp_path, expected, "csv", path=str(tmp_path / "chrun.csv"), target="b")


def test_test_path_that_does_not_exist(tmp_path: Path) -> None:
    """The option that is wrong is named."""
    path = table(tmp_path, "a,b\n1,2\n")
    refused(
        tmp_path, "dataset.test_path 'TMP/gone' does not exist; check the path", "csv", path=path, test_path=f"{tmp_path}/gone", target="b"
    )


def test_no_target(tmp_path: Path) -> None:
    """Without a target the columns to choose from are listed."""
    path = table(tmp_path, "a,b\n1,2\n")
    refused(tmp_path, "dataset.target must name the column to predict; the columns are a, b", "csv", UsageError, path=path)


def test_target_column_is_not_there(tmp_path: Path) -> None:
    """The nearest column is offered, and what to say of a file without a header."""
    path = table(tmp_path, "age,plan,left\n1,2,3\n")
    expected = (
        "TMP/t.csv has no column 'lfet' (dataset.target); did you mean 'left'? (columns: age, plan, left; "
        "a file without a header line needs dataset.header=false)"
    )
    refused(tmp_path, expected, "csv", path=path, target="lfet")


def test_ragged_row(tmp_path: Path) -> None:
    """The line, how many fields it has and how many it should have."""
    path = table(tmp_path, "a,b,c\n1,2,3\n\n4,5\n")
    expected = (
        "TMP/t.csv line 4 has 2 fields where the header has 3; correct the line "
        "(dataset.delimiter, dataset.quote and dataset.comment say how lines are cut)"
    )
    refused(tmp_path, expected, "csv", path=path, target="c", delimiter=",")


def test_wrong_encoding(tmp_path: Path) -> None:
    """The line and byte that are not of the encoding, and the option that says another."""
    (tmp_path / "t.csv").write_bytes("a,b\n1,x\n2,Zürich\n".encode("latin-1"))
    expected = "TMP/t.csv line 3 is not utf-8 text (byte 0xfc); save it as UTF-8 or set dataset.encoding, often latin-1"
    refused(tmp_path, expected, "csv", path=str(tmp_path / "t.csv"), target="b")


def test_unknown_encoding(tmp_path: Path) -> None:
    """An encoding that does not exist is a mistake of the command, not of the data."""
    path = table(tmp_path, "a,b\n1,2\n")
    expected = "dataset.encoding 'utf-9' is not one that Python knows; utf-8 and latin-1 are the usual ones"
    refused(tmp_path, expected, "csv", UsageError, path=path, target="b", encoding="utf-9")


@pytest.mark.parametrize("gap", ["", "NaN", "?"])
def test_missing_target(tmp_path: Path, gap: str) -> None:
    """The first row without a target is named, and how many more there are."""
    path = table(tmp_path, f"a,b\n1,2.5\n2,{gap}\n3,1.5\n4,{gap}\n")
    expected = "TMP/t.csv line 3, column 'b': the target is missing (empty or NaN) and 1 more rows; fill it in or remove the row"
    refused(tmp_path, expected, "csv", path=path, target="b", na_values=["?"])


def test_target_that_is_no_number(tmp_path: Path) -> None:
    """Regression asked for on a target with a word in it."""
    path = table(tmp_path, "a,b\n1,2.5\n2,many\n")
    expected = (
        "TMP/t.csv line 3, column 'b': the target 'many' is not a finite number, which regression needs; "
        "correct it or say dataset.task=classification"
    )
    refused(tmp_path, expected, "csv", path=path, target="b", task="regression")


def test_empty_files(tmp_path: Path) -> None:
    """No bytes, blank lines only, a header only."""
    refused(tmp_path, "TMP/a.csv is empty: a table needs at least one row", "csv", path=table(tmp_path, "", "a.csv"), target="b")
    refused(tmp_path, "TMP/b.csv is empty: a table needs at least one row", "csv", path=table(tmp_path, "\n\n", "b.csv"), target="b")
    expected = "TMP/c.csv has a header line but no rows; add rows, or say dataset.header=false if the line is a row"
    refused(tmp_path, expected, "csv", path=table(tmp_path, "a,b\n", "c.csv"), target="b")


def test_folder_where_a_file_is_expected(tmp_path: Path) -> None:
    """dataset=csv on a folder."""
    (tmp_path / "d").mkdir()
    expected = "dataset.path 'TMP/d' is a folder; dataset=csv reads one file, so name the file in it"
    refused(tmp_path, expected, "csv", path=str(tmp_path / "d"), target="b")


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    """Names must be distinct, or a prediction could take the wrong one."""
    path = table(tmp_path, "a,a,b\n1,2,3\n")
    expected = "TMP/t.csv has two columns named 'a'; rename one, or say dataset.header=false if its first line is a row and not a header"
    refused(tmp_path, expected, "csv", path=path, target="b")


def test_class_that_only_the_test_file_has(tmp_path: Path) -> None:
    """It cannot have been learned."""
    path = table(tmp_path, "a,b\n" + "".join(f"{i}.5,{'xy'[i % 2]}\n" for i in range(40)))
    test = table(tmp_path, "a,b\n1,x\n2,z\n", "test.csv")
    expected = "TMP/test.csv line 3, column 'b': class 'z' is in no training row (classes: x, y); correct it"
    refused(tmp_path, expected, "csv", path=path, test_path=test, target="b")


def test_test_file_lacks_a_column(tmp_path: Path) -> None:
    """Both files must have the columns of the first."""
    path = table(tmp_path, "age,b\n1,x\n2,y\n")
    test = table(tmp_path, "agee,b\n1,x\n", "test.csv")
    expected = (
        "TMP/test.csv lacks column 'age', which t.csv has; did you mean 'agee'? (columns: agee, b; "
        "a file without a header line needs dataset.header=false)"
    )
    refused(tmp_path, expected, "csv", path=path, test_path=test, target="b")


def test_word_among_numbers(tmp_path: Path) -> None:
    """One typing mistake does not quietly turn a column of numbers into hundreds of categories."""
    rows = "".join(f"{i}.5,{'xy'[i % 2]}\n" for i in range(300))
    path = table(tmp_path, f"a,b\n{rows}12o,x\n")
    expected = (
        "TMP/t.csv line 302, column 'a': '12o' is not a number, as 99.7% of the column are; correct it, "
        "list it in dataset.na_values, or name the column in dataset.categories"
    )
    refused(tmp_path, expected, "csv", path=path, target="b")


def test_unclosed_quote(tmp_path: Path) -> None:
    """A quote that never closes is told, not swallowed."""
    path = table(tmp_path, 'a,b\n1,"x\n2,y\n')
    expected = "TMP/t.csv line 3 cannot be cut into fields (unexpected end of data); mend its quotes or set dataset.quote=null"
    refused(tmp_path, expected, "csv", path=path, target="b", delimiter=",")


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    """Only an identifier and a constant beside the target: both are named."""
    rows = "".join(f"u{i},7,{'xy'[i % 2]}\n" for i in range(50))
    path = table(tmp_path, f"id,k,b\n{rows}")
    expected = (
        "TMP/t.csv has no column to learn from beside 'b': column 'id' left out: 50 texts in 50 rows identify the row "
        "(dataset.categories keeps it); column 'k' left out: it is always 7"
    )
    refused(tmp_path, expected, "csv", path=path, target="b")


def test_option_names_a_column_that_is_not_there(tmp_path: Path) -> None:
    """drop, numbers, categories and dates are the command's: exit 2, nearest name."""
    path = table(tmp_path, "age,b\n1,x\n2,y\n")
    for option in ("drop", "numbers", "categories"):
        expected = f"unknown column in dataset.{option} 'agee'; did you mean 'age'? (choices: age, b)"
        refused(tmp_path, expected, "csv", UnknownNameError, path=path, target="b", **{option: ["agee"]})


def test_options_of_the_wrong_form() -> None:
    """A text for a list, a word for a character, a task that does not exist."""
    with pytest.raises(UsageError, match=re.escape("dataset.drop must be a list, got the text 'a'; write dataset.drop=[a]")):
        Csv(drop="a")
    with pytest.raises(UsageError, match=re.escape("dataset.delimiter must be one character, got 'comma'")):
        Csv(delimiter="comma")
    with pytest.raises(UsageError, match=re.escape("dataset.max_categories must be a whole number of at least 2, got 1")):
        Csv(max_categories=1)


def test_too_few_rows_to_split(tmp_path: Path) -> None:
    """Three rows do not make three splits."""
    path = table(tmp_path, "a,b\n1,x\n2,y\n3,x\n")
    with pytest.raises(DataError, match=r"split has no rows: 3 .* too few for split\.validation=0\.15 and split\.test=0\.2"):
        read_version(tmp_path / "out", "csv", path=path, target="b")


def test_damaged_gzip_and_parquet(tmp_path: Path) -> None:
    """A cut gzip file and a text that calls itself Parquet."""
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n" + os.urandom(4000).hex().encode())[:-800])
    with pytest.raises(DataError, match=r"t\.csv\.gz is a damaged gzip file \(.*\); fetch it again"):
        read_version(tmp_path / "out", "csv", path=str(tmp_path / "t.csv.gz"), target="b")
    with pytest.raises(DataError, match=r"t\.parquet is not a Parquet file that can be read \(.*\); write it again"):
        read_version(tmp_path / "out", "csv", path=table(tmp_path, "a,b\n1,2\n", "t.parquet"), target="b")


def test_parquet_of_lists(tmp_path: Path) -> None:
    """A column whose cells are lists is no table's column."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"a": [[1], [2]], "b": ["x", "y"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet column 'a' holds list<.*>, not numbers, text or dates"):
        read_version(tmp_path / "out", "csv", path=str(tmp_path / "t.parquet"), target="b")


def test_unreadable_file(tmp_path: Path) -> None:
    """A file without permission, read by a process that is not root (it reads another file first, so that all is imported)."""
    folder = Path(tempfile.mkdtemp(prefix="athanor-unreadable-"))
    code = (
        "import os, sys\nfrom components.data.dataset.csv import Csv\nfrom components.errors import DataError\n"
        "Csv(path=sys.argv[1], target='b').read()\nif os.geteuid() == 0:\n    os.setuid(65534)\n"
        "try:\n    Csv(path=sys.argv[2], target='b').read()\nexcept DataError as error:\n    print(error)\n"
    )
    try:
        folder.chmod(0o755)
        table(folder, "a,b\n1,x\n2,y\n", "open.csv")
        table(folder, "a,b\n1,x\n2,y\n", "shut.csv")
        (folder / "shut.csv").chmod(0)
        command = [sys.executable, "-c", code, str(folder / "open.csv"), str(folder / "shut.csv")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=CONF.parent)
        assert done.stdout.strip() == f"{folder}/shut.csv cannot be read (Permission denied); make it readable for this user", done.stderr
    finally:
        shutil.rmtree(folder)


# ---- idx ------------------------------------------------------------------------------------------------------


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    folder = tmp_path / "idx"
    folder.mkdir()
    Idx.example(folder)
    return folder


def test_missing_idx_file(tmp_path: Path, idx: Path) -> None:
    """The file that lacks, and what the folder holds."""
    (idx / "t10k-labels-idx1-ubyte").unlink()
    expected = (
        "TMP/idx has no file t10k-labels-idx1-ubyte (or t10k-labels-idx1-ubyte.gz); "
        "it holds t10k-images-idx3-ubyte, train-images-idx3-ubyte, train-labels-idx1-ubyte"
    )
    refused(tmp_path, expected, "idx", path=str(idx))


def test_empty_idx_folder(tmp_path: Path) -> None:
    """An empty folder is called empty."""
    (tmp_path / "idx").mkdir()
    expected = "TMP/idx has no file train-images-idx3-ubyte (or train-images-idx3-ubyte.gz); it is empty"
    refused(tmp_path, expected, "idx", path=str(tmp_path / "idx"))


def test_wrong_magic_number(tmp_path: Path, idx: Path) -> None:
    """Labels where images should be."""
    (idx / "train-images-idx3-ubyte").write_bytes((idx / "train-labels-idx1-ubyte").read_bytes())
    expected = (
        "TMP/idx/train-images-idx3-ubyte is no idx file of images: its magic number must be 0x00000803 and is 0x00000801; "
        "are files swapped?"
    )
    refused(tmp_path, expected, "idx", path=str(idx))


def test_truncated_idx_file(tmp_path: Path, idx: Path) -> None:
    """Fewer bytes than the header promises; plain and gzip are told alike."""
    file = idx / "train-images-idx3-ubyte"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    expected = "TMP/idx/train-images-idx3-ubyte says it holds 120 x 8 x 8 images in 7,696 bytes, but has 7,596; fetch it again"
    refused(tmp_path, expected, "idx", path=str(idx))
    file.write_bytes(content[:6])
    refused(tmp_path, "TMP/idx/train-images-idx3-ubyte ends within its header (6 bytes); fetch it again", "idx", path=str(idx))


def test_labels_and_images_of_different_number(tmp_path: Path, idx: Path) -> None:
    """119 labels for 120 images."""
    (idx / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 119) + bytes(119))
    expected = "TMP/idx/train-labels-idx1-ubyte has 119 labels, but train-images-idx3-ubyte has 120 images; fetch both again"
    refused(tmp_path, expected, "idx", path=str(idx))


def test_test_label_beyond_training(tmp_path: Path, idx: Path) -> None:
    """A test label that no training row has."""
    (idx / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 40) + bytes(39) + b"\x07")
    expected = "TMP/idx/t10k-labels-idx1-ubyte row 39 has label 7, which no training row has (highest: 2)"
    refused(tmp_path, expected, "idx", path=str(idx))


# ---- image folders --------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    ImageFolder.example(folder)
    return folder


def test_empty_folder(tmp_path: Path) -> None:
    """Nothing in it, or nothing but hidden files."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / ".DS_Store").write_bytes(b"x")
    refused(tmp_path, "TMP/p holds no images; put them in one folder per class below it", "image_folder", path=str(tmp_path / "p"))


def test_truncated_image(tmp_path: Path, pictures: Path) -> None:
    """The file is named."""
    file = pictures / "dusk" / "007.png"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"pictures/dusk/007\.png is a truncated or damaged image \(.*\); remove it or replace it"):
        read_version(tmp_path / "out", "image_folder", path=str(pictures))


def test_file_that_is_no_image(tmp_path: Path, pictures: Path) -> None:
    """A text among images is named, whatever its suffix."""
    (pictures / "dusk" / "notes.png").write_text("remember the milk")
    expected = (
        "TMP/pictures/dusk/notes.png is not an image that can be decoded; remove it or replace it, "
        "or leave such images out with dataset.corrupt=skip"
    )
    refused(tmp_path, expected, "image_folder", path=str(pictures))


def test_image_outside_a_class_folder(tmp_path: Path, pictures: Path) -> None:
    """It has no class."""
    (pictures / "dusk" / "000.png").rename(pictures / "stray.png")
    expected = "stray.png in TMP/pictures lies outside a class folder; arrange images as class/file, or move it away"
    refused(tmp_path, expected, "image_folder", path=str(pictures))


def test_class_that_only_the_test_folder_has(tmp_path: Path, pictures: Path) -> None:
    """It cannot be learned."""
    (tmp_path / "tree" / "train").mkdir(parents=True)
    (tmp_path / "tree" / "test").mkdir()
    for label in ("dark", "dusk"):
        (pictures / label).rename(tmp_path / "tree" / "train" / label)
    (pictures / "light").rename(tmp_path / "tree" / "test" / "light")
    expected = "TMP/tree/test/light/000.png has class 'light', which no training folder has; add some or remove it"
    refused(tmp_path, expected, "image_folder", path=str(tmp_path / "tree"))


def archive(path: Path, entries: dict[str, bytes], link: str | None = None) -> str:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = 0o120777 << 16
            file.writestr(entry, "/etc/passwd")
    return str(path)


def png(value: int = 9) -> bytes:
    held = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, dtype=np.uint8)).save(held, "png")
    return held.getvalue()


@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png", "a/../../1.png", "..\\a\\1.png"])
def test_archive_that_points_outside(tmp_path: Path, name: str) -> None:
    """Names that would escape are refused though nothing is unpacked."""
    path = archive(tmp_path / "p.zip", {"b/1.png": png()})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, png())
    expected = f"TMP/p.zip holds {name!r}, which points outside the archive; pack it again with relative names"
    refused(tmp_path, expected, "image_folder", path=path)


def test_archive_with_a_link(tmp_path: Path) -> None:
    """Links are refused."""
    path = archive(tmp_path / "p.zip", {"a/1.png": png()}, link="a/2.png")
    refused(tmp_path, "TMP/p.zip holds a link (a/2.png); archives may hold files and folders only", "image_folder", path=path)


def test_archive_that_is_damaged(tmp_path: Path) -> None:
    """Not a zip file, and a zip file with a flipped byte in a member."""
    (tmp_path / "p.zip").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"p\.zip is not a zip archive that can be read \(.*\); fetch it again"):
        read_version(tmp_path / "out", "image_folder", path=str(tmp_path / "p.zip"))
    path = Path(archive(tmp_path / "q.zip", {"a/1.png": png(), "b/1.png": png(99)}))
    content = bytearray(path.read_bytes())
    content[content.find(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a/1\.png in .*q\.zip is damaged \(.*\); pack the archive again"):
        read_version(tmp_path / "out", "image_folder", path=str(path))


def test_file_that_is_no_archive(tmp_path: Path) -> None:
    """dataset=image_folder on some other file."""
    expected = "TMP/t.csv is neither a folder nor a .zip archive; dataset=image_folder reads one folder per class"
    refused(tmp_path, expected, "image_folder", path=table(tmp_path, "a,b\n"))


def test_options_of_images() -> None:
    """Sizes and channels that cannot be."""
    with pytest.raises(UsageError, match=re.escape("dataset.size must be a side or [height, width] in pixels, got 0")):
        ImageFolder(size=0)
    with pytest.raises(UsageError, match=re.escape("dataset.channels must be 1 (grey) or 3 (RGB), got 4; null finds out")):
        ImageFolder(channels=4)


# ---- new rows -------------------------------------------------------------------------------------------------


def test_new_rows_that_do_not_fit(tmp_path: Path) -> None:
    """A column the model needs, a word where it expects a number, a file with no rows."""
    options = Csv.example(tmp_path)
    record = read_version(tmp_path / "out", "csv", **options)
    table(tmp_path, "usge,plan,since\n1,pro,2024-01-01\n", "a.csv")
    with pytest.raises(DataError, match=r"a\.csv has no column 'usage' \(which the model was trained on\); did you mean 'usge'\?"):
        read_rows(record.source, record.inputs, tmp_path / "a.csv")
    table(tmp_path, "usage,plan,since\nmuch,pro,2024-01-01\n", "b.csv")
    with pytest.raises(
        DataError, match=r"b\.csv line 2, column 'usage': 'much' is not a number; correct it or list it in dataset\.na_values"
    ):
        read_rows(record.source, record.inputs, tmp_path / "b.csv")
    table(tmp_path, "usage,plan,since\n1,pro,yesterday\n", "c.csv")
    with pytest.raises(DataError, match=r"c\.csv line 2, column 'since': 'yesterday' is not a date of the format iso"):
        read_rows(record.source, record.inputs, tmp_path / "c.csv")
    with pytest.raises(DataError, match="gone"):
        read_rows(record.source, record.inputs, tmp_path / "gone.csv")
