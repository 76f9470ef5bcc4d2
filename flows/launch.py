"""Before a flow begins: its Prefect server, its forkserver and MLflow, all started at once, none waited for too early.

Prefect's server (5-13 s) and the forkserver's torch (8 s) start as processes first; Prefect's client and MLflow are
imported meanwhile. Nothing of this happens in a run with nothing to do.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from components import processes
from components.home import home
from components.store import Store
from flows import server

server.quiet()

from prefect import Flow  # noqa: E402  (Prefect reads its settings when it is imported)

_lock = threading.Lock()


class Pipeline(Flow[..., Any]):
    """A flow that finds or starts its server and workers before it begins. Its results stay out of Prefect's storage."""

    def __init__(self, fn: Any, name: str) -> None:
        super().__init__(fn=fn, name=name, persist_result=False, log_prints=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        prepare()
        return super().__call__(*args, **kwargs)


def kindle() -> None:
    """Starts the processes that a run needs, without waiting: as early as possible, in the main thread."""
    os.environ["ATHANOR_HOME"] = str(home())
    Store(home()).prepare()
    server.start()
    if threading.current_thread() is threading.main_thread():
        processes.start()


def prepare() -> None:
    """Everything a flow needs, ready: processes started, MLflow warming up in the background, Prefect's server healthy."""
    with _lock:
        kindle()
        _warm_registry()
        server.wait_until_healthy()


def _warm_registry() -> None:
    from components import tracking

    threading.Thread(target=tracking.warm, name="warm-mlflow", daemon=True).start()
