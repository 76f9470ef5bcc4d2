"""Rows on their way into a dataset version: in memory while they are few, in a temporary file when they are many.

    spool = Spool((3, 64, 64), np.uint8); spool.append(block); spool[:256]
    write_rows(spool, splits, out, "image")           # out/<split>/image.npy, whatever their size

Temporary files lie in the state folder, without a name: they vanish with the process, however it ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from components.artifacts import SPLITS, StoredFile
from components.home import home

IN_MEMORY_BYTES = 64 * 2**20
BLOCK_BYTES = 8 * 2**20  # rows handled at a time


class Blocks(Protocol):
    """An array that gives its rows by slices of the first axis."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, index: Any) -> NDArray[Any]: ...


class TemporaryFile(tempfile.SpooledTemporaryFile[bytes]):
    """A file without a name, in memory up to so many bytes, then in the state folder."""

    def __init__(self, in_memory: int | None = None) -> None:
        self._folder = home() / "tmp"
        super().__init__(max_size=in_memory or IN_MEMORY_BYTES, dir=str(self._folder))

    def rollover(self) -> None:
        """Goes on on disk."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().rollover()


class Spool:
    """Rows of one shape, appended block by block and read by slices."""

    def __init__(self, row_shape: Sequence[int], dtype: DTypeLike, in_memory: int | None = None) -> None:
        self.dtype, self.row_shape, self._count = np.dtype(dtype), tuple(int(side) for side in row_shape), 0
        self._row_bytes = self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))
        self._file = TemporaryFile(in_memory)

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._count, *self.row_shape)

    def append(self, rows: NDArray[Any]) -> None:
        """Adds rows [n, *row_shape] of the same type."""
        assert rows.shape[1:] == self.row_shape
        assert rows.dtype == self.dtype
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(rows).data)
        self._count += len(rows)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, step = rows.indices(self._count)
        assert step == 1
        self._file.seek(start * self._row_bytes)
        content = self._file.read(max(0, stop - start) * self._row_bytes)
        return np.frombuffer(content, dtype=self.dtype).reshape(-1, *self.row_shape)


class Columns:
    """Vectors of one type side by side as an array [N, C]."""

    def __init__(self, columns: Sequence[Blocks]) -> None:
        self._columns = tuple(columns)
        self.dtype, self.shape = self._columns[0].dtype, (self._columns[0].shape[0], len(self._columns))

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        return np.stack([column[rows] for column in self._columns], axis=1)


def blocks(array: Blocks) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Slices of at most `BLOCK_BYTES`, and the rows of each."""
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, array.shape[0], size):
        part = slice(start, start + size)
        yield part, array[part]


def write_rows(array: Blocks, splits: NDArray[np.str_], out: Path, name: str) -> dict[str, StoredFile]:
    """Writes each split's rows to `out/<split>/<name>.npy`, as `numpy.save` would; by `<split>/<name>`."""
    paths = {split: out / split / f"{name}.npy" for split in SPLITS}
    with ExitStack() as stack:
        files = {split: stack.enter_context(path.open("wb")) for split, path in paths.items()}
        for split, file in files.items():
            shape = (int((splits == split).sum()), *array.shape[1:])
            header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        for part, rows in blocks(array):
            for split, file in files.items():
                file.write(np.ascontiguousarray(rows[splits[part] == split]).data)
    return {f"{split}/{name}": StoredFile.of(path) for split, path in paths.items()}
