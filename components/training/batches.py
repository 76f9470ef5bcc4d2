"""Training rows in memory as tensors, and batches cut from them by index.

A dataset that fits in memory needs no loader processes: cutting a batch is one indexing per field. The order of an
epoch follows from (seed, epoch) alone, so a resumed run sees the batches that an uninterrupted one would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.artifacts import DatasetVersion
from components.data.arrays import load_inputs, load_target
from components.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Fields and targets of some rows; regression targets are standardised (mean 0, std 1 over training)."""

    fields: dict[str, Tensor]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def at(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The rows of an index."""
        return {name: values[index] for name, values in self.fields.items()}, self.targets[index]

    def part(self, index: Tensor) -> Rows:
        """The rows of an index, as rows of their own."""
        fields, targets = self.at(index)
        return Rows(fields=fields, targets=targets)


def load_rows(dataset: DatasetVersion, split: str, *, limit: int | None = None, seed: int = 0) -> Rows:
    """A split's rows in memory; with `limit`, that many drawn by `seed` and kept in order. Raises `DataError` for an empty split."""
    arrays, target = load_inputs(dataset, split), load_target(dataset, split)
    if not len(target):
        raise DataError(f"dataset {dataset.name} has no {split} rows; enlarge split.{split} or bring more rows")
    index: slice | np.ndarray = slice(None)
    if limit is not None and limit < len(target):
        index = np.sort(np.random.default_rng(seed).permutation(len(target))[:limit])
    fields = {field.name: torch.from_numpy(np.array(arrays[field.name][index])) for field in dataset.inputs}
    return Rows(fields=fields, targets=_targets(dataset, np.array(target[index])))


def load_fold(dataset: DatasetVersion, fold: int, folds: int, *, limit: int | None = None, seed: int = 0) -> tuple[Rows, Rows]:
    """Training and validation rows of one of `folds` cuts of the training and validation splits together: each row
    validates in one of them. Classes are shared out evenly; the cut is the same whoever asks."""
    pooled = _together(load_rows(dataset, "train"), load_rows(dataset, "validation"))
    fold_N = folds_of(pooled.targets, folds, dataset.task == "classification")
    rest = torch.nonzero(fold_N != fold).squeeze(1)
    if limit is not None and limit < len(rest):
        drawn = np.random.default_rng(seed).permutation(len(rest))[:limit]
        rest = rest[torch.from_numpy(np.sort(drawn))]
    held_out = torch.nonzero(fold_N == fold).squeeze(1)
    return pooled.part(rest), pooled.part(held_out)


def folds_of(targets: Tensor, folds: int, by_class: bool) -> Tensor:
    """The fold of each row [N], 0..folds-1: dealt out in a shuffled order, class after class where there are classes."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed_of("folds", folds)))
    if by_class:
        order = order[torch.argsort(targets[order], stable=True)]
    fold_N = torch.empty(len(targets), dtype=torch.int64)
    fold_N[order] = torch.arange(len(targets)) % folds
    return fold_N


def _together(one: Rows, other: Rows) -> Rows:
    fields = {name: torch.cat([values, other.fields[name]]) for name, values in one.fields.items()}
    return Rows(fields=fields, targets=torch.cat([one.targets, other.targets]))


def _targets(dataset: DatasetVersion, target: np.ndarray) -> Tensor:
    if dataset.task == "classification":
        return torch.from_numpy(target.astype(np.int64))
    standard = (target.astype(np.float64) - dataset.target_mean) / max(dataset.target_std, 1e-12)
    return torch.from_numpy(standard.astype(np.float32))


class BatchLoader:
    """Iterates over shuffled batches of one epoch; a rest smaller than a batch waits for another epoch's order."""

    def __init__(self, rows: Rows, batch_size: int, seed: int, epoch: Callable[[], int]) -> None:
        self.rows, self.seed, self.epoch = rows, seed, epoch
        self.batch_size = max(1, min(batch_size, len(rows)))

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch()))
        order = torch.randperm(len(self.rows), generator=generator)
        for step in range(len(self)):
            yield self.rows.at(order[step * self.batch_size : (step + 1) * self.batch_size])


def seed_of(*parts: int | str) -> int:
    """A seed in 0..2^62 from numbers and words, the same everywhere."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 2
