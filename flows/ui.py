"""Both web pages on loopback: Prefect's (this home's own server) and MLflow's, until interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

from components.home import database, home
from components.store import Store
from flows import server

READY_SECONDS = 90.0


def serve(*, as_json: bool) -> int:
    """Starts what does not run yet, prints both addresses once they answer, and stays until interrupted."""
    os.environ["ATHANOR_HOME"] = str(home())
    Store(home()).prepare()
    server.start()
    port = server._free_port()
    mlflow = _start_mlflow(port)
    try:
        server.wait_until_healthy()
        pages = {"prefect": os.environ["PREFECT_API_URL"].removesuffix("/api"), "mlflow": f"http://127.0.0.1:{port}"}
        _wait_for(pages["mlflow"], mlflow)
        print(json.dumps(pages) if as_json else f"Prefect  {pages['prefect']}\nMLflow   {pages['mlflow']}\nCtrl-C stops both.", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        mlflow.wait()
        return 75
    except KeyboardInterrupt:
        return 0
    finally:
        mlflow.terminate()
        server.stop_needing()


def _start_mlflow(port: int) -> subprocess.Popen[bytes]:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or database("mlflow")
    lifeline = "from components.lifeline import die_with_parent; import sys; from mlflow.cli import cli; sys.argv[0] = 'mlflow'; cli()"
    words = ["ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (home() / "mlflow-ui.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", lifeline, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=home(),
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # else seven job processes, for chat traces, that outlive it
        )  # fmt: skip


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    from components.errors import TryAgainError

    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TryAgainError(f"MLflow's page does not answer; see {home() / 'mlflow-ui.log'}")
