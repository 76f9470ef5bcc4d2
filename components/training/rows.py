"""Rows to train on or to judge by: tensors in memory, or streamed from disk behind the same methods.

Memory where the rows fit (`fits`), else a stream: arrays through memory maps, images kept as files through processes
that decode them. Both give the same tensors for the same index, bit for bit, and nobody who asks needs to know which.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.data.decoding import ahead
from components.data.mapped import Mapped
from components.data.packed import Packed
from components.errors import UnknownNameError, UsageError
from components.processes import available_cores

Index: TypeAlias = Tensor | slice
Batch: TypeAlias = tuple[dict[str, Tensor], Tensor]

MODES = ("auto", "memory", "stream")
# Of the memory that is free, shared by one process per core (the trials of a search hold their rows each).
MEMORY_SHARE = 0.25
# What the inputs of a batch may take as float32 where its size is free to choose: activations take some ten times that.
BATCH_BYTES = 8 * 2**20


class Rows:
    """Fields and targets of some rows in memory; regression targets are standardised (mean 0, std 1 over training)."""

    def __init__(self, *, fields: dict[str, Tensor], targets: Tensor) -> None:
        self._fields, self.targets = fields, targets

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def fields(self) -> dict[str, Tensor]:
        """All rows as tensors, first axis the rows."""
        return self._fields

    @property
    def row_values(self) -> int:
        """How many numbers a row's fields hold."""
        return sum(values[0].numel() for values in self._fields.values())

    def at(self, index: Index) -> Batch:
        """The rows of an index."""
        return {name: values[index] for name, values in self._fields.items()}, self.targets[index]

    @property
    def num_bytes(self) -> int:
        """What the fields take in memory."""
        return sum(values.nbytes for values in self._fields.values())

    def on(self, device: str) -> Rows:
        """The same rows in a device's memory."""
        return Rows(fields={name: values.to(device) for name, values in self._fields.items()}, targets=self.targets.to(device))

    def part(self, index: Index) -> Rows:
        """The rows of an index, as rows of their own."""
        fields, targets = self.at(index)
        return Rows(fields=fields, targets=targets)

    def batches(self, cuts: Iterable[Index], most: int) -> Iterator[Batch]:
        """The rows of one index after another, each of at most `most` rows; what is streamed is read ahead."""
        return map(self.at, cuts)

    def in_order(self, most: int) -> Iterator[Batch]:
        """All rows in order, at most `most` at a time and fewer where a row is large, so that a pass takes bounded memory."""
        size = max(1, min(most, BATCH_BYTES // (4 * max(1, self.row_values))))
        return self.batches((slice(start, start + size) for start in range(0, len(self), size)), size)


class StreamedRows(Rows):
    """The same, read from disk whenever it is asked for; targets alone are in memory.

    `index` are the numbers of the rows in what is stored, None for all; `workers` decode images (None: as many as are of use).
    """

    def __init__(
        self, *, stored: Mapping[str, Mapped | Packed], targets: Tensor, index: NDArray[np.int64] | None = None, workers: int | None = None
    ) -> None:
        self._stored, self.targets, self._index, self.workers = dict(stored), targets, index, workers

    @property
    def fields(self) -> dict[str, Tensor]:
        """All rows as tensors; they are read anew each time."""
        return {name: self._whole(field) for name, field in self._stored.items()}

    @property
    def row_values(self) -> int:
        return sum(int(np.prod(field.shape[1:])) for field in self._stored.values())

    @property
    def num_bytes(self) -> int:
        """What the fields would take in memory."""
        return len(self) * sum(field.row_bytes for field in self._stored.values())

    def at(self, index: Index) -> Batch:
        rows = self._numbers(index)
        return {name: torch.from_numpy(field.take(rows)) for name, field in self._stored.items()}, self.targets[index]

    def part(self, index: Index) -> StreamedRows:
        return StreamedRows(stored=self._stored, targets=self.targets[index], index=self._numbers(index), workers=self.workers)

    def loaded(self) -> Rows:
        """The same rows in memory."""
        return Rows(fields=self.fields, targets=self.targets)

    def batches(self, cuts: Iterable[Index], most: int) -> Iterator[Batch]:
        cuts, *copies = itertools.tee(cuts, 1 + len(self._stored))
        arrays = [self._ahead(field, map(self._numbers, copy), most) for field, copy in zip(self._stored.values(), copies)]
        for cut, *found in zip(cuts, *arrays):
            yield {name: torch.from_numpy(array) for name, array in zip(self._stored, found)}, self.targets[cut]

    def _ahead(self, field: Mapped | Packed, batches: Iterable[NDArray[np.int64]], most: int) -> Iterator[NDArray]:
        return ahead(field, batches, most, self.workers) if isinstance(field, Packed) else _expected(field, batches)

    def _numbers(self, index: Index) -> NDArray[np.int64]:
        """The numbers of an index's rows in what is stored."""
        if isinstance(index, slice):
            rows = np.arange(*index.indices(len(self)))
            return rows if self._index is None else self._index[rows]
        return index.numpy() if self._index is None else self._index[index.numpy()]

    def _whole(self, field: Mapped | Packed) -> Tensor:
        found = np.empty((len(self), *field.shape[1:]), dtype=field.dtype)
        size = max(1, BATCH_BYTES // field.row_bytes)
        parts = [slice(start, start + size) for start in range(0, len(self), size)]
        for part, rows in zip(parts, self._ahead(field, map(self._numbers, parts), size)):
            found[part] = rows
        return torch.from_numpy(found)


def _expected(field: Mapped, batches: Iterable[NDArray[np.int64]]) -> Iterator[NDArray]:
    """The rows of each batch; those of the next are asked for before."""
    for rows, following in itertools.pairwise(itertools.chain(batches, [None])):
        assert rows is not None
        if following is not None:
            field.expect(following)
        yield field.take(rows)


def fits(num_bytes: int) -> bool:
    """Whether rows of so many bytes may be held in memory by one process per core."""
    return num_bytes <= MEMORY_SHARE * available_memory() / available_cores()


def available_memory() -> int:
    """Bytes that can be had without swapping: what the system says is available, and what the control group leaves."""
    system = next(int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    try:
        limit, used = (Path("/sys/fs/cgroup", name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return system
    return system if limit == "max" else min(system, max(0, int(limit) - int(used)))


def is_streamed(num_bytes: int, mode: str) -> bool:
    """Whether rows are streamed, as `training.data` says. Raises `UnknownNameError`."""
    if mode not in MODES:
        raise UnknownNameError("training.data", str(mode), MODES)
    return not fits(num_bytes) if mode == "auto" else mode == "stream"


def num_workers(setting: int | str) -> int | None:
    """Processes that decode streamed images, as `training.workers` says: None for auto. Raises `UsageError`."""
    if setting == "auto":
        return None
    if isinstance(setting, bool) or not isinstance(setting, int) or setting < 0:
        raise UsageError(f"training.workers is auto or a number of processes that decode images (0: none), got {setting!r}")
    return setting
