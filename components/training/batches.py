"""A dataset's rows for training, in memory or streamed from disk, and batches cut from them by index.

The order of an epoch follows from (seed, epoch) alone, so a resumed run sees the batches that an uninterrupted one
would, wherever the rows lie and however many processes read them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.artifacts import DatasetVersion
from components.data.arrays import load_target, stored
from components.errors import DataError
from components.training.rows import Batch, StreamedRows, is_streamed, num_workers
from components.training.rows import Rows as Rows  # what the rest of training knows rows by


def load_rows(
    dataset: DatasetVersion, split: str, *, limit: int | None = None, seed: int = 0, data: str = "auto", workers: int | str = "auto"
) -> Rows:
    """A split's rows; with `limit`, that many drawn by `seed` and kept in order. Raises `DataError` for an empty split.

    `data` and `workers` are the settings `training.data` (auto, memory or stream) and `training.workers`."""
    targets = _targets(dataset, [split])
    if not len(targets):
        raise DataError(f"dataset {dataset.name} has no {split} rows; enlarge split.{split} or bring more rows")
    index = None if limit is None or limit >= len(targets) else np.sort(np.random.default_rng(seed).permutation(len(targets))[:limit])
    return _rows(dataset, [split], targets, index, data, workers)


def load_fold(
    dataset: DatasetVersion, fold: int, folds: int, *, limit: int | None = None, seed: int = 0, data: str = "auto",
    workers: int | str = "auto",
) -> tuple[Rows, Rows]:  # fmt: skip
    """Training and validation rows of one of `folds` cuts of the training and validation splits together: each row
    validates in one of them. Classes are shared out evenly; the cut is the same whoever asks."""
    splits = ["train", "validation"]
    targets = _targets(dataset, splits)
    fold_N = folds_of(targets, folds, dataset.task == "classification").numpy()
    rest, held_out = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
    if limit is not None and limit < len(rest):
        rest = rest[np.sort(np.random.default_rng(seed).permutation(len(rest))[:limit])]
    train, validation = (_rows(dataset, splits, targets, index, data, workers) for index in (rest, held_out))
    return train, validation


def _rows(
    dataset: DatasetVersion, splits: Sequence[str], targets: Tensor, index: NDArray[np.int64] | None, data: str, workers: int | str
) -> Rows:
    fields = {field.name: stored(dataset, splits, field.name) for field in dataset.inputs}
    kept = targets if index is None else targets[torch.from_numpy(index)]
    rows = StreamedRows(stored=fields, targets=kept, index=index, workers=num_workers(workers))
    return rows if is_streamed(rows.num_bytes, data) else rows.loaded()


def folds_of(targets: Tensor, folds: int, by_class: bool) -> Tensor:
    """The fold of each row [N], 0..folds-1: dealt out in a shuffled order, class after class where there are classes."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed_of("folds", folds)))
    if by_class:
        order = order[torch.argsort(targets[order], stable=True)]
    fold_N = torch.empty(len(targets), dtype=torch.int64)
    fold_N[order] = torch.arange(len(targets)) % folds
    return fold_N


def _targets(dataset: DatasetVersion, splits: Sequence[str]) -> Tensor:
    target = np.concatenate([load_target(dataset, split) for split in splits])
    if dataset.task == "classification":
        return torch.from_numpy(target.astype(np.int64, copy=False))
    standard = (target.astype(np.float64) - dataset.target_mean) / max(dataset.target_std, 1e-12)
    return torch.from_numpy(standard.astype(np.float32))


class BatchLoader:
    """Iterates over shuffled batches of one epoch; a rest smaller than a batch waits for another epoch's order.

    An iteration begins at the batch `start` (0, another number, or what a function says when the first batch is asked
    for, as `epoch` does): those before it are neither read nor decoded, those after it are what they are without it.
    """

    def __init__(
        self, rows: Rows, batch_size: int, seed: int, epoch: Callable[[], int], start: int | Callable[[], int] = 0
    ) -> None:
        self.rows, self.seed, self.epoch, self.start = rows, seed, epoch, start
        self.batch_size = max(1, min(batch_size, len(rows)))

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch()))
        order = torch.randperm(len(self.rows), generator=generator)
        first = self.start if isinstance(self.start, int) else self.start()
        cuts = (order[step * self.batch_size : (step + 1) * self.batch_size] for step in range(first, len(self)))
        yield from self.rows.batches(cuts, self.batch_size)


def seed_of(*parts: int | str) -> int:
    """A seed in 0..2^62 from numbers and words, the same everywhere."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 2
