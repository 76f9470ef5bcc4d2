"""Workers that preload what the stand-in needs, and nothing of torch: a search of milliseconds is tested in milliseconds."""

from __future__ import annotations

import multiprocessing.forkserver as forkserver
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import processes
from components.artifacts import DatasetVersion
from tests.components.search import standin


@pytest.fixture(scope="module")
def light_workers() -> Iterator[None]:
    """A forkserver of this module's own, unless one runs already: that one is used and left alone."""
    if forkserver._forkserver._forkserver_pid is not None:
        yield
        return
    kept = processes.PRELOAD
    processes.PRELOAD = ["components.lifeline", "numpy", "optuna", "components.search.evaluation", standin.HERE]
    yield
    forkserver._forkserver._stop()
    processes.PRELOAD = kept


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetVersion:
    """A table with one number column and a regression target."""
    return standin.curve(tmp_path / "data")
