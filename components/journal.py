"""The append-only journal of a run: what started, finished, failed and why, and how many seconds were spent.

One line an event: a crc32 and a JSON object with `time` (seconds since the epoch), `event` and the event's fields.
A line is one `write`, so that concurrent writers never mix. A torn last line (a kill in the middle of a write) is cut
when the journal is opened again; a damaged line in the middle is passed over. `status`, the live screen and the
report read nothing else.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Listener = Callable[[Event], None]


class Journal:
    """Appends events to one file and tells listeners of them."""

    def __init__(self, path: Path, listeners: tuple[Listener, ...] = ()) -> None:
        self.path, self.listeners = path, listeners
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _cut_torn_line(path)

    def write(self, event: str, **fields: Any) -> Event:
        """Appends one event, durably when it ends something, and returns it."""
        row = {"time": round(time.time(), 3), "event": event, **fields}
        text = json.dumps(row, ensure_ascii=False, default=str)
        line = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
            if event.endswith((".finished", ".failed")):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        for listener in self.listeners:
            listener(row)
        return row

    def events(self) -> list[Event]:
        """All events so far, oldest first."""
        return list(read(self.path))

    def seconds_spent(self) -> float:
        """Wall-clock seconds in which this run was at work, over all its sessions; a session that was killed
        counts up to its last event."""
        spent, started, last = 0.0, None, 0.0
        for row in read(self.path):
            if row["event"] == "run.started":
                spent += last - started if started is not None else 0.0
                started = row["time"]
            last = row["time"]
        return spent + (last - started if started is not None else 0.0)


def read(path: Path) -> Iterator[Event]:
    """The undamaged events of a journal file, oldest first; none if there is no file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        checksum, _, text = line.partition(b" ")
        try:
            if int(checksum, 16) == zlib.crc32(text):
                yield json.loads(text)
        except ValueError:
            continue


def _cut_torn_line(path: Path) -> None:
    try:
        with path.open("r+b") as file:
            data = file.read()
            if data and not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)
    except FileNotFoundError:
        return
