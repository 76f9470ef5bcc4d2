"""A throw-away PostgreSQL server from Debian's packages, on the loopback interface, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLACES = (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *map(Path, os.environ.get("PATH", "").split(os.pathsep)))
PATIENCE_SECONDS = 60.0


def program(name: str) -> Path | None:
    """One of PostgreSQL's programs, which Debian keeps off the path."""
    return next((place / name for place in PLACES if (place / name).is_file()), None)


def missing() -> str | None:
    """Why no server can be started here, if so."""
    if not (program("initdb") and program("postgres")):
        return "PostgreSQL is not installed: apt-get install postgresql"
    return None if importlib.util.find_spec("psycopg") else "psycopg is not installed: pip install 'athanor[postgresql]'"


MISSING = missing()


class Server:
    """A cluster in a folder of its own; `url` has a password in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.password = folder, secrets.token_hex(8)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://athanor:{self.password}@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self._owner: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            self._owner = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(folder, "nobody", "nogroup")
        secret = folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        words = ["-D", str(folder / "data"), "-U", "athanor", f"--pwfile={secret}", "-A", "scram-sha-256", "--no-sync", "-E", "UTF8"]
        subprocess.run([str(program("initdb")), *words, "--locale=C"], check=True, capture_output=True, cwd=folder, **self._owner)

    def start(self) -> None:
        """Returns when it takes connections, which is after it has recovered."""
        import psycopg

        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 200,
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(program("postgres")), "-D", str(self.folder / "data"), *words], stdout=log, stderr=log, cwd=self.folder, **self._owner
            )
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
                return
            time.sleep(0.02)
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self) -> None:
        """As if the power had failed."""
        if self._process:
            self._process.send_signal(3)  # SIGQUIT: an immediate shutdown, by the words of postgres(1)
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server that runs, and that leaves nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="athanor-postgres-"))
    found = Server(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)
