"""Content-addressed memory of stages: what was computed once from the same things is not computed again.

    key = sha256(stage, identities of the inputs, config it reads, code it runs, library versions, seed, CPU, extent)

`publish` writes a stage's folder whole or not at all: bytes go to a temporary folder, are digested into a manifest,
fsynced and renamed. `lookup` finds a folder again and verifies it (by size, mtime and inode, or by every byte);
what does not verify is set aside and computed anew. `single_flight` lets one process compute a key while others wait.

    ATHANOR_HOME/artifacts/<stage>/<key>/   record.json  key.json  manifest.json  and the stage's files
    ATHANOR_HOME/scratch/<key>/             what a killed stage resumes from; removed when it is published
    ATHANOR_HOME/locks/<key>.lock           flock, released by the kernel when its holder dies
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components import artifacts
from components.artifacts import JSON, Record, digest_of, digest_of_file
from components.errors import TryAgainError, UsageError

FULL_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
DIGITS = 12  # of a digest, where a user reads it


@dataclass(frozen=True, kw_only=True)
class KeyParts:
    """All that decides a stage's result, by part, so that a miss can say which part changed."""

    stage: str
    inputs: Mapping[str, str]
    config: JSON
    code: Mapping[str, str]
    libraries: Mapping[str, str]
    seed: int
    cpu: str = ""
    extent: JSON = field(default_factory=dict)

    def to_json(self) -> JSON:
        return {
            "stage": self.stage, "inputs": dict(self.inputs), "config": self.config, "code": dict(self.code),
            "libraries": dict(self.libraries), "seed": self.seed, "cpu": self.cpu, "extent": self.extent,
        }  # fmt: skip

    @property
    def key(self) -> str:
        """sha256 (hex) of all parts."""
        return digest_of(self.to_json())

    def without_extent(self) -> KeyParts:
        """The same work, however long it may take: what a study or a checkpoint is filed under."""
        return KeyParts(**{**self.to_json(), "extent": {}})


def explain(old: JSON | None, new: KeyParts) -> list[str]:
    """Which parts of a key changed, each in words: `config space.max_depth 3 → 4`, `config space ConvNet → Cell`, `code
    components/x.py`."""
    if old is None:
        return ["never ran"]
    fresh = new.to_json()
    parts = ("config", "extent", "code", "libraries", "inputs", "seed", "cpu")
    return [_change(part, *row) for part in parts for row in _differences(old.get(part), fresh[part])]


def _change(part: str, name: str, before: Any, after: Any) -> str:
    if part in ("code", "inputs"):
        return f"{part} {name}"
    was, now = (side[:DIGITS] if isinstance(side, str) and re.fullmatch("[0-9a-f]{64}", side) else side for side in (before, after))
    return f"{part} {name} {was} → {now}".replace("  ", " ")


def _differences(before: Any, after: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What differs, by name and in order; of a node whose class is another one, the classes alone."""
    nodes = [side if isinstance(side, Mapping) else {} for side in (before, after)]
    if not any(nodes):
        was, now = (None if side == {} else side for side in (before, after))
        if was != now:
            yield name, was, now
        return
    chosen = [node.get("_target_") for node in nodes]
    if chosen[0] != chosen[1]:
        was, now = (path and str(path).rpartition(".")[2] for path in chosen)
        yield name, was, now
        return
    for key in sorted(nodes[0].keys() | nodes[1].keys()):
        yield from _differences(nodes[0].get(key), nodes[1].get(key), key if not name or "/" in key else f"{name}.{key}")


class Store:
    """The artifact store below one home folder (0700). Raises `UsageError` for a home that cannot be written."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.artifacts = home / "artifacts"
        self._temporary = self.artifacts / ".tmp"

    def prepare(self) -> None:
        """Makes the folders; safe to call again."""
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.home.stat().st_mode & 0o077 and self.home.owner() == Path("/proc/self").owner():
                self.home.chmod(0o700)
            for folder in (self._temporary, self.home / "scratch", self.home / "locks"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"state folder {self.home} cannot be written ({error.strerror}); set ATHANOR_HOME to one that can") from error
        if not os.access(self.home, os.W_OK):
            raise UsageError(f"state folder {self.home} cannot be written; set ATHANOR_HOME to one that can")

    def folder(self, stage: str, key: str) -> Path:
        """Where an artifact is, or would be."""
        return self.artifacts / stage / key

    def scratch(self, key: str) -> Path:
        """A folder that survives a kill, for checkpoints of the work filed under `key`."""
        path = self.home / "scratch" / key
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def has(self, parts: KeyParts) -> bool:
        """Whether an artifact is there and its files' sizes, mtimes and inodes are as they were published."""
        return is_intact(self.folder(parts.stage, parts.key), every_byte=False)

    def lookup(self, parts: KeyParts, *, every_byte: bool = True) -> Any | None:
        """The record published under a key, or None. A folder that fails verification is removed: it will be recomputed."""
        folder = self.folder(parts.stage, parts.key)
        if not folder.exists():
            return None
        if not is_intact(folder, every_byte=every_byte):
            self._discard(folder)
            return None
        return read_record(folder)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A private folder for a stage's output; removed unless `publish` has renamed it away."""
        path = self._temporary / f"{os.getpid()}-{uuid.uuid4().hex}"
        with full_disk_says_so(self.home):
            path.mkdir(mode=0o700, parents=True)
        try:
            with full_disk_says_so(self.home):
                yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def publish(self, parts: KeyParts, record: Record | tuple[Record, ...], folder: Path) -> Any:
        """Files `folder` with its record under the key, whole or not at all; returns the record as read back."""
        target = self.folder(parts.stage, parts.key)
        with full_disk_says_so(self.home):
            (folder / "record.json").write_text(json.dumps(artifacts.dump(record, folder)))
            (folder / "key.json").write_text(json.dumps(parts.to_json()))
            write_manifest(folder)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._rename(folder, target)
        shutil.rmtree(self.home / "scratch" / parts.key, ignore_errors=True)
        return read_record(target)

    def _rename(self, folder: Path, target: Path) -> None:
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if is_intact(target, every_byte=True):
                return
            self._discard(target)
            folder.rename(target)
        fsync(target.parent)

    def _discard(self, folder: Path) -> None:
        grave = self._temporary / f"{os.getpid()}-{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            folder.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)

    @contextlib.contextmanager
    def single_flight(self, key: str, on_wait: Callable[[], object] | None = None) -> Iterator[None]:
        """Holds the key's lock; `on_wait` is called once if another process holds it, then this one waits."""
        with locked(self.home / "locks" / f"{key}.lock", on_wait):
            yield

    def sweep(self) -> None:
        """Removes temporary folders of processes that are gone."""
        for path in self._temporary.glob("*-*"):
            pid = path.name.partition("-")[0]
            if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(path, ignore_errors=True)

    def verify(self) -> list[Path]:
        """Reads every byte of every artifact; returns the folders that fail."""
        return [folder for folder in self.folders() if not is_intact(folder, every_byte=True)]

    def folders(self) -> list[Path]:
        """Every published artifact's folder, oldest first."""
        found = [f for f in self.artifacts.glob("*/*") if not f.parent.name.startswith(".")]
        return sorted(found, key=lambda f: f.stat().st_mtime)


def read_record(folder: Path) -> Any:
    """The record (or tuple of records) of a published folder."""
    return artifacts.load(json.loads((folder / "record.json").read_text()), folder)


def write_manifest(folder: Path) -> None:
    """Digests and fsyncs every file below `folder` and writes manifest.json beside them."""
    rows = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"):
        fsync(file)
        stat = file.stat()
        rows[str(file.relative_to(folder))] = [digest_of_file(file), stat.st_size, stat.st_mtime_ns, stat.st_ino]
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"files": rows, "digest": digest_of(rows)}))
    fsync(manifest)
    fsync(folder)


def is_intact(folder: Path, *, every_byte: bool) -> bool:
    """Whether each file of the manifest is as published: by size, mtime and inode, or by sha256 where they differ or `every_byte`."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        rows: dict[str, list[Any]] = manifest["files"]
        if digest_of(rows) != manifest["digest"]:
            return False
        return all(_file_is_intact(folder / name, row, every_byte) for name, row in rows.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _file_is_intact(file: Path, row: list[Any], every_byte: bool) -> bool:
    sha256, size, mtime_ns, inode = row
    stat = file.stat()
    if stat.st_size != size:
        return False
    if not every_byte and stat.st_mtime_ns == mtime_ns and stat.st_ino == inode:
        return True
    return digest_of_file(file) == str(sha256)


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], object] | None = None, *, timeout: float | None = None) -> Iterator[None]:
    """An exclusive flock on `path`. Raises `TryAgainError` when `timeout` (seconds) passes first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a+") as file:
        _acquire(file.fileno(), path, on_wait, timeout)
        yield


def _acquire(descriptor: int, path: Path, on_wait: Callable[[], object] | None, timeout: float | None) -> None:
    until = None if timeout is None else time.monotonic() + timeout
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if on_wait and not told:
                on_wait()
                told = True
            if until is not None and time.monotonic() > until:
                raise TryAgainError(f"{path.name} is held by another process; try again when it has finished") from None
            time.sleep(0.05)


def write_atomically(path: Path, text: str) -> None:
    """Replaces a small file whole or not at all: temporary file beside it, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_says_so(where: Path) -> Iterator[None]:
    """Turns the errors of a full disk into one line and exit code 75."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise TryAgainError(
                f"no space left to write below {where} ({error.strerror}); free some and run the same command again"
            ) from error
        raise


def fsync(path: Path) -> None:
    """Returns when a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
