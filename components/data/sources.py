"""Digests of the files a data set is read from: what the version stage is keyed by, known without reading the data.

A file's digest is remembered in `ATHANOR_HOME/sources.json` by (size, mtime, inode), so asking again costs a `stat`.
Where a `.dvc` file covers the data and still describes it, DVC's md5 is the digest; elsewhere our sha256 is. A
dataset version's own digest always comes from sha256 of the bytes, so pinning data does not change it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.artifacts import JSON, digest_of
from components.build import build
from components.data.reader import Reader
from components.errors import DataError
from components.home import home
from components.store import write_atomically

SETTLED_SECONDS = 0.1  # a file changed this recently may change again within one tick of its mtime: its digest is not remembered


def reader_of(config: Mapping[str, Any]) -> Reader:
    """The reader that the `dataset` section of a composed configuration describes."""
    reader: Reader = build(config["dataset"])
    return reader


def name_of(config: Mapping[str, Any]) -> str:
    """The data set's name, which is the registered model's name unless `model` says otherwise."""
    return reader_of(config).name


def key_config(config: Mapping[str, Any]) -> JSON:
    """The version stage's configuration without the places data are at, but with the name they lend: what may enter its key.

    The same bytes at another path are the same version; their digests come from `source_digests`."""
    reader = reader_of(config)
    return {**config, "dataset": {**options(config["dataset"], reader), "name": reader.name}}


def options(dataset: Mapping[str, Any], reader: Reader) -> JSON:
    """A `dataset` section without the options that only say where data are."""
    return {key: value for key, value in dataset.items() if key not in reader.places}


def source_digests(config: Mapping[str, Any]) -> dict[str, str]:
    """The digest of each source of the `dataset` section, by role: `md5:...` of a `.dvc` file that is current, else
    `sha256:...`. Raises `DataError` for a source that is missing or cannot be read."""
    sources = reader_of(config).sources()
    digests = Digests()
    found: dict[str, str] = {}
    current: dict[Path, str | None] = {}
    for role, path in sources.items():
        pin = covering_pin(path)
        if pin is not None and pin not in current:
            current[pin] = _current_md5(pin, digests)
        if pin is not None and current[pin] is not None:
            found[pin.name.removesuffix(".dvc")] = f"md5:{current[pin]}"
        else:
            found[role] = f"sha256:{digests.of(path, 'sha256')}"
    digests.save()
    return found


def version_digest(config: Mapping[str, Any], reader: Reader, sources: Mapping[str, Path]) -> str:
    """sha256 over the sources' bytes, the reader's options and the split: the same on every machine."""
    digests = Digests()
    content = {role: digests.of(path, "sha256") for role, path in sorted(sources.items())}
    digests.save()
    decided = {key: value for key, value in options(config["dataset"], reader).items() if key != "name"}
    return digest_of({"sources": content, "options": decided, "split": dict(config["split"])})


def stamps(sources: Iterable[Path]) -> list[list[int]]:
    """Size, mtime and inode of each file: equal before and after reading means that nobody wrote in between."""
    return [_stamp(path) for path in sources]


class Digests:
    """File digests remembered by (size, mtime, inode) in the home's sources.json; a lost or torn file is rebuilt."""

    def __init__(self) -> None:
        self._path = home() / "sources.json"
        self._rows: dict[str, Any] = _read_json(self._path)
        self._changed = False

    def of(self, path: Path, algorithm: str) -> str:
        """The md5 or sha256 (hex) of a file. Raises `DataError` for one that cannot be read."""
        key = str(path.absolute())
        stamp = _stamp(path)
        row = self._rows.get(key)
        if not (isinstance(row, list) and len(row) == 2 and row[0] == stamp):
            row = [stamp, {}]
        if algorithm not in row[1]:
            row[1][algorithm] = _digest(path, algorithm)
            if _stamp(path) == stamp and time.time_ns() - stamp[1] > SETTLED_SECONDS * 1e9:
                self._rows[key], self._changed = row, True
        return str(row[1][algorithm])

    def save(self) -> None:
        """Writes what was learned; a home that cannot be written only costs time here, and is refused elsewhere."""
        if not self._changed:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(self._rows))
            self._changed = False


def covering_pin(path: Path) -> Path | None:
    """The `.dvc` file that covers a path: beside it, or beside one of the folders it lies in."""
    absolute = path.absolute()
    for part in (absolute, *absolute.parents):
        pin = part.with_name(part.name + ".dvc") if part.name else None
        if pin is not None and pin.is_file():
            return pin
        if (part / ".dvc").is_dir() or (part / ".git").exists():
            return None
    return None


def is_current(pin: Path) -> bool:
    """Whether the data beside a `.dvc` file are the bytes it records."""
    digests = Digests()
    found = _current_md5(pin, digests) is not None
    digests.save()
    return found


def _current_md5(pin: Path, digests: Digests) -> str | None:
    """The md5 a `.dvc` file records, if the data beside it still have it."""
    recorded = recorded_md5(pin)
    data = pin.with_name(pin.name.removesuffix(".dvc"))
    if recorded is None or not data.exists():
        return None
    actual = _folder_md5(data, digests) if data.is_dir() else digests.of(data, "md5")
    return recorded if actual == recorded else None


def recorded_md5(pin: Path) -> str | None:
    """The md5 in a `.dvc` file with one output, or None where it holds something else."""
    import yaml

    try:
        outputs = yaml.safe_load(pin.read_text(encoding="utf-8"))["outs"]
        return str(outputs[0]["md5"]) if len(outputs) == 1 else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
        return None


def _folder_md5(folder: Path, digests: Digests) -> str:
    """A folder's md5 as DVC computes it: over the JSON list of its files' md5 and relative path, in order of path."""
    files = sorted((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*") if file.is_file())
    rows = [{"md5": digests.of(file, "md5"), "relpath": name} for name, file in files]
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _digest(path: Path, algorithm: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); make it readable for this user") from error


def _stamp(path: Path) -> list[int]:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
