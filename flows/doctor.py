"""What this machine has and what is wrong with it, a row each, without importing anything heavy."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from components.artifacts import JSON
from components.fingerprint import ROOT, cpu, installed
from components.home import home

LEAST_FREE_GB = 2.0
OLDEST_SAFE = {"lightning": (2, 6, 6), "hydra-core": (1, 3, 7), "onnx": (1, 21, 0), "torch": (2, 10, 0)}  # code execution was fixed there


def examine() -> list[JSON]:
    """Rows with name, ok and words."""
    checks: list[Callable[[], tuple[str, bool, str]]] = [_python, _machine, _pins, _safe_versions, _home, _disk, _git, _sqlite, _server]
    return [dict(zip(("name", "ok", "words"), check(), strict=True)) for check in checks]


def table(rows: list[JSON]) -> str:
    """The rows as text."""
    return "\n".join(f"{'ok' if row['ok'] else 'BAD':<4} {row['name']:<9} {row['words']}" for row in rows)


def _python() -> tuple[str, bool, str]:
    return "python", sys.version_info[:2] == (3, 11), f"{platform.python_version()} (3.11 is supported)"


def _machine() -> tuple[str, bool, str]:
    return "machine", sys.platform == "linux", f"{cpu()}, {os.cpu_count()} cores, {sys.platform}"


def _pins() -> tuple[str, bool, str]:
    pinned = dict(line.strip().lower().replace("_", "-").split("==") for line in _constraints() if "==" in line)
    known = installed()
    off = [
        f"{name} {known[name]} instead of {version}"
        for name, version in pinned.items()
        if name in known and known[name].split("+")[0] != version
    ]
    return "pins", not off, "; ".join(off[:5]) or f"{len(pinned)} packages as pinned"


def _constraints() -> list[str]:
    try:
        return (ROOT / "constraints.txt").read_text().splitlines()
    except OSError:
        return []


def _safe_versions() -> tuple[str, bool, str]:
    known = installed()
    old = [name for name, least in OLDEST_SAFE.items() if name in known and _numbers(known[name]) < least]
    return "security", not old, f"unsafe old versions: {', '.join(old)}" if old else "no version with a known hole"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())


def _home() -> tuple[str, bool, str]:
    path = home()
    nearest = next(p for p in (path, *path.parents) if p.exists())
    if not os.access(nearest, os.W_OK):
        return "home", False, f"{path} cannot be written; set ATHANOR_HOME"
    mode = f", mode {path.stat().st_mode & 0o777:o}" if path.exists() else ", not made yet"
    return "home", True, f"{path}{mode}"


def _disk() -> tuple[str, bool, str]:
    nearest = next(p for p in (home(), *home().parents) if p.exists())
    free = shutil.disk_usage(nearest).free / 1e9
    return "disk", free > LEAST_FREE_GB, f"{free:.1f} GB free"


def _git() -> tuple[str, bool, str]:
    found = shutil.which("git")
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True) if found else None
    known = bool(revision and revision.returncode == 0)
    return "git", known, f"revision {revision.stdout.strip()}" if revision and known else "no git revision: lineage will lack it"


def _sqlite() -> tuple[str, bool, str]:
    return "sqlite", sqlite3.sqlite_version_info >= (3, 35), sqlite3.sqlite_version


def _server() -> tuple[str, bool, str]:
    url = os.environ.get("PREFECT_API_URL")
    if url:
        return "prefect", True, f"uses PREFECT_API_URL={url}"
    from flows.server import _running

    state = _running() if Path(home()).is_dir() else None
    return "prefect", True, f"server of this home runs on port {state['port']}" if state else "its server starts with a run"
