"""The way into MLflow: ready at once, bounded waits, one-line errors."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.artifacts import ModelVersion
from components.errors import TryAgainError, UsageError
from components.registry import connection, versions
from components.registry.connection import await_database, connect, prepare_database, registry_lock
from tests.conftest import ROOT


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process's exclusive lock on a SQLite file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_template_saves_the_migration(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first state folder makes the template, the next ones copy it; both databases work."""
    monkeypatch.setattr(connection, "template_file", lambda: tmp_path / "share" / "template.db")
    prepare_database()
    assert (tmp_path / "share" / "template.db").stat().st_size == (home / "mlflow.db").stat().st_size
    monkeypatch.setenv("ATHANOR_HOME", str(tmp_path / "second"))
    started = time.perf_counter()
    prepare_database()
    assert time.perf_counter() - started < 20  # a guard against hanging, not a figure
    assert connect().create_experiment("fresh") == "1"
    assert str(tmp_path / "second") in connect().get_experiment("0").artifact_location


def test_telemetry_is_off_and_nothing_leaks_into_the_working_folder(home: Path, tmp_path: Path) -> None:
    """A fresh process that connects sends nothing, unpickles nothing and writes only below the state folder."""
    code = (
        "import os; [os.environ.pop(n, None) for n in ('DO_NOT_TRACK', 'MLFLOW_DISABLE_TELEMETRY')];"
        "from components.registry.connection import connect; connect().search_experiments();"
        "from mlflow.telemetry.utils import is_telemetry_disabled; print(is_telemetry_disabled(),"
        " os.environ['MLFLOW_ALLOW_PICKLE_DESERIALIZATION'], os.environ.get('MLFLOW_TRACKING_URI'))"
    )
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=work, env=_environment(home), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "false", "None"]
    assert done.stderr == ""
    assert list(work.iterdir()) == []


def _environment(home: Path) -> dict[str, str]:
    import os

    return {**os.environ, "ATHANOR_HOME": str(home), "PYTHONPATH": str(ROOT)}


def test_locked_database_is_told_after_a_bounded_wait(home: Path) -> None:
    """Exit code 75 and one line, soon."""
    prepare_database()
    started = time.perf_counter()
    with held(home / "mlflow.db"), pytest.raises(TryAgainError, match=r"mlflow\.db is locked by another process") as raised:
        await_database(timeout=0.3)
    assert time.perf_counter() - started < 20  # a guard against hanging, not a figure
    assert raised.value.exit_code == 75


def test_register_meets_a_locked_database(home: Path, file_version: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb says so as well, and registers when the lock is gone."""
    prepare_database()
    monkeypatch.setattr(connection.await_database, "__defaults__", (0.2,))
    with held(home / "mlflow.db"), pytest.raises(TryAgainError, match="is locked"):
        file_version("good")
    assert file_version("good").version == 1


def test_one_registry_operation_at_a_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits says so once, and gives up with one line."""
    monkeypatch.setattr(connection, "LOCK_SECONDS", 0.2)
    told: list[str] = []
    with (
        registry_lock("digits"),
        pytest.raises(TryAgainError, match="registry-digits"),
        registry_lock("digits", lambda: told.append("waits")),
    ):
        pass
    assert told == ["waits"]


def test_something_else_under_the_name(home: Path) -> None:
    """A file that is no database is named, with the remedy."""
    home.mkdir()
    (home / "mlflow.db").write_text("not a database, not at all" * 100)
    with pytest.raises(UsageError, match="is not a SQLite database"):
        connect()


def test_tracking_server_that_does_not_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote MLflow that is away is exit code 75, with its address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TryAgainError, match=r"http://127\.0\.0\.1:9 does not answer"):
        versions.standing("digits")


def test_warming_up_never_raises(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A background thread has nobody to tell; the next one to connect is told."""
    home.mkdir()
    (home / "mlflow.db").write_text("x" * 5000)
    connection.warm()
    with pytest.raises(UsageError):
        connect()
