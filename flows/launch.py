"""Before a flow begins: its Prefect server, its forkserver and MLflow, all started at once, none waited for too early.

Prefect's server (5-13 s) and the forkserver's torch (8 s) start as processes first; Prefect's client and MLflow are
imported meanwhile. Nothing of this happens in a run with nothing to do.
"""

from __future__ import annotations

import os
import shutil
import threading

from components import processes
from components.errors import TryAgainError
from components.home import home
from components.store import Store
from flows import server
from flows.run import begin

LEAST_FREE_MB = 100  # a new state folder takes 25 MB, most of it Prefect's page, and SQLite needs room to work
_lock = threading.Lock()


def kindle() -> None:
    """Starts the processes that a run needs, without waiting: as early as possible, before Prefect is imported."""
    begin()
    os.environ["ATHANOR_HOME"] = str(home())
    Store(home()).prepare()
    _require_space()
    server.start()
    if threading.current_thread() is threading.main_thread():
        processes.start()


def _require_space() -> None:
    free = shutil.disk_usage(home()).free // 10**6
    if free < LEAST_FREE_MB:
        raise TryAgainError(f"no space left: {home()} has {free} MB and a run needs {LEAST_FREE_MB}; free some or move ATHANOR_HOME")


def prepare() -> None:
    """Everything a flow needs, ready: processes started, MLflow warming up in the background, Prefect's server healthy."""
    with _lock:
        kindle()
        threading.Thread(target=_warm_registry, name="warm-mlflow", daemon=True).start()
        server.wait_until_healthy()


def adopt_flows() -> None:
    """Gives flows of one's own this home's server and workers, where Prefect would start a temporary server for them.

    Prefect asks `SubprocessASGIServer` for a server whenever it has no address; this one starts ours, when first asked."""
    if os.environ.get("PREFECT_API_URL"):
        return
    from prefect.server.api import server as prefect_server

    prefect_server.SubprocessASGIServer = HomeServer  # type: ignore[assignment,misc]


class HomeServer:
    """This home's server in the place of Prefect's temporary one."""

    server_process = True
    ready = False

    def start(self, timeout: int | None = None) -> None:
        if not HomeServer.ready:
            prepare()
            HomeServer.ready = True

    def stop(self) -> None:
        server.stop_needing()

    @property
    def api_url(self) -> str:
        return os.environ["PREFECT_API_URL"]


def _warm_registry() -> None:
    from components import tracking

    tracking.warm()
