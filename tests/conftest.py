"""Fixtures shared by all tests: a state folder of one's own, and the real data sets where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.update(
    OMP_NUM_THREADS="1", DO_NOT_TRACK="true", PREFECT_SERVER_ANALYTICS_ENABLED="false",
    MLFLOW_DISABLE_TELEMETRY="true", DVC_NO_ANALYTICS="1", MPLBACKEND="agg",
)  # fmt: skip

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh ATHANOR_HOME."""
    path = tmp_path / "home"
    monkeypatch.setenv("ATHANOR_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets (`ATHANOR_DATA`, by default `../shared/data`); skips where it is absent."""
    path = Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"real data sets are not at hand: no folder {path}")
    return path
