"""The pipeline on a schedule: a Prefect deployment served from this machine.

    athanor deploy cron='0 3 * * *' dataset=csv dataset.path=F dataset.target=COL

The process stays, asks Prefect's server for due runs and starts each in a process of its own. A run with nothing to
do ends in a second, so a frequent schedule costs little.
"""

from __future__ import annotations

import re

from components.errors import UsageError
from flows.config import load


def serve(cron: str, overrides: list[str]) -> int:
    """Serves the flow under one configuration until interrupted. Raises `UsageError` for a cron that is not one."""
    config = load(overrides)
    _check(cron)
    from flows.launch import prepare
    from flows.pipeline import synthesize

    prepare()
    synthesize.serve(name=config.model, cron=cron, parameters={"overrides": overrides}, limit=1, pause_on_shutdown=False)
    return 0


def _check(cron: str) -> None:
    fields = cron.split()
    if len(fields) != 5 or not all(re.fullmatch(r"[\d*,/\-A-Za-z#L]+", part) for part in fields):
        raise UsageError(f"cron must have five fields (minute hour day month weekday), such as '0 3 * * *', got {cron!r}")
