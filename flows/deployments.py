"""The pipeline on a schedule: a Prefect deployment served from this machine.

    athanor deploy cron='0 3 * * *' dataset=csv dataset.path=F dataset.target=COL

The process stays, asks Prefect's server for due runs and starts each in a process of its own. A run with nothing to
do ends in a second, so a frequent schedule costs little.
"""

from __future__ import annotations

import asyncio
import logging

from components.errors import UsageError
from flows.config import load


def serve(cron: str, overrides: list[str]) -> int:
    """Serves the flow under one configuration until interrupted. Raises `UsageError` for a cron that is not one."""
    check(cron)
    config = load(overrides)
    from flows.launch import prepare
    from flows.pipeline import synthesize

    prepare()
    logging.getLogger("asyncio").addFilter(_is_no_cancellation)
    synthesize.serve(name=config.model, cron=cron, parameters={"overrides": overrides}, limit=1, pause_on_shutdown=False)
    return 0


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """False for what asyncio (of Python 3.11) writes when this process is told to end while a run is connected to it."""
    return not (record.exc_info and record.exc_info[0] is asyncio.CancelledError)


FIELDS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}
NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "weekday": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}


def check(cron: str) -> None:
    """Raises `UsageError` that names the field for a cron that Prefect would refuse only after it has started."""
    parts = cron.split()
    if len(parts) != len(FIELDS):
        raise UsageError(f"cron must have five fields (minute hour day month weekday), such as '0 3 * * *', got {cron!r}")
    for (name, (low, high)), part in zip(FIELDS.items(), parts, strict=True):
        if not all(_is_range(item, low, high, NAMES.get(name, ())) for item in part.lower().split(",")):
            raise UsageError(f"the {name} of cron {cron!r} must be *, a number from {low} to {high}, a-b, */n or a list, got {part!r}")


def _is_range(item: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    span, slash, step = item.partition("/")
    if slash and not (step.isdecimal() and int(step) > 0):
        return False
    if span == "*":
        return True
    ends = [low + names.index(end) if end in names else int(end) if end.isdecimal() else -1 for end in span.split("-")]
    return len(ends) <= 2 and all(low <= end <= high for end in ends)
