"""Rows read from disk train as rows in memory do, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.artifacts import DatasetVersion
from components.augmentation.policy.affine import Affine
from components.data.dataset.image_folder import ImageFolder
from components.errors import UnknownNameError, UsageError
from components.training import rows as storage
from components.training.batches import BatchLoader, load_fold, load_rows
from components.training.rows import Batch, StreamedRows, is_streamed, num_workers
from tests.components.models import tiny
from tests.components.training.test_fit import equal, train
from tests.datasets import read_version

pytestmark = pytest.mark.usefixtures("home")


def pictures(folder: Path) -> DatasetVersion:
    """80 images kept as files."""
    (folder / "source").mkdir(parents=True)
    ImageFolder.example(folder / "source")
    return read_version(folder / "out", "image_folder", path=str(folder / "source"), keep="files")


KINDS = {"table": tiny.table, "arrays": tiny.stripes, "files": pictures}


@pytest.fixture(params=KINDS)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> DatasetVersion:
    make: Callable[[Path], DatasetVersion] = KINDS[request.param]
    return make(tmp_path / "data")


def alike(one: Batch, other: Batch) -> bool:
    (fields, targets), (others, other_targets) = one, other
    return torch.equal(targets, other_targets) and all(
        torch.equal(torch.nan_to_num(values), torch.nan_to_num(others[name])) and values.dtype == others[name].dtype
        for name, values in fields.items()
    )


@pytest.mark.parametrize("workers", ["auto", 0, 2])
def test_batches_are_the_same(dataset: DatasetVersion, workers: int | str) -> None:
    """Every batch of two epochs, of all rows and of drawn ones, whoever decodes."""
    for limit, epochs in ((None, (0, 1)), (50, (1,))):
        held = load_rows(dataset, "train", limit=limit, seed=3, data="memory", workers=0)
        streamed = load_rows(dataset, "train", limit=limit, seed=3, data="stream", workers=workers)
        assert not isinstance(held, StreamedRows)
        assert isinstance(streamed, StreamedRows)
        assert len(streamed) == len(held)
        for epoch in epochs:
            batches = [list(BatchLoader(rows, 16, 7, lambda: epoch)) for rows in (held, streamed)]  # noqa: B023
            assert len(batches[0]) == len(held) // 16
            assert all(alike(one, other) for one, other in zip(*batches, strict=True))


def test_folds_and_parts_are_the_same(dataset: DatasetVersion) -> None:
    """Rows of both splits together, parts of parts, slices, and a pass in order."""
    held, streamed = (load_fold(dataset, 1, 5, data=data) for data in ("memory", "stream"))
    for one, other in zip(held, streamed, strict=True):
        index = torch.randperm(len(one), generator=torch.Generator().manual_seed(0))[:9]
        assert alike((one.fields, one.targets), (other.fields, other.targets))
        assert alike(one.part(index).at(torch.tensor([4, 2])), other.part(index).at(torch.tensor([4, 2])))
        assert alike(one.at(slice(3, 8)), other.at(slice(3, 8)))
        passes = [list(rows.in_order(7)) for rows in (one, other)]
        assert all(alike(a, b) for a, b in zip(*passes, strict=True))
        assert sum(len(targets) for _, targets in passes[0]) == len(one)


def test_training_is_the_same(dataset: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights after two epochs, where `auto` finds the rows too large for memory."""
    options = {"epochs": 2} | ({"policy": Affine()} if dataset.modality == "image" else {})
    held = train(dataset, **options)
    monkeypatch.setattr(storage, "MEMORY_SHARE", 0.0)
    assert isinstance(load_rows(dataset, "train"), StreamedRows)
    assert equal(held, train(dataset, **options))


def test_a_pass_in_order_takes_fewer_large_rows_at_a_time(tmp_path: Path) -> None:
    """What a validation pass holds is bounded in bytes, in memory and streamed alike."""
    dataset = tiny.stripes(tmp_path, side=256, channels=3, rows={"train": 30, "validation": 4, "test": 4})
    for data in ("memory", "stream"):
        sizes = [len(targets) for _, targets in load_rows(dataset, "train", data=data).in_order(512)]
        assert sizes == [10, 10, 10]


@pytest.mark.parametrize("data", ["memory", "stream"])
def test_an_epoch_begins_at_any_batch(dataset: DatasetVersion, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches from there on are those of the whole epoch, the length stays, and nothing before is read."""
    rows = load_rows(dataset, "train", data=data, workers=0)
    whole = list(BatchLoader(rows, 10, 0, lambda: 2))
    read: list[int] = []
    if isinstance(rows, StreamedRows):
        numbers = rows._numbers
        monkeypatch.setattr(rows, "_numbers", lambda index: read.extend(index.tolist()) or numbers(index))
    step = [3]
    for loader in (BatchLoader(rows, 10, 0, lambda: 2, start=3), BatchLoader(rows, 10, 0, lambda: 2, start=lambda: step[0])):
        read.clear()
        rest = list(loader)
        assert len(loader) == len(whole)
        assert all(alike(one, other) for one, other in zip(whole[3:], rest, strict=True))
        assert not read or len(set(read)) == 10 * len(rest)
    step[0] = len(whole)
    assert list(loader) == []


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` compares with the memory that is free; wrong words are named."""
    monkeypatch.setattr(storage, "available_memory", lambda: 8_000)
    monkeypatch.setattr(storage, "available_cores", lambda: 2)
    assert not is_streamed(1_000, "auto")
    assert is_streamed(1_001, "auto")
    assert not is_streamed(1_001, "memory")
    assert is_streamed(1, "stream")
    with pytest.raises(UnknownNameError, match=r"unknown training\.data 'steam'; did you mean 'stream'"):
        is_streamed(1, "steam")
    assert (num_workers("auto"), num_workers(0)) == (None, 0)
    for wrong in (-1, True, "two"):
        with pytest.raises(UsageError, match=r"training\.workers is auto or a number of processes"):
            num_workers(wrong)
