"""What the machines of a cluster must have before calls are sent to them: our code, and the folder that results go to."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from components.errors import UsageError


@dataclass(frozen=True)
class Node:
    """What a machine says of itself."""

    python: str
    athanor: str
    sees_mark: bool


def describe(mark: str | None) -> Node:
    """Called on the machine: its versions, and whether it sees a file of the caller's."""
    return Node(platform.python_version(), version("athanor"), mark is None or Path(mark).exists())


class Mark:
    """A file in the folder that all machines must see; there while it is asked for."""

    def __init__(self, folder: Path | None) -> None:
        self.path = folder / f".seen-{uuid.uuid4().hex}" if folder else None

    def __enter__(self) -> str | None:
        if self.path:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
        return str(self.path.absolute()) if self.path else None

    def __exit__(self, *_: object) -> None:
        if self.path:
            self.path.unlink(missing_ok=True)


def require_fit(runner: str, folder: Path | None, nodes: Mapping[str, Node | BaseException]) -> None:
    """Raises `UsageError` that names the first machine which cannot run this search, and why."""
    here = describe(None)
    for place, node in nodes.items():
        if isinstance(node, BaseException):
            raise UsageError(f"runner={runner}: {place} cannot run trials ({type(node).__name__}: {node}); install the same athanor there")
        if (node.python.rpartition(".")[0], node.athanor) != (here.python.rpartition(".")[0], here.athanor):
            theirs, ours = (f"athanor {n.athanor} on Python {n.python}" for n in (node, here))
            raise UsageError(f"runner={runner}: {place} has {theirs}, this command {ours}; install the same there")
        if not node.sees_mark:
            raise UsageError(f"runner={runner}: {place} does not see the folder {folder}; share it under the same path (ATHANOR_HOME)")
