"""What a run would do, found out without doing it and without torch, Prefect or MLflow: the keys are computed, the
store is asked, and a miss says which part of its key changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts import JSON
from components.fingerprint import ROOT, SourceCache
from components.home import home
from components.store import KeyParts, Store, read_record
from flows.config import Config
from flows.keys import find, key_parts
from flows.parents import adopted, members_of
from flows.run import Timings, changed_parts, last_parts, unfinished, why_it_runs
from flows.table import STAGES, Stage, arguments


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
    section = _section(stage, config)
    parts = _parts(stage, arguments(stage, records), section, config, sources)
    found = find(stage, parts, section, config.budget, store)
    if found:
        return Step(stage.name, "cached", (), None, read_record(store.folder(stage.name, found.key)))
    why = why_it_runs(stage, last_parts(config.model, stage.name), parts, section, config.budget)
    return Step(stage.name, "run", tuple(why), None)


def _follower(stage: Stage, config: Config, sources: SourceCache, missing: list[str]) -> Step:
    last = last_parts(config.model, stage.name)
    parts = _parts(stage, None, _section(stage, config), config, sources)
    parts = KeyParts(**{**parts.to_json(), "inputs": last["inputs"] if last else {}})
    why = changed_parts(last, parts)
    after = f"after {', '.join(missing)}"
    return Step(stage.name, "run" if why else "follows", (*why, after), None)


def _section(stage: Stage, config: Config) -> JSON:
    section = config.section(stage.reads)
    looks_up = section.get("parent") or members_of(section)
    return adopted(section, unfinished(config) if looks_up else None, stage.name)


def _parts(stage: Stage, inputs: tuple[Any, ...] | None, section: JSON, config: Config, sources: SourceCache) -> KeyParts:
    return key_parts(stage, inputs, section, int(config.values["seed"]), sources, tuple(config.values["plugins"]))


def is_done(steps: list[Step]) -> bool:
    """Whether there is nothing to do."""
    return all(step.state == "cached" for step in steps)


def records(steps: list[Step]) -> dict[str, Any]:
    """The records of the cached steps, by stage."""
    return {step.stage: step.record for step in steps if step.record is not None}
