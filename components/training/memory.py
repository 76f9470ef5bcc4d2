"""What is known of a training's memory beyond one process's life: how often its batches are to be halved.

A batch that does not fit is taken in parts (`Learner`), twice as many each time, at most `MOST` times. A process that
runs out of memory in a group, or that the kernel kills, cannot do so itself: its number is left here, for the next start.
"""

from __future__ import annotations

import json
from pathlib import Path

from components.store import write_atomically
from components.training.failure import oom_kills

MOST = 6  # halvings of a batch before memory that runs out is an error
NOTE = "memory.json"


def halvings(scratch: Path | None) -> int:
    """How often the batches of a training are to be halved from its start, as earlier starts found out."""
    return int(_read(scratch).get("halvings", 0)) if scratch else 0


def note_start(scratch: Path | None) -> int:
    """Notes that a full training begins. If the last one here did not come back and the kernel has killed a process for
    want of memory since, that was likely it: batches are halved once more. Returns how often they are."""
    if scratch is None:
        return 0
    note, kills = _read(scratch), oom_kills()
    known = int(note.get("halvings", 0))
    if note.get("at_work") and kills > int(note["kernel_kills"]):
        known = min(MOST, known + 1)
    _write(scratch, known, at_work=True)
    return known


def note_end(scratch: Path | None) -> None:
    """Notes that a training came back, with a result or an error of its own."""
    if scratch is not None:
        _write(scratch, halvings(scratch), at_work=False)


def halve(scratch: Path) -> int | None:
    """Has the next start halve the batches once more; None if that was done often enough."""
    known = halvings(scratch) + 1
    if known > MOST:
        return None
    _write(scratch, known, at_work=False)
    return known


def _write(scratch: Path, known: int, *, at_work: bool) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    write_atomically(scratch / NOTE, json.dumps({"halvings": known, "at_work": at_work, "kernel_kills": oom_kills()}))


def _read(scratch: Path) -> dict[str, int]:
    try:
        return dict(json.loads((scratch / NOTE).read_text()))
    except (OSError, ValueError):
        return {}
