"""The append-only ledger of each model's aliases: who decided what, from which version to which, and whether it was done.

Written before the aliases change and after, on the journal's checksummed lines, so a kill in between is seen:

    decision.finished   action promote | keep | rollback, version, before, after, gates, words
    aliases.finished    version, champion, previous
"""

from __future__ import annotations

from pathlib import Path

from components.artifacts import JSON
from components.home import home
from components.journal import Event, Journal, read
from components.registry.connection import file_stem
from components.store import full_disk_says_so


def ledger_file(model: str) -> Path:
    """Where a model's ledger is, or would be."""
    return home() / "ledgers" / f"{file_stem(model)}.jsonl"


def decided(model: str, **fields: object) -> Event:
    """Writes down a decision, durably, before anything is done about it."""
    return _write(model, "decision.finished", fields)


def done(model: str, **fields: object) -> Event:
    """Writes down that the aliases are as decided."""
    return _write(model, "aliases.finished", fields)


def _write(model: str, event: str, fields: dict[str, object]) -> Event:
    path = ledger_file(model)
    with full_disk_says_so(path.parent):
        return Journal(path).write(event, model=model, **fields)


def history(model: str) -> list[JSON]:
    """Every decision on a model, oldest first, each with `applied`: whether its aliases were set."""
    rows: list[JSON] = []
    for event in read(ledger_file(model)):
        if event["event"] == "decision.finished":
            rows.append({**{k: v for k, v in event.items() if k != "event"}, "applied": False})
        elif rows and rows[-1].get("version") == event.get("version"):
            rows[-1]["applied"] = True
    return rows


def last_decision(model: str, version: int) -> JSON | None:
    """The latest promotion decision on one version (a rollback is not one)."""
    found = [row for row in history(model) if row.get("version") == version and row.get("action") in ("promote", "keep")]
    return found[-1] if found else None
