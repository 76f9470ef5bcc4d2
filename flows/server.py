"""Prefect's server: one for each home, on loopback, started by whoever comes first and gone when nobody needs it.

A client holds a shared lock (`prefect.clients`) as long as it lives; the server watches that lock and leaves when it
can take it alone, so a killed run leaves nothing behind and a second run is not cut off when the first one ends.
A set `PREFECT_API_URL` is used as it is and nothing is started.

    python -m flows.server PORT        what `ensure` starts
    python -m flows.server template    migrates the template database that new homes copy (13 s becomes 6 s)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from components.errors import TryAgainError
from components.fingerprint import installed
from components.home import home
from components.store import locked, write_atomically

QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # the journal tells the user; Prefect's traceback would come on top
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_API_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "DVC_NO_ANALYTICS": "1",
}
_clients: IO[str] | None = None


def quiet() -> None:
    """Turns telemetry and chatter of every dependency off, unless the user has set the variable."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def start() -> None:
    """Starts this home's server if none runs, without waiting for it, and points Prefect's client at it."""
    global _clients
    quiet()
    os.environ.setdefault("PREFECT_HOME", str(home() / "prefect"))
    if os.environ.get("PREFECT_API_URL"):
        return
    _clients = (home() / "prefect.clients").open("a+")
    fcntl.flock(_clients.fileno(), fcntl.LOCK_SH)
    with locked(home() / "prefect.lock"):
        state = _running()
        if state is None:
            state = _spawn()
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{state['port']}/api"


def wait_until_healthy(timeout: float = 120.0) -> None:
    """Blocks until the server answers. Raises `TryAgainError` when it does not within `timeout` seconds."""
    url = os.environ["PREFECT_API_URL"]
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if _is_healthy(url):
            return
        if _clients and _running() is None:
            break
        time.sleep(0.1)
    raise TryAgainError(f"Prefect's server at {url} does not answer; see {home() / 'prefect.log'} and try again")


def stop_needing() -> None:
    """Gives this process's claim on the server back."""
    global _clients
    if _clients:
        _clients.close()
        _clients = None


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _running() -> dict[str, int] | None:
    try:
        state = json.loads((home() / "prefect.json").read_text())
        with locked(home() / "prefect.alive", timeout=0.0):
            return None  # nobody holds it: the server that wrote the file is gone
    except TryAgainError:
        return dict(state)
    except (OSError, ValueError):
        return None


def _spawn() -> dict[str, int]:
    with locked(home() / "prefect.alive", timeout=5.0):
        port = _free_port()  # one that is just leaving has ended
    database = home() / "prefect.db"
    if not database.exists() and template().exists():
        shutil.copy(template(), database.with_suffix(".tmp"))
        database.with_suffix(".tmp").rename(database)
    with (home() / "prefect.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(port)], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            env={**os.environ, **_server_environment(database, port)}, start_new_session=True,
            cwd=Path(__file__).resolve().parent.parent,
        )  # fmt: skip
    state = {"pid": process.pid, "port": port}
    write_atomically(home() / "prefect.json", json.dumps(state))
    until = time.monotonic() + 10
    while _running() is None and time.monotonic() < until:
        time.sleep(0.02)
    return state


def _server_environment(database: Path, port: int) -> dict[str, str]:
    return {
        "ATHANOR_HOME": str(home()),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_STATIC_DIRECTORY": str(home() / "prefect" / "ui"),
        "OMP_NUM_THREADS": "1",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def template() -> Path:
    """The migrated, empty database kept beside the installed Prefect."""
    return Path(sys.prefix) / "share" / "athanor" / f"prefect-{installed().get('prefect', '0')}.db"


def make_template() -> Path:
    """Migrates a new database once and checkpoints it into one file, for every home to copy."""
    target = template()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    building = target.with_suffix(f".{os.getpid()}.tmp")
    quiet()
    os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{building}"
    import asyncio
    import sqlite3

    from prefect.server.database import provide_database_interface

    asyncio.run(provide_database_interface().create_db())
    with contextlib.closing(sqlite3.connect(building)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    building.rename(target)
    return target


def serve(port: int) -> None:
    """Runs the server on loopback until no client holds its lock."""
    with locked(home() / "prefect.alive", timeout=5.0):
        threading.Thread(target=_leave_when_unneeded, daemon=True).start()
        import uvicorn

        uvicorn.run(
            "prefect.server.api.server:create_app", factory=True, host="127.0.0.1", port=port,
            log_level="error", timeout_graceful_shutdown=1,
        )  # fmt: skip


def _leave_when_unneeded() -> None:
    """Ends the process, and forgets its address first, while nobody can be looking for it: a process takes a second to
    end, and a run that begins in that second needs a server of its own."""
    idle = 0
    with (home() / "prefect.clients").open("a+") as clients:
        while True:
            time.sleep(0.5)
            idle = 0 if _is_needed(clients) else idle + 1
            if idle < 2:
                continue
            if not home().is_dir():
                os._exit(0)
            with locked(home() / "prefect.lock"):
                if not _is_needed(clients):
                    (home() / "prefect.json").unlink(missing_ok=True)
                    os._exit(0)


def _is_needed(clients: IO[str]) -> bool:
    try:
        fcntl.flock(clients.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(clients.fileno(), fcntl.LOCK_UN)
    return False


if __name__ == "__main__":
    if sys.argv[1] == "template":
        print(make_template())
    else:
        serve(int(sys.argv[1]))
