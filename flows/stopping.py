"""SIGTERM: trainings save a checkpoint, then the process ends as with Ctrl-C, with exit code 143, within ten seconds."""

from __future__ import annotations

import signal
import sys
import threading
import traceback

GRACE = 8.0  # seconds that workers have to save what they are at
_listens: list[bool] = []
_received: list[int] = []


def listen() -> None:
    """Has SIGTERM handled here from now on, if this is the main thread."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
        _listens.append(True)


def listen_again() -> None:
    """Inside a flow: Prefect's own handler would end the workers before they have saved anything. Nothing in a program
    that never asked to `listen`."""
    if _listens:
        listen()


def ended(error: BaseException) -> tuple[str, int] | None:
    """What to say of a command that was stopped or interrupted, and its exit code; None if that is not what ended it."""
    if not _received and "KeyboardInterrupt" not in "".join(traceback.format_exception(error)):  # a library may pass it on as its own
        return None
    return f"{'stopped' if _received else 'interrupted'}; the same command goes on where this stopped", 143 if _received else 130


def _stop(signum: int, frame: object) -> None:
    _received.append(signum)
    if "components.processes" in sys.modules:
        sys.modules["components.processes"].stop_workers(GRACE)
    raise KeyboardInterrupt
