"""Rows of .npy files read from disk through memory maps, of which only little stays resident.

A map counts as memory of the process for as long as its pages are mapped, though the kernel could take them back. So the
pages are given back after every few megabytes: they stay in the kernel's cache, where reading them again is cheap.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESIDENT_BYTES = 32 * 2**20  # of one file; a batch touches a few megabytes
FAULT_BYTES = 64 * 2**10  # what Linux maps around a byte that is read (fault_around_bytes)


class Mapped:
    """The rows of one or several .npy files of one row shape, one file after another. Raises `ValueError` for other files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [_File(path) for path in paths]
        first = self._files[0].array
        self.starts = np.cumsum([0, *(len(file.array) for file in self._files)])
        self.dtype, self.shape = first.dtype, (int(self.starts[-1]), *first.shape[1:])
        self.row_bytes = first.dtype.itemsize * int(np.prod(first.shape[1:], dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A fresh array of the rows of these numbers."""
        if len(self._files) == 1:
            return self._files[0].take(rows)
        found = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        for file, start, stop in zip(self._files, self.starts[:-1], self.starts[1:]):
            inside = (rows >= start) & (rows < stop)
            found[inside] = file.take(rows[inside] - start)
        return found

    def span(self, start: int, stop: int) -> NDArray[Any]:
        """A fresh array of the rows from `start` to `stop` of the only file."""
        return self._files[0].span(start, stop)

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Asks the kernel to read rows that are needed soon; rows smaller than a page come along with their neighbours."""
        if self.row_bytes < mmap.PAGESIZE:
            return
        for file, start, stop in zip(self._files, self.starts[:-1], self.starts[1:]):
            for row in rows[(rows >= start) & (rows < stop)] - start:
                file.expect(int(row), 1)


class _File:
    """One mapped .npy file."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            shape, in_columns, dtype = _header(file)
            self._start = file.tell()
            if in_columns or dtype.hasobject:
                raise ValueError(f"rows in C order without objects are expected, found {dtype} {'by columns' if in_columns else ''}")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        count = int(np.prod(shape, dtype=np.int64))
        self.array = np.frombuffer(self._map, dtype=dtype, count=count, offset=self._start).reshape(shape)
        self._row_bytes = dtype.itemsize * (count // max(1, len(self.array)))
        self._touched = 0

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A fresh array of rows, cut so that no more than `RESIDENT_BYTES` become resident."""
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self.array)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} are asked of {len(self.array)}")
        at_once = max(1, RESIDENT_BYTES // (self._row_bytes + FAULT_BYTES))
        found = np.empty((len(rows), *self.array.shape[1:]), dtype=self.array.dtype)
        for first in range(0, len(rows), at_once):
            part = rows[first : first + at_once]
            np.take(self.array, part, axis=0, out=found[first : first + at_once], mode="clip")  # the only mode that writes in place
            self._touched += len(part) * (self._row_bytes + FAULT_BYTES)
            self._give_back()
        return found

    def span(self, start: int, stop: int) -> NDArray[Any]:
        """A fresh array of neighbouring rows."""
        found = np.array(self.array[start:stop])
        self._touched += found.nbytes + FAULT_BYTES
        self._give_back()
        return found

    def _give_back(self) -> None:
        """Unmaps what has been touched once it is much; whoever reads it again finds it in the kernel's cache."""
        if self._touched >= RESIDENT_BYTES:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def expect(self, row: int, num_rows: int) -> None:
        """Asks the kernel for some rows."""
        first = self._start + row * self._row_bytes
        aligned = first - first % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, aligned, first + num_rows * self._row_bytes - aligned)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = read(file)
    return shape, in_columns, dtype
