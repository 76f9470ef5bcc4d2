"""Before a flow begins: its Prefect server, its forkserver and MLflow, all started at once, none waited for too early.

Prefect's server (5-13 s) and the forkserver's torch (8 s) start as processes first; Prefect's client and MLflow are
imported meanwhile. Nothing of this happens in a run with nothing to do.
"""

from __future__ import annotations

import os
import threading

from components import processes
from components.home import home
from components.store import Store
from flows import server
from flows.run import begin

_lock = threading.Lock()


def kindle() -> None:
    """Starts the processes that a run needs, without waiting: as early as possible, before Prefect is imported."""
    begin()
    os.environ["ATHANOR_HOME"] = str(home())
    Store(home()).prepare()
    server.start()
    if threading.current_thread() is threading.main_thread():
        processes.start()


def prepare() -> None:
    """Everything a flow needs, ready: processes started, MLflow warming up in the background, Prefect's server healthy."""
    with _lock:
        kindle()
        threading.Thread(target=_warm_registry, name="warm-mlflow", daemon=True).start()
        server.wait_until_healthy()


def _warm_registry() -> None:
    from components import tracking

    tracking.warm()
