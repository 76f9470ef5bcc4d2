"""Pinning data with DVC: `athanor data add NAME PATH`, `data push`, `data pull`.

A pin is data/NAME.dvc, a few lines in git that name the data's md5; the bytes are in data/ (ignored by git), in DVC's
cache and on a remote. The pipeline only reads pins (`sources`); only these verbs write them. DVC runs as a process of
its own, one at a time; where it is locked it is tried again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from components.data.reader import plain_name, required_path
from components.data.sources import is_current
from components.errors import DataError, TryAgainError, UsageError

LOCKED = "Unable to acquire lock"
TRIES, PAUSE_SECONDS = 5, 1.0  # DVC itself waits 3 s for its lock each time
REMOTE = "athanor"


def repository(start: Path | None = None) -> Path:
    """The folder whose `.dvc` or `.git` is nearest above `start` (default: the current folder), else `start` itself."""
    here = (start or Path.cwd()).absolute()
    for marker in (".dvc", ".git"):
        for folder in (here, *here.parents):
            if (folder / marker).is_dir():
                return folder
    return here


def add(name: str, path: Path, root: Path | None = None) -> Path:
    """Copies a file or folder to data/NAME, pins it, and returns the `.dvc` file. Data already at data/NAME are pinned in place.

    Raises `DataError` where data/NAME holds something that no pin remembers, so that nothing is lost."""
    if plain_name(name, None) != name:
        raise UsageError(f"a data set's name may hold letters, digits, - and _ only, got {name!r}; {plain_name(name, None)!r} would do")
    root = prepare(repository(root))
    source = required_path(path, "the file or folder to pin", "PATH").absolute()
    target = root / "data" / (name if source.is_dir() else name + "".join(_suffixes(source)))
    if source.resolve() == target.resolve():
        run(root, "add", str(target.relative_to(root)))
        return _pin(target)
    if source.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{path} lies in the repository; move it to {target.relative_to(root)} first, then add it from there")
    target.parent.mkdir(exist_ok=True)
    run(root, "add", str(source), "-o", str(target.relative_to(root)), *_override(target))
    return _pin(target)


def push(root: Path | None = None, remote: str | None = None) -> str:
    """Sends pinned bytes to the remote; `remote` (a folder or a URL) becomes the default one first. Returns what DVC said."""
    root = prepare(repository(root))
    if remote:
        run(root, "remote", "add", "--default", "--force", REMOTE, remote if "://" in remote else str(Path(remote).absolute()))
    return run(root, "push")


def pull(root: Path | None = None) -> str:
    """Fetches what pins name and is not here. Returns what DVC said; raises `DataError` for bytes the remote does not have."""
    return run(prepare(repository(root)), "pull")


def prepare(root: Path) -> Path:
    """Makes the folder a DVC repository if it is none, with a private cache of sites inside it (0700), and copies, never links."""
    if not (root / ".dvc").is_dir():
        run(root, "init", "--quiet", *([] if (root / ".git").exists() else ["--no-scm"]))
        run(root, "config", "cache.type", "reflink,copy")
        run(root, "config", "core.analytics", "false")
        with (root / ".dvc" / ".gitignore").open("a", encoding="utf-8") as file:
            file.write("/site_cache\n")
    return root


def run(root: Path, *arguments: str) -> str:
    """What `dvc ARGUMENTS` printed, run in `root`. Raises `TryAgainError` while DVC is locked, `DataError` where it fails."""
    for attempt in range(TRIES):
        done = _dvc(root, arguments)
        if done.returncode == 0:
            return done.stdout.strip()
        if LOCKED not in done.stderr:
            raise DataError(f"dvc {' '.join(arguments[:2])} failed: {_said(done.stderr)}")
        time.sleep(PAUSE_SECONDS * (attempt + 1))
    raise TryAgainError(f"another DVC command holds the lock of {root}; try again when it has finished")


def _dvc(root: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    site_cache = root / ".dvc" / "site_cache"
    if site_cache.parent.is_dir():
        site_cache.mkdir(mode=0o700, exist_ok=True)
        site_cache.chmod(0o700)
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "true", "DVC_SITE_CACHE_DIR": str(site_cache)}
    command = [sys.executable, "-m", "dvc", *arguments]
    try:
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    finally:
        if site_cache.is_dir():
            site_cache.chmod(0o700)  # DVC opens it to everybody


def _said(text: str) -> str:
    """The reason in what DVC wrote to standard error, on one line and without its advice on itself."""
    lines = [line.removeprefix("ERROR:").strip() for line in text.splitlines() if line.startswith("ERROR:")]
    found = lines or [line.strip() for line in text.splitlines() if line.strip()][-1:] or ["it gave no reason"]
    if "no remote specified" in found[0]:
        return "no remote is set; name one, as in `athanor data push remote=/path/or/s3://bucket`"
    return "; ".join(found)


def _suffixes(source: Path) -> list[str]:
    """A file's suffixes as far as they say its form (.csv.gz), not every dot in its name."""
    kept = [suffix for suffix in source.suffixes if suffix.lower() in (".csv", ".tsv", ".txt", ".data", ".parquet", ".pq", ".zip", ".gz")]
    return kept or source.suffixes[-1:]


def _override(target: Path) -> list[str]:
    """`--force` where something is at the target that its pin remembers, so that it can be had back from the cache."""
    if not target.exists():
        return []
    if _pin(target).is_file() and is_current(_pin(target)):
        return ["--force"]
    raise DataError(f"{target} exists and has changes that no pin remembers; move it away, or add it from there to keep them")


def _pin(target: Path) -> Path:
    return target.with_name(target.name + ".dvc")
