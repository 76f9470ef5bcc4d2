"""What a run would do, found out without doing it and without torch, Prefect or MLflow: the keys are computed, the
store is asked, and a miss says which part of its key changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts import JSON
from components.fingerprint import ROOT, SourceCache
from components.home import home
from components.store import KeyParts, Store, explain, read_record
from flows.config import Config
from flows.execution import find, key_parts, with_extent
from flows.run import Timings
from flows.table import STAGES, Stage, arguments, drop


@dataclass(frozen=True)
class Step:
    """One stage of a plan: `cached`, `run` (a part of its own key changed) or `follows` (only its inputs may change)."""

    stage: str
    state: str
    why: tuple[str, ...]
    seconds: float | None
    record: Any = None


def make(config: Config, root: Path = ROOT) -> list[Step]:
    """A step for each stage, in order. `root` is the folder whose `components` would run."""
    store, sources, timings = Store(home()), SourceCache(home() / "code.json", root), Timings(home() / "timings.json")
    records: dict[str, Any] = {}
    steps: list[Step] = []
    for stage in STAGES.values():
        missing = [name for name in stage.takes if name not in records]
        step = _follower(stage, config, sources, missing) if missing else _own(stage, config, store, sources, records)
        if step.state == "cached":
            records[stage.name] = step.record
        steps.append(Step(step.stage, step.state, step.why, timings.seconds(config.model, stage.name), step.record))
    if home().is_dir():
        sources.save()
    return steps


def _own(stage: Stage, config: Config, store: Store, sources: SourceCache, records: dict[str, Any]) -> Step:
    section = config.section(stage.reads)
    parts = _parts(stage, arguments(stage, records), section, config, sources)
    found = find(stage, parts, section, config.budget, store)
    if found:
        return Step(stage.name, "cached", (), None, read_record(store.folder(stage.name, found.key)))
    last = _last(stage, config)
    why = _changes(stage, last, parts)
    if last and not why and stage.elastic:
        why = explain(last, with_extent(stage, parts, section, config.budget))
    return Step(stage.name, "run", tuple(why or ["its result is missing or damaged"]), None)


def _follower(stage: Stage, config: Config, sources: SourceCache, missing: list[str]) -> Step:
    last = _last(stage, config)
    parts = _parts(stage, None, config.section(stage.reads), config, sources)
    parts = KeyParts(**{**parts.to_json(), "inputs": last["inputs"] if last else {}})
    why = _changes(stage, last, parts)
    after = f"after {', '.join(missing)}"
    return Step(stage.name, "run" if why else "follows", (*why, after), None)


def _parts(stage: Stage, inputs: tuple[Any, ...] | None, section: JSON, config: Config, sources: SourceCache) -> KeyParts:
    return key_parts(stage, inputs, section, int(config.values["seed"]), sources, tuple(config.values["plugins"]))


def _changes(stage: Stage, last: JSON | None, parts: KeyParts) -> list[str]:
    if last is None:
        return ["never ran for this model"]
    return explain(drop(last, ("extent",)), KeyParts(**drop(parts.to_json(), ("extent",))))


def _last(stage: Stage, config: Config) -> JSON | None:
    try:
        return dict(json.loads((home() / "last" / config.model / f"{stage.name}.json").read_text()))
    except (OSError, ValueError):
        return None


def is_done(steps: list[Step]) -> bool:
    """Whether there is nothing to do."""
    return all(step.state == "cached" for step in steps)


def records(steps: list[Step]) -> dict[str, Any]:
    """The records of the cached steps, by stage."""
    return {step.stage: step.record for step in steps if step.record is not None}
