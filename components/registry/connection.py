"""The one way into MLflow: its address, a database that is ready at once, and errors in one line.

MLflow lives in SQLite below the state folder (`mlflow.db`, artifacts in `mlartifacts/`), or wherever
`MLFLOW_TRACKING_URI` says. Importing it takes seconds and migrating an empty database takes more, so `warm` does both
in a background thread while other work runs, from a template that was migrated once per installed version. SQLite's
rollback journal is kept: several processes write this file, and the WAL of the SQLite at hand can corrupt it then.

    python -m components.registry.connection      makes the template (part of setting the environment up)
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from components.errors import TryAgainError, UsageError
from components.home import database, home
from components.store import full_disk_says_so, locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_SECONDS = 60.0
"""How long a registry operation waits for another one on the same model."""
DATABASE_SECONDS = 10.0
"""How long a locked database is waited for before the user is told."""
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # seconds until the user is told; its own 7 take minutes
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is ours: with --json it is one document
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Opens MLflow's page on training runs instead of its chat traces."""

_connecting = threading.RLock()
_clients: dict[tuple[str, str], MlflowClient] = {}
_runs: dict[tuple[str, str], str] = {}
_log = logging.getLogger(__name__)


def tracking_uri() -> str:
    """Where MLflow keeps runs and versions: `MLFLOW_TRACKING_URI`, by default a SQLite file in the state folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or database("mlflow")


def database_file() -> Path | None:
    """The SQLite file of MLflow, or None when it lives on a server."""
    uri = tracking_uri()
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def artifact_root() -> str | None:
    """Where artifacts go: below the state folder, or None when a tracking server decides."""
    if tracking_uri().startswith(("http://", "https://")):
        return None
    return (home() / "mlartifacts").as_uri()


def warm() -> None:
    """Imports MLflow and makes its database ready; meant for a background thread at the start of a run.

    A failure here is no one's result: it is logged, and whoever needs MLflow next meets it and tells the user."""
    try:
        client = connect()
        with told_in_one_line():
            client.search_experiments(max_results=1)
            client.search_registered_models(max_results=1)
        _warm_saving()
    except Exception as error:
        _log.debug("MLflow could not be made ready ahead of time: %s", error)


def connect() -> MlflowClient:
    """A client of the tracking store and registry. Raises `TryAgainError` for a database that stays locked."""
    uri = tracking_uri()
    registry = os.environ.get("MLFLOW_REGISTRY_URI") or uri
    with _connecting:
        if (uri, registry) not in _clients:
            _settle_environment()
            prepare_database()
            await_database()
            from mlflow import MlflowClient

            _quieten()
            with told_in_one_line():
                _clients[uri, registry] = MlflowClient(tracking_uri=uri, registry_uri=registry)
        return _clients[uri, registry]


def _warm_saving() -> None:
    """What saving a first model does once per process: its imports, and a look at each installed package (0.5 s)."""
    import mlflow.onnx
    import mlflow.pyfunc
    from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

    mlflow.onnx.get_default_pip_requirements()
    warn_dependency_requirement_mismatches(requirements())


def _settle_environment() -> None:
    """MLflow's settings where the user made none. Must precede its first import."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _quieten() -> None:
    """MLflow logs a traceback for each lock and a line for each migration; users are told by our own errors."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.ERROR)


@contextlib.contextmanager
def registry_lock(model: str, on_wait: Any = None) -> Iterator[None]:
    """One registry operation on a model at a time, over all processes of this state folder.

    Raises `TryAgainError` when the model stays busy or the database stays locked."""
    with locked(home() / "locks" / f"registry-{file_stem(model)}.lock", on_wait, timeout=LOCK_SECONDS):
        await_database()
        yield


def file_stem(model: str) -> str:
    """A model's name as part of a file name, one to one."""
    return quote(model, safe=" ")


def check_model_name(model: str) -> str:
    """The name itself, if MLflow takes it and can search for it. Raises `UsageError` otherwise."""
    if not model.strip() or model in (".", "..") or any(c in model for c in "/:'\"`\\"):
        raise UsageError(f"model must be a name without '/', ':', quotes or backslashes, got {model!r}; set model=NAME")
    return model


@contextlib.contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turns MLflow's errors for a locked database, a full disk or a server that is away into `TryAgainError`."""
    try:
        with full_disk_says_so(home()):
            yield
    except Exception as error:
        reason = _passing_trouble(error)
        if reason is None:
            raise
        raise TryAgainError(reason) from error


def _passing_trouble(error: Exception) -> str | None:
    text = str(error)
    if "database is locked" in text:
        return _locked_message()
    if "database or disk is full" in text or "disk I/O error" in text:
        return f"no space left to write MLflow's database {database_file()}; free some and run the same command again"
    if type(error).__module__.startswith("mlflow") and ("API request to" in text or "Max retries" in text):
        return f"MLflow at {tracking_uri()} does not answer; start it or unset MLFLOW_TRACKING_URI, then run the same command again"
    if type(error).__module__.startswith("mlflow") and "out-of-date database schema" in text:
        raise UsageError(f"MLflow's database is of an older version; back it up, then run: mlflow db upgrade {tracking_uri()}") from error
    return None


def _locked_message() -> str:
    return f"MLflow's database {database_file()} is locked by another process; run the same command again when that one has finished"


def await_database(timeout: float = DATABASE_SECONDS) -> None:
    """Returns once the SQLite file can be written. Raises `TryAgainError` after `timeout` seconds, `UsageError` if it is no database.

    MLflow by itself would retry for minutes, with a traceback each time."""
    path = database_file()
    if path is None or not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=timeout, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise TryAgainError(_locked_message()) from error
        raise UsageError(f"MLflow's database {path} cannot be written ({error}); check its permissions or set ATHANOR_HOME") from error
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} is not a SQLite database ({error}); move it away and run the same command again") from error


# ---- a database that is ready at once -------------------------------------------------------------------------


def prepare_database() -> None:
    """Puts a migrated database in place if there is none: whole or not at all, by one process."""
    path = database_file()
    if path is None or path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with full_disk_says_so(path.parent), locked(path.with_suffix(".lock"), timeout=LOCK_SECONDS):
        if path.exists():
            return
        fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            _fill(fresh)
            _point_default_experiment_here(fresh)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


def _fill(path: Path) -> None:
    template = template_file()
    if template is not None and template.exists():
        shutil.copyfile(template, path)
        return
    migrate(path)
    with contextlib.suppress(PermissionError):  # without a template the next state folder takes seconds longer, no more
        keep_template(path)


def migrate(path: Path) -> None:
    """An empty MLflow database at `path` (2 to 5 s)."""
    _settle_environment()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    _quieten()
    SqlAlchemyStore(f"sqlite:///{path}", (path.parent / "mlartifacts").as_uri()).engine.dispose()


def template_file() -> Path | None:
    """Where this environment keeps a migrated database of the installed MLflow; None outside a virtual environment."""
    if sys.prefix == sys.base_prefix:
        return None
    return Path(sys.prefix) / "share" / "athanor" / f"mlflow-{importlib.metadata.version('mlflow')}.db"


def keep_template(path: Path) -> None:
    """Copies a migrated, unused database to where the next state folder finds it."""
    template = template_file()
    if template is None:
        return
    template.parent.mkdir(parents=True, exist_ok=True)
    fresh = template.with_name(f".{template.name}.{os.getpid()}.tmp")
    shutil.copyfile(path, fresh)
    fresh.replace(template)


def _point_default_experiment_here(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        location = (home() / "mlartifacts" / "0").as_uri()
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (location,))


# ---- experiments and runs -------------------------------------------------------------------------------------


def experiment(client: MlflowClient, model: str) -> str:
    """The id of the experiment that holds a model's runs, made if there is none."""
    with _connecting, told_in_one_line():
        found = client.get_experiment_by_name(model)
        if found is not None and found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        if found is not None:
            return str(found.experiment_id)
        root = artifact_root()
        with locked(home() / "locks" / "mlflow-experiments.lock", timeout=LOCK_SECONDS):
            found = client.get_experiment_by_name(model)
            if found is not None:
                return str(found.experiment_id)
            location = f"{root}/{file_stem(model)}" if root else None
            return str(client.create_experiment(model, artifact_location=location, tags=EXPERIMENT_TAGS))


def parent_run(client: MlflowClient, model: str, run: str, *, start_ms: int | None = None) -> str:
    """The id of the one MLflow run that stands for an Athanor run, made if there is none."""
    with _connecting, told_in_one_line():
        known = _runs.get((tracking_uri(), run))
        if known is None:
            experiment_id = experiment(client, model)
            with locked(home() / "locks" / "mlflow-runs.lock", timeout=LOCK_SECONDS):
                known = _find_run(client, experiment_id, run) or _make_run(client, experiment_id, run, start_ms)
            _runs[tracking_uri(), run] = known
        return known


def _find_run(client: MlflowClient, experiment_id: str, run: str) -> str | None:
    wanted = f"tags.`athanor.run` = '{run}' and tags.`athanor.kind` = 'run'"
    found = client.search_runs([experiment_id], wanted, max_results=1)
    return str(found[0].info.run_id) if found else None


def _make_run(client: MlflowClient, experiment_id: str, run: str, start_ms: int | None) -> str:
    tags = {"athanor.run": run, "athanor.kind": "run", "mlflow.source.name": "athanor", "mlflow.source.type": "PROJECT"}
    return str(client.create_run(experiment_id, start_time=start_ms, run_name=run, tags=tags).info.run_id)


@functools.cache
def requirements() -> list[str]:
    """What serving a registered model needs, pinned to what it was proven with."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in ("onnxruntime", "numpy")]


def main() -> None:
    """Makes the template of this environment if it is not there."""
    template = template_file()
    if template is None or template.exists():
        return
    template.parent.mkdir(parents=True, exist_ok=True)
    fresh = template.with_name(f".{template.name}.{os.getpid()}.migrating")
    try:
        migrate(fresh)
        keep_template(fresh)
    finally:
        fresh.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
