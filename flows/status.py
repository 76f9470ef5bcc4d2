"""What is in the state folder, for people: runs, trials, versions, and what may be freed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

from components import journal
from components.artifacts import JSON, StoredFile
from components.errors import UnknownNameError, UsageError
from components.home import home
from components.store import Store, read_record
from flows.screen import clock
from flows.summary import note_of
from flows.table import STAGES

RUNS_KEPT = 10
ENDINGS = {"run.interrupted": "interrupted", "stage.failed": "failed"}  # of a run that can go on


def rows() -> list[JSON]:
    """One row a run, newest first: state (running, killed, interrupted, finished, failed, staged), stage, trials and best so far."""
    return [_row(folder) for folder in _folders()]


def _folders() -> list[Path]:
    """Folders of runs, newest first, without those that the stage door made for one stage and those whose note is damaged."""
    found = sorted((home() / "runs").glob("*"), reverse=True)
    return [folder for folder in found if note_of(folder).get("state", "door") != "door"]


def _row(folder: Path) -> JSON:
    note = note_of(folder)
    events = list(journal.read(folder / "journal.jsonl"))
    state = note["state"]
    if state == "running" and not _is_open(note["identity"]):
        state = ENDINGS.get(events[-1]["event"] if events else "", "killed")
    trials = [row for row in events if row["event"] == "trial.finished"]
    stages = [row["stage"] for row in events if row["event"].startswith("stage.")]
    return {
        "run": folder.name, "model": note["model"], "state": state, "stage": stages[-1] if stages else "", "trials": len(trials),
        "best": _best(events) if trials else None,
        "seconds": round(journal.Journal(folder / "journal.jsonl").seconds_spent(), 1), "why": note.get("why", ""),
    }  # fmt: skip


def _best(events: list[JSON]) -> float | None:
    """Of all rounds; of those that keep the constraints, if there is one."""
    from components.search.leader import Leader

    leader = Leader()
    for row in events:
        if row["event"] in ("search.opened", "trial.finished", "trial.rested"):
            leader.hear(row, int(row.get("round", 1)))
    return leader.trial.values.get(leader.objective) if leader.trial else None


def _is_open(identity: str) -> bool:
    path = home() / "locks" / f"run-{identity[:16]}.lock"
    try:
        with path.open("a+") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def table(found: list[JSON]) -> str:
    """The rows as text."""
    if not found:
        return "no runs yet; start one with: athanor run"
    lines = [f"{'run':<34} {'state':<12} {'stage':<9} {'trials':>6} {'best':>8} {'time':>8}"]
    for row in found:
        best = f"{row['best']:.4f}" if isinstance(row["best"], float) else ""
        line = (
            f"{row['run']:<34} {row['state']:<12} {row['stage']:<9} {row['trials']:>6} {best:>8} {clock(row['seconds']):>8}  {row['why']}"
        )
        lines.append(line.rstrip())
    return "\n".join(lines)


def run_folder(name: str | None) -> Path:
    """The folder of a run by name, else of the newest one. Raises `UsageError` when there is none."""
    folders = _folders()
    if not folders:
        raise UsageError("there are no runs yet; start one with: athanor run")
    if name is None:
        return folders[0]
    found = next((folder for folder in folders if folder.name == name), None)
    if found is None:
        raise UnknownNameError("run", name, [folder.name for folder in folders])
    return found


def records_of(folder: Path) -> dict[str, Any]:
    """The records of a run's stages, as far as they are still in the store."""
    found = {}
    for row in journal.read(folder / "journal.jsonl"):
        if row["event"] in ("stage.finished", "stage.cached"):
            artifact = Store(home()).folder(row["stage"], row["key"])
            if (artifact / "record.json").exists():
                found[row["stage"]] = read_record(artifact)
    return found


def leaderboard(model: str | None) -> tuple[JSON, str]:
    """Trials of the newest run's search (of one model, if named), also while it is at work or if it failed; failed ones
    with their reasons, best first."""
    from components.report.leaderboard import rows_of_run, text

    for folder in _folders():
        if model and note_of(folder)["model"] != model:
            continue
        ranked = rows_of_run(records_of(folder), journal.read(folder / "journal.jsonl"))
        if ranked:
            return {"run": folder.name, "trials": ranked}, f"run {folder.name}\n{text(ranked)}"
    raise UsageError(f"no finished search{f' for model {model!r}' if model else ''} yet; start one with: athanor run")


def compare(first: str, second: str) -> tuple[JSON, str]:
    """Two runs' choices and figures side by side."""
    from components.report.markdown import compare as side_by_side

    found = {name: records_of(run_folder(name)) for name in (first, second)}
    return side_by_side(found, first, second)


def clean() -> JSON:
    """Removes artifacts that no recent run, no model's last result and no champion refers to."""
    store = Store(home())
    kept = _keys_in_use()
    removed = size = 0
    for folder in store.folders():
        if folder.name not in kept:
            size += sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            shutil.rmtree(folder)
            removed += 1
    return {"removed": removed, "bytes": size}


def _keys_in_use() -> set[str]:
    keys = set()
    for folder in _folders()[:RUNS_KEPT]:
        keys |= {row["key"] for row in journal.read(folder / "journal.jsonl") if row["event"] in ("stage.finished", "stage.cached")}
    from components.store import KeyParts

    for file in (home() / "last").glob("*/*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):  # a damaged memory refers to nothing
            if file.stem in STAGES:
                keys.add(KeyParts(**json.loads(file.read_text())).key)
    return keys


def stored_files(value: Any) -> list[StoredFile]:
    """All files that a record refers to."""
    if isinstance(value, StoredFile):
        return [value]
    items = (
        value.values()
        if isinstance(value, dict)
        else value
        if isinstance(value, list | tuple)
        else vars(value).values()
        if hasattr(value, "__dict__")
        else ()
    )
    return [file for item in items for file in stored_files(item)]
