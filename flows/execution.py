"""The one way a stage is run: make its key, look it up, compute it once, publish it whole.

Prefect's tasks and the stage door both go through `run_stage`, so a stage is the same work under the same key wherever
it is called from.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

from components.artifacts import JSON, QualityReport
from components.errors import DataError
from components.store import KeyParts
from flows.keys import find, with_extent
from flows.parents import adopted
from flows.run import Outcome, Run
from flows.table import Stage, stage_named


def run_stage(name: str, inputs: tuple[Any, ...], section: JSON, run: Run, *, lineage: JSON | None = None) -> Outcome:
    """Finds a stage's result or computes and publishes it, once even if asked twice at the same time."""
    stage = stage_named(name)
    started = time.monotonic()
    section = adopted(section, run.folder, name)
    parts = run.key_parts(stage, inputs, section)
    flight = parts.key
    with run.store.single_flight(flight, lambda: run.journal.write("stage.waiting", stage=name, why="another process computes it")):
        known = find(stage, parts, section, run.budget_asked, run.store)
        record = run.store.lookup(known) if known else None
        if record is not None:
            run.remember(stage, known or parts)
            run.journal.write("stage.cached", stage=name, key=(known or parts).key, seconds=round(time.monotonic() - started, 3))
            return run.note(stage, Outcome(record, "cached", time.monotonic() - started))
        why = run.why(stage, parts, section)
        run.journal.write("stage.started", stage=name, why=list(why))
        record, parts = _compute(stage, inputs, section, run, parts, lineage)
        run.remember(stage, parts)
    seconds = time.monotonic() - started
    run.journal.write("stage.finished", stage=name, key=parts.key, seconds=round(seconds, 3))
    return run.note(stage, Outcome(record, "ran", seconds, tuple(why)))


def _compute(stage: Stage, inputs: tuple[Any, ...], section: JSON, run: Run, parts: KeyParts, lineage: JSON | None) -> tuple[Any, KeyParts]:
    asked = with_extent(stage, parts, section, run.budget_asked)
    scratch = run.study_folder(parts.key) if stage.name == "search" else run.store.scratch(asked.key)
    extra = {"lineage": lineage} if stage.name == "register" else {}
    try:
        with run.store.workspace() as out:
            work = {"out": out, "seed": run.seed, "scratch": scratch, "seconds": run.allot(stage)}
            record = run.execute(stage, inputs, section, work, extra)
            complete = not stage.elastic or (stage.name != "search" and not getattr(record, "truncated", False))
            filed = parts if complete else asked
            run.journal.write("stage.publishing", stage=stage.name, key=filed.key)
            return run.store.publish(filed, record, out), filed
    except Exception as error:
        run.journal.write("stage.failed", stage=stage.name, kind=type(error).__name__, why=str(error))
        raise
    finally:
        if (out_of := run.store.home / "scratch" / asked.key).exists() and run.store.has(parts):
            shutil.rmtree(out_of, ignore_errors=True)


def require_fit(report: QualityReport) -> QualityReport:
    """The report itself if it passed. Raises `DataError` with the failing rows otherwise."""
    if not report.passed:
        failing = "; ".join(f"{row.name}: {row.reason}" for row in report.rows if row.status == "fail")
        raise DataError(f"the data is not fit for training: {failing}")
    return report
