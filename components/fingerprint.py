"""What code, which libraries and which CPU a stage depends on, found by reading sources and never by importing them.

A stage's code is the static import closure of its verb and of the `_target_`s in its configuration, imports inside
functions included. A file's digest is that of its syntax tree without docstrings, so a comment or a docstring
changes nothing and a constant does. Results are remembered by (size, mtime, inode), so asking again costs a `stat`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OWN = "components"
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml", "xgboost": "xgboost-cpu"}
NUMERIC = frozenset({"numpy", "torch", "onnx", "onnxruntime", "sklearn", "pandas", "lightning"})


@dataclass(frozen=True)
class Source:
    """What one file says: the digest of its code, and the modules it imports."""

    digest: str
    imports: tuple[str, ...]


class SourceCache:
    """Digests of source files, remembered in one JSON file by (size, mtime, inode); a lost or torn file is rebuilt."""

    def __init__(self, path: Path | None = None, root: Path = ROOT) -> None:
        self.path, self.root, self._dirty = path, root, False
        self._rows: dict[str, Any] = _read_json(path) if path else {}

    def source(self, file: Path) -> Source:
        """The digest and imports of one file. Raises `SyntaxError` for a file that does not parse."""
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        row = self._rows.get(str(file))
        if not row or row[0] != stamp:
            found = read_source(file.read_text(encoding="utf-8"), str(file))
            row = self._rows[str(file)] = [stamp, found.digest, list(found.imports)]
            self._dirty = True
        return Source(digest=row[1], imports=tuple(row[2]))

    def save(self) -> None:
        """Writes what was learned, atomically; a folder that cannot be written only costs time."""
        if not (self.path and self._dirty):
            return
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self._rows))
        temporary.replace(self.path)
        self._dirty = False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_source(text: str, name: str = "<source>") -> Source:
    """The digest and imports of a module's text.

    >>> read_source("x = 1  # one").digest == read_source("x = 1").digest != read_source("x = 2").digest
    True
    """
    tree = ast.parse(text, name)
    imports = tuple(dict.fromkeys(_imports(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_docstring(node)
    return Source(digest=hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports=imports)


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:]


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield from _imports(other)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node)


def closure(modules: Iterable[str], cache: SourceCache, packages: Iterable[str] = (OWN,)) -> tuple[dict[str, str], frozenset[str]]:
    """Digest by file (relative to the root) of all own code that `modules` can run, and the libraries it imports."""
    own = set(packages)
    files: dict[str, str] = {}
    libraries: set[str] = set()
    waiting = list(modules)
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        if module.split(".")[0] not in own:
            libraries.add(module.split(".")[0])
            continue
        parent = module.rpartition(".")[0]
        if parent:
            waiting.append(parent)
        file = _file_of(module, cache.root)
        if file is None:
            continue
        source = cache.source(file)
        files[str(file.relative_to(cache.root))] = source.digest
        waiting.extend(source.imports)
    return dict(sorted(files.items())), frozenset(libraries - set(sys.stdlib_module_names))


def _file_of(module: str, root: Path) -> Path | None:
    base = root.joinpath(*module.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return file
    return None


def targets(config: Any) -> Iterator[str]:
    """The modules of all `_target_`s in a configuration, nested ones included."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield str(config["_target_"]).rpartition(".")[0]
        for value in config.values():
            yield from targets(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from targets(value)


@functools.cache
def installed() -> dict[str, str]:
    """Version by normalised distribution name, read from the names of the dist-info folders on `sys.path`."""
    found: dict[str, str] = {}
    for folder in reversed(sys.path):
        if not folder or not os.path.isdir(folder):
            continue
        for entry in os.listdir(folder):
            if entry.endswith(".dist-info"):
                name, _, version = entry.removesuffix(".dist-info").partition("-")
                found[name.lower().replace("_", "-")] = version
    return found


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Version by import name, for the libraries that are installed."""
    known = installed()
    rows = ((name, known.get(DISTRIBUTIONS.get(name, name).lower().replace("_", "-"))) for name in libraries)
    return {name: version for name, version in sorted(rows) if version}


@functools.cache
def cpu() -> str:
    """The machine's CPU type: architecture and model name, because the last bits of a sum depend on them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{platform.machine()} {model}".strip()
