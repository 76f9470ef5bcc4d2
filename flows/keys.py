"""A stage's key: what its result depends on, and under which keys one may lie in the store."""

from __future__ import annotations

from typing import Any

from components.artifacts import JSON, digest_of
from components.fingerprint import NUMERIC, SourceCache, closure, cpu, targets, versions
from components.models.parent import Parent
from components.store import KeyParts, Store
from flows.table import Stage, drop, pick


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
