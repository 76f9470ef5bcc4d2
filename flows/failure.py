"""What went wrong, in one line, and the exit code it ends a command with."""

from __future__ import annotations

import contextlib
import os
import re
import time
import traceback
from pathlib import Path

from components.errors import AthanorError
from components.home import home

FULL_DISK = r"No space left on device|File too large|Disk quota exceeded|disk is full|\d+ requested and \d+ written"


def in_words(error: BaseException) -> tuple[str, int]:
    """One line for a person and the exit code; a bug of our own also gets a traceback file, which the line names."""
    cause = _root(error)
    if isinstance(cause, AthanorError):
        line, code = " ".join(str(cause).split()), cause.exit_code
    else:
        line, code = _known(cause)
    if code == 70:
        line += f" (traceback in {_write_traceback(error)})"
    return line, code


def _root(error: BaseException) -> BaseException:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, AthanorError):
            return seen
        seen = seen.__cause__
    return error


def _known(error: BaseException) -> tuple[str, int]:
    if re.search(FULL_DISK, str(error)):
        return f"no space left to write below {home()}; free some and run the same command again", 75
    if "database is locked" in str(error):
        return "a database in the state folder is locked by another process; try again when it has finished", 75
    if type(error).__name__ == "PrefectHTTPStatusError" and "Server error" in str(error):
        return f"Prefect's server cannot do its work ({_last_trouble()}); see to that and run the same command again", 75
    if isinstance(error, PermissionError):
        return f"{error.filename} cannot be read or written: permission denied", 65
    kind = "" if type(error).__name__ == "WorkerBug" else f"{type(error).__name__}: "  # whose text begins with what it was
    return f"our own bug: {kind}{str(error).partition(chr(10))[0]}", 70


def _last_trouble() -> str:
    """The newest error line in the log of this home's Prefect server, such as a full disk or a locked database."""
    log = home() / "prefect.log"
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()[-2000:]
        found = next((line for line in reversed(lines) if "OperationalError)" in line), "")
        if found:
            return found.rpartition("OperationalError)")[2].strip()
    return f"see {log}"


def _write_traceback(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error)) + getattr(error, "trace", "")
    for folder in (home() / "tracebacks", Path("/tmp")):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
            path.write_text(text)
            return str(path)
    return "no file: nothing can be written"
