"""Ends the services that a library started, whatever becomes of the process that asked for them.

Ray's servers die with the process that started them, but helpers of theirs go on for a minute. A guardian is a process
of ours that is told which they are and waits for its caller to end, in whatever way; then it kills those that are left
and removes their folder. It reads nothing but /proc, so it starts in some hundredths of a second.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

SCRIPT = """
import os, shutil, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdin.read()
for word in sys.argv[2:]:
    pid, started = word.split(":")
    try:
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[19] == started:
                os.kill(int(pid), signal.SIGKILL)
    except OSError:
        pass
if sys.argv[1]:
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


@contextlib.contextmanager
def guarding(pids: Iterable[int], folder: str | None = None) -> Iterator[None]:
    """Kills these processes at the end of the block, or of this process, and removes their folder."""
    words = [f"{pid}:{started}" for pid in pids if (started := _started(pid))]
    command = [sys.executable, "-I", "-S", "-c", SCRIPT, folder or "", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as guardian:
        assert guardian.stdin
        try:
            yield
        finally:
            guardian.stdin.close()


def family_of(mark: str, ancestor: int) -> set[int]:
    """The children of a process that have `mark` in their command line, and all of their descendants."""
    parents = {int(entry.name): parent for entry in Path("/proc").iterdir() if entry.name.isdigit() and (parent := _parent(entry))}
    found = {pid for pid, parent in parents.items() if parent == ancestor and mark in _command(pid)}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _fields(entry: Path) -> list[str]:
    """A process's state, parent and so on, see proc(5); empty if it is gone."""
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(entry: Path) -> int | None:
    fields = _fields(entry)
    return int(fields[1]) if fields else None


def _started(pid: int) -> str | None:
    fields = _fields(Path(f"/proc/{pid}"))
    return fields[19] if fields else None
