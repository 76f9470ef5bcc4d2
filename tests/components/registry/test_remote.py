"""The same registry on an MLflow server: nothing but `MLFLOW_TRACKING_URI` differs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.artifacts import Decision
from components.journal import Journal
from components.registry import champions, versions
from components.registry.connection import connect
from components.registry.parents import fetch
from components.registry.promote import rollback
from components.tracking import Tracker
from tests.components.models import tiny
from tests.components.registry.conftest import Reports
from tests.components.registry.test_parents import file_one
from tests.components.training.parents import parent_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """An MLflow server on loopback that keeps its artifacts to itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "server"
    folder.mkdir()
    words = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "files")]
    command = [sys.executable, "-m", "mlflow", "server", *words, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        yield process
    finally:
        _stop(process)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError("the MLflow server did not start")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, 15)
        process.wait(30)


def test_everything_over_http(
    server: subprocess.Popen[bytes], decide: Callable[..., Decision], home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Register, promote, roll back, fetch again, track; then serve on while the server is gone. Nothing is printed."""
    assert decide("poor").promoted
    assert decide("good").promoted
    assert decide("good").version == 2
    assert rollback("digits").champion == 1
    shutil.rmtree(home / "models")
    assert versions.load("digits", 2).file.path.is_relative_to(home / "models")
    assert versions.registered_models() == ["digits"]
    _track(home)
    assert not (home / "mlflow.db").exists()
    assert not (home / "mlartifacts").exists()
    assert champions.champion("digits").version == 1
    _stop(server)
    assert champions.champion("digits").version == 1
    assert capfd.readouterr().out == ""


def test_a_parent_is_fetched_once(server: subprocess.Popen[bytes], reports: Reports, home: Path, tmp_path: Path) -> None:
    """Its weights come from the server, are checked and kept."""
    folder = tmp_path / "parent"
    parent = parent_of(tiny.stripes(folder / "data", rows={"train": 64, "validation": 32, "test": 32}), folder / "out", epochs=1)
    file_one(reports["good"], parent.model, tmp_path / "out")
    found = fetch("digits@challenger", "mlflow:models:/digits@challenger")
    assert found.model.identity == parent.model.identity
    assert found.model.weights.path.is_relative_to(home / "parents")


def _track(home: Path) -> None:
    journal = Journal(home / "runs" / "r1" / "journal.jsonl")
    journal.write("run.started", run="r1", model="digits")
    tracker = Tracker("r1", model="digits", params={"seed": 0})
    journal.listeners += (tracker,)
    journal.write("run.finished", why="")
    (journal.path.parent / "report.html").write_text("<h1>report</h1>")
    assert tracker.close(60)
    client = connect()
    experiment = client.get_experiment_by_name("digits")
    names = [run.info.run_name for run in client.search_runs([experiment.experiment_id])]
    assert "r1" in names
