"""The verb `promote`: gates decide whether the challenger becomes champion; aliases, ledger and pointer follow.

    gates ─▶ ledger (decided) ─▶ aliases previous, champion ─▶ pointer ─▶ ledger (done)

One operation on a model at a time, under a lock; the champion is read inside it and once more before it is replaced,
because MLflow itself lets the last writer win. After a kill the same call goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from components.artifacts import JSON, Decision, GateResult, ModelVersion
from components.build import build
from components.errors import TryAgainError, UnknownNameError, UsageError
from components.registry import champions, ledger, versions
from components.registry.connection import connect, registry_lock, told_in_one_line
from components.registry.contender import Contender, challenger_of, champion_of
from components.registry.interface import Gate
from components.registry.versions import Standing
from components.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient


def promote(version: ModelVersion, config: JSON, work: Workspace) -> Decision:
    """The decision on one version. `config` holds `gate` (by name, buildable) and optionally `force` (a hand promotes).

    Raises `UsageError` for an object that is no gate, `TryAgainError` when the registry is locked or was changed by
    another in the meantime."""
    gates = _gates(config.get("gate") or {})
    client, name = connect(), version.name
    version = _at_hand(version)
    with registry_lock(name, lambda: work.emit("waiting", reason=f"another process is promoting {name}")), told_in_one_line():
        now = versions.asked_standing(client, name)
        if now.champion == version.version:
            return _settled(client, version, now)
        results = _judge(version, now, gates, work)
        decision = _decide(version, now, results, forced=bool(config.get("force")))
        _carry_out(client, version, now, decision)
    work.emit("decided", model=name, version=version.version, promoted=decision.promoted, words=decision.words)
    return decision


def _gates(config: Mapping[str, Any]) -> dict[str, Gate]:
    gates = {name: build(node) for name, node in config.items() if node is not None}
    for name, gate in gates.items():
        if not isinstance(gate, Gate):
            raise UsageError(f"gate {name!r} is a {type(gate).__name__}, which has no judge(challenger, champion)")
    return gates


def _at_hand(version: ModelVersion) -> ModelVersion:
    """The version itself, or as MLflow has it when the run's own files are gone."""
    report = version.report
    here = all(file.path.exists() for file in (version.file, report.predictions, report.targets))
    return version if here else versions.load(version.name, version.version)


# ---- deciding -------------------------------------------------------------------------------------------------


def _judge(version: ModelVersion, now: Standing, gates: Mapping[str, Gate], work: Workspace) -> tuple[GateResult, ...]:
    challenger = challenger_of(version)
    champion = champion_of(versions.load(version.name, now.champion), challenger) if now.champion else None
    results = [_finite(challenger)] if not _is_finite(challenger) else []
    for name, gate in gates.items():
        result = gate.judge(challenger, champion).replace(name=name)
        work.emit("gate", name=name, passed=result.passed, words=result.words)
        results.append(result)
    return tuple(results)


def _is_finite(challenger: Contender) -> bool:
    return bool(np.isfinite(challenger.outputs).all())


def _finite(challenger: Contender) -> GateResult:
    count = int((~np.isfinite(challenger.outputs)).any(axis=tuple(range(1, challenger.outputs.ndim))).sum())
    words = f"{count} of {len(challenger.outputs)} test rows have an answer that is not a finite number"
    return GateResult(name="finite", passed=False, rule="every answer must be a finite number", words=words, figures={"rows": count})


def _decide(version: ModelVersion, now: Standing, results: tuple[GateResult, ...], *, forced: bool) -> Decision:
    refusing = [result for result in results if not result.passed]
    promoted = forced or not refusing
    return Decision(
        model=version.name,
        version=version.version,
        promoted=promoted,
        gates=results,
        champion=version.version if promoted else now.champion,
        previous=now.champion if promoted else now.previous,
        words=_in_words(version, now, results, refusing, forced),
        metrics=version.report.test,
        run_id=version.run_id,
    )


def _in_words(version: ModelVersion, now: Standing, results: tuple[GateResult, ...], refusing: list[GateResult], forced: bool) -> str:
    if not refusing:
        why = "; ".join(result.words for result in results) or ("by hand" if forced else "no gate is configured")
        return f"version {version.version} of {version.name} is champion: {why}"
    why = "; ".join(result.words for result in refusing)
    if forced:
        return f"version {version.version} of {version.name} is champion by force, against: {why}"
    kept = f"version {now.champion} stays champion" if now.champion else "there is still no champion"
    return f"version {version.version} of {version.name} was refused, {kept}: {why}"


# ---- carrying out ---------------------------------------------------------------------------------------------


def _carry_out(client: MlflowClient, version: ModelVersion, now: Standing, decision: Decision) -> None:
    after = Standing(champion=decision.champion, previous=decision.previous)
    action = "promote" if decision.promoted else "keep"
    ledger.decided(
        version.name, action=action, version=version.version, before=now.champion, after=after.champion, decision=decision.to_json()
    )
    _tag_gates(client, decision)
    if decision.promoted:
        _move_aliases(client, version.name, now, after)
        _drop_challenger(client, version, now)
        champions.point_at(version)
    elif now.challenger != version.version:
        client.set_registered_model_alias(version.name, "challenger", str(version.version))
    ledger.done(version.name, version=version.version, champion=after.champion, previous=after.previous)


def _move_aliases(client: MlflowClient, model: str, expected: Standing, after: Standing) -> None:
    """Compare and set: `previous` first, so that a kill in between never loses the champion."""
    found = versions.asked_standing(client, model).champion
    if found != expected.champion:
        raise TryAgainError(f"the champion of {model!r} became version {found} while this was decided; run the same command again")
    if after.previous:
        client.set_registered_model_alias(model, "previous", str(after.previous))
    client.set_registered_model_alias(model, "champion", str(after.champion))


def _drop_challenger(client: MlflowClient, version: ModelVersion, now: Standing) -> None:
    if now.challenger == version.version:
        client.delete_registered_model_alias(version.name, "challenger")


def _tag_gates(client: MlflowClient, decision: Decision) -> None:
    rows = {f"athanor.gate.{gate.name}": f"{'passed' if gate.passed else 'refused'}: {gate.words}" for gate in decision.gates}
    rows["athanor.decision"] = decision.words
    for name, text in rows.items():
        client.set_model_version_tag(decision.model, str(decision.version), name, text)


def _settled(client: MlflowClient, version: ModelVersion, now: Standing) -> Decision:
    """The decision that made this version champion, with whatever a kill left undone."""
    row = ledger.last_decision(version.name, version.version)
    _drop_challenger(client, version, now)
    champions.point_at(version)
    if row is None or row["action"] != "promote":
        words = f"version {version.version} of {version.name} is champion already"
        return Decision(
            model=version.name, version=version.version, promoted=True, gates=(), champion=now.champion, previous=now.previous,
            words=words, metrics=version.report.test, run_id=version.run_id,
        )  # fmt: skip
    if not row["applied"]:
        ledger.done(version.name, version=version.version, champion=now.champion, previous=now.previous)
    return Decision.from_json(row["decision"])


# ---- by hand --------------------------------------------------------------------------------------------------


def rollback(model: str, to: int | None = None) -> Decision:
    """Makes the previous champion (or version `to`) champion again; the one it replaces becomes previous.

    Raises `UsageError` when there is no champion, no previous one or no such version."""
    client = connect()
    with registry_lock(model), told_in_one_line():
        now = versions.asked_standing(client, model)
        target = versions.load(model, _rollback_target(model, now, to))
        after = Standing(champion=target.version, previous=now.champion)
        words = f"rolled back from version {now.champion} to version {target.version}"
        decision = Decision(
            model=model, version=target.version, promoted=True, gates=(), champion=after.champion, previous=after.previous,
            words=words, metrics=target.report.test, run_id=target.run_id,
        )  # fmt: skip
        ledger.decided(
            model, action="rollback", version=target.version, before=now.champion, after=target.version, decision=decision.to_json()
        )
        _move_aliases(client, model, now, after)
        client.set_model_version_tag(model, str(target.version), "athanor.decision", words)
        champions.point_at(target)
        ledger.done(model, version=target.version, champion=after.champion, previous=after.previous)
    return decision


def _rollback_target(model: str, now: Standing, to: int | None) -> int:
    if not now.champion:
        known = versions.registered_models()
        if model not in known:
            raise UnknownNameError("model", model, known)
        numbers = versions.registered_versions(model)
        raise UsageError(f"model {model!r} has no champion to roll back from; its versions are {', '.join(map(str, numbers)) or 'none'}")
    target = to if to is not None else now.previous
    if not target:
        raise UsageError(f"model {model!r} has no previous champion: version {now.champion} is the first; name one with version=N")
    if target == now.champion:
        raise UsageError(f"version {target} of {model!r} is champion already; name another with version=N")
    return target
