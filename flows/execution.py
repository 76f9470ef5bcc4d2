"""The one way a stage is run: make its key, look it up, compute it once, publish it whole.

Prefect's tasks and the stage door both go through `run_stage`, so a stage is the same work under the same key wherever
it is called from.
"""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.artifacts import JSON, QualityReport, digest_of
from components.build import expose_plugins
from components.errors import DataError
from components.fingerprint import NUMERIC, SourceCache, closure, cpu, targets, versions
from components.models.parent import Parent
from components.store import KeyParts, Store
from components.workspace import Workspace
from flows.parents import adopted
from flows.table import Stage, drop, pick, stage_named

if TYPE_CHECKING:
    from flows.run import Run


@dataclass(frozen=True)
class Outcome:
    """A stage's record, whether it `ran` or was `cached`, in how many seconds, and why it ran."""

    record: Any
    state: str
    seconds: float
    why: tuple[str, ...] = ()


def key_parts(
    stage: Stage, inputs: tuple[Any, ...] | None, section: JSON, seed: int, cache: SourceCache, packages: tuple[str, ...] = ()
) -> KeyParts:
    """The parts of a stage's key without its extent; `inputs=None` where they are not known yet. A parent in the section is its record."""
    decided = _decided(stage, section)
    code, libraries = closure([stage.module, *targets(section)], cache, ("components", *packages))
    return KeyParts(
        stage=stage.name,
        inputs={} if inputs is None else _input_identities(stage, inputs, section),
        config=decided,
        code=code,
        libraries=versions(libraries),
        seed=seed if stage.seeded else 0,
        cpu=cpu() if libraries & NUMERIC else "",
    )


def _decided(stage: Stage, section: JSON) -> JSON:
    if stage.name == "version":
        from components.data.sources import key_config

        return key_config(section)
    decided = drop(section, (*stage.ignores, *stage.extent))
    if decided.get("parent"):
        decided["parent"] = Parent.from_json(decided["parent"]).identity
    if decided.get("joining"):
        decided["joining"] = [Parent.from_json(record).identity for record in decided["joining"]]
    return decided


def _input_identities(stage: Stage, inputs: tuple[Any, ...], section: JSON) -> dict[str, str]:
    if stage.name == "version":
        from components.data.sources import source_digests

        return source_digests(section)
    return {f"{i}:{_kind(value)}": _identity(value) for i, value in enumerate(inputs)}


def _kind(value: Any) -> str:
    return _kind(value[0]) + "s" if isinstance(value, tuple) and value else type(value).__name__


def _identity(value: Any) -> str:
    return digest_of([_identity(item) for item in value]) if isinstance(value, tuple) else str(value.identity)


def with_extent(stage: Stage, parts: KeyParts, section: JSON, budget: float | None) -> KeyParts:
    """The key of a result that a trial count or the clock ended."""
    asked = {**pick(section, stage.extent), "budget": budget}
    return KeyParts(**{**parts.to_json(), "extent": asked})


def find(stage: Stage, parts: KeyParts, section: JSON, budget: float | None, store: Store) -> KeyParts | None:
    """The key under which an intact result lies (by size, mtime and inode), if there is one: a complete one first."""
    tries = [parts, with_extent(stage, parts, section, budget)] if stage.elastic else [parts]
    return next((found for found in tries if store.has(found)), None)


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


def call_verb(verb: str, inputs: tuple[Any, ...], section: JSON, work: JSON, extra: JSON, *, emit: Callable[..., Any]) -> Any:
    """Imports a stage's verb and calls it: what a worker process is asked to do."""
    expose_plugins(section.get("plugins", ()))
    return load_verb(verb)(*inputs, section, Workspace(**work, emit=emit), **extra)


def load_verb(verb: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, _, function = verb.partition(":")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


def require_fit(report: QualityReport) -> QualityReport:
    """The report itself if it passed. Raises `DataError` with the failing rows otherwise."""
    if not report.passed:
        failing = "; ".join(f"{row.name}: {row.reason}" for row in report.rows if row.status == "fail")
        raise DataError(f"the data is not fit for training: {failing}")
    return report
