"""What a dataset reader is: the interface of the `dataset` family, and the two values that pass between a reader and `version`.

A reader is built from `conf/dataset/<name>.yaml` and knows one form of data (a CSV file, a folder of images). It says
which files decide the content, reads them, and reads new rows of the same form for prediction. How rows are split is
not its business, except where the data bring a split of their own.

    sources() ──▶ files, digested ──▶ the version's digest
    read() ──▶ Reading ── split by row digest ──▶ encode(training rows) ──▶ Encoded ──▶ .npy files

Modules of this family import numpy and their parsers inside functions: a run with nothing to do builds a reader only
to ask for its files.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from components.artifacts import JSON, InputField
from components.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from components.data.packed import EncodedImages
    from components.data.spool import Blocks

DIGEST_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """All rows as arrays (first axis the rows, in the order read), with statistics of the training rows only.

    What may be large comes as something that is read by blocks of rows, or as images that stay encoded."""

    inputs: tuple[InputField, ...]
    arrays: Mapping[str, Blocks | EncodedImages]
    target: np.ndarray
    task: str
    classes: tuple[str, ...]
    target_name: str
    source: JSON
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Rows as read: a digest of each row's content, the split it was given (train, validation, test, or "" for none),
    and `encode`, which takes the numbers of the training rows."""

    digests: Sequence[bytes]
    given: Sequence[str]
    encode: Callable[[np.ndarray], Encoded]


class Reader(Protocol):
    """One form of data. Every error of the data is a `DataError` that names the file and the line, image or column.

    `places` names the options that say where data are, not what they are: they take no part in any digest.
    `rows` reads new rows for `inputs` and ignores a target; it returns one name per row and an array per field.
    `example` writes a tiny data set of this form below a folder and returns the options that read it: the contract
    suite needs one for every member, and a newcomer sees what the form looks like.
    """

    modality: str
    places: tuple[str, ...]

    @property
    def name(self) -> str: ...

    def sources(self) -> dict[str, Path]: ...

    def read(self) -> Reading: ...

    def rows(self, path: Path, inputs: tuple[InputField, ...]) -> tuple[list[str], dict[str, np.ndarray]]: ...

    @staticmethod
    def example(folder: Path) -> dict[str, Any]: ...


class RowDigests(Sequence[bytes]):
    """Digests of many rows, 16 bytes each."""

    def __init__(self) -> None:
        self.content = bytearray()

    def append(self, digest: bytes) -> None:
        """Adds a row's."""
        self.content += digest

    def __len__(self) -> int:
        return len(self.content) // DIGEST_BYTES

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        start = range(0, len(self.content), DIGEST_BYTES)[row]
        return bytes(self.content[start : start + DIGEST_BYTES])


def row_digest(content: bytes) -> bytes:
    """16 bytes that stand for a row's content, on every machine and in every version."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def plain_name(name: str | None, path: Path | None) -> str:
    """The data set's name: the one given, or the file's or folder's without its suffixes; letters, digits, `-`, `_`."""
    if not name and path is None:
        raise UsageError("dataset.path is needed: add dataset.path=PATH")
    if not name and path is not None:
        stem = path.absolute().name
        name = re.sub(r"(\.(csv|tsv|txt|data|parquet|pq|zip|gz))+$", "", stem, flags=re.IGNORECASE)
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "-", name or "").strip("-")
    if not cleaned:
        raise UsageError(f"dataset.name must hold a letter or a digit, got {name!r}; set dataset.name=NAME")
    return cleaned


def required_path(value: str | Path | None, what: str, option: str = "dataset.path") -> Path:
    """The path an option gives, which must exist. Raises `UsageError` if it is unset, `DataError` if nothing is there."""
    if value is None or not str(value):
        raise UsageError(f"{option} is needed: the path of {what}")
    path = Path(value).expanduser()
    try:
        path.stat()
    except FileNotFoundError:
        raise DataError(f"{option} {str(path)!r} does not exist; {_nearest(path)}") from None
    except OSError as error:
        raise DataError(f"{option} {str(path)!r} cannot be read ({error.strerror}); make it readable for this user") from error
    return path


def _nearest(path: Path) -> str:
    """What to do about a path that is not there: pull it, or take the neighbour whose name is most like it."""
    import difflib

    if path.with_name(path.name + ".dvc").exists():
        return f"{path.name}.dvc pins it: run `athanor data pull` to fetch it"
    try:
        neighbours = [entry.name for entry in path.absolute().parent.iterdir()]
    except OSError:
        return f"its folder {str(path.absolute().parent)!r} cannot be listed either: check the path"
    close = difflib.get_close_matches(path.name, neighbours, n=1, cutoff=0.6)
    return f"did you mean {str(path.with_name(close[0]))!r}?" if close else "check the path"


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked if they are gzip's. Raises `DataError` for an unreadable or damaged file."""
    with opened(path) as file:
        return file.read()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file to read from, unpacked as it is read if it is gzip's. Raises `DataError` for an unreadable or damaged file."""
    import gzip
    import zlib

    try:
        file = path.open("rb")
    except IsADirectoryError:
        raise DataError(f"{path} is a folder where a file is expected; name the file itself") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); make it readable for this user") from error
    with file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if is_gzip else file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path} is a damaged gzip file ({error}); fetch it again") from error
