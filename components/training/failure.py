"""Why a training ended badly: a loss that is not finite, memory that ran out, or a bug of ours. Told apart in words."""

from __future__ import annotations

from pathlib import Path

from components.errors import AthanorError, StageFailedError

ALLOCATOR_WORDS = ("can't allocate memory", "out of memory", "not enough memory", "cannot allocate memory", "bad_alloc")


class DivergedError(StageFailedError):
    """The training loss became NaN or infinite."""


def cause_of(error: BaseException) -> str:
    """`nan`, `oom` or `bug`."""
    if isinstance(error, DivergedError):
        return "nan"
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in ALLOCATOR_WORDS):
        return "oom"
    return "bug"


def reason_of(error: BaseException) -> str:
    """One sentence for a person; what is not ours is named by its class."""
    first_line = (str(error).strip().splitlines() or ["no message"])[0]
    if isinstance(error, AthanorError):
        return first_line
    if cause_of(error) == "oom":
        return f"memory ran out: {first_line}"
    return f"{type(error).__name__}: {first_line}"


def oom_kills(path: Path = Path("/proc/vmstat")) -> int:
    """Processes that the kernel has killed for want of memory since it started; 0 where it does not say."""
    try:
        rows = (line.split() for line in path.read_text().splitlines())
        return next((int(row[1]) for row in rows if row[0] == "oom_kill"), 0)
    except (OSError, ValueError, IndexError):
        return 0
