"""What a registered model came from: the facts stored with it, its tags in the registry, and the walk back to the data.

The facts are a plain dict that the caller of `register` knows and a report does not: `run` (Athanor run id), `seed`,
`config` (the composed configuration), `code` (a digest, or digests by file), `git` (revision), `libraries` (versions),
`stages` (by stage: key and identity), `parent` (the model that training began from, as `parent_of` tells it), `joining`
(those that a user put into a soup), `models` (what `models_of` tells of those that were trained or fused). All are
optional; other entries are kept as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from components.artifacts import JSON, Estimate, EvaluationReport, ModelVersion, TrainedModel, canonical_json, digest_of
from components.fingerprint import versions
from components.models.parent import Parent

LONGEST_TAG = 20_000
"""Characters; MLflow takes 100,000, its pages become slow before. The whole text is in the version's lineage.json."""


def complete(given: JSON | None, report: EvaluationReport) -> JSON:
    """The given facts with what the report knows added: data, model and its parents, library versions."""
    best = report.best.model
    known = {
        "dataset": {"name": report.dataset.name, "digest": report.dataset.digest, "splits": report.dataset.splits},
        "report": report.identity,
        "deployable": {"name": best.name, "sha256": best.file.sha256, "precision": best.precision, "opset": best.opset},
        "trained": {"identity": best.model, "role": best.role, "parents": list(best.parents)},
        "libraries": versions(["torch", "lightning", "onnx", "onnxruntime", "optuna", "mlflow", "sklearn", "numpy"]),
    }
    return {**known, **(given or {})}


def tags(report: EvaluationReport, facts: JSON) -> dict[str, str]:
    """Tags of the model version: everything that was decided, so that the registry alone can tell where it came from."""
    config = facts.get("config") or {}
    rows: dict[str, Any] = {
        "key": report.identity,
        "dataset": report.dataset.name,
        "dataset_digest": report.dataset.digest,
        "config": canonical_json(config)[:LONGEST_TAG],
        "config_digest": digest_of(config),
        "code_digest": _digest(facts.get("code")),
        "git": _text(facts.get("git")),
        "seed": _text(facts.get("seed")),
        "objective": report.objective,
        "deployable": report.chosen,
        "model_digest": report.best.model.file.sha256,
        "size_kb": f"{report.best.size_kb:.1f}",
    }
    rows |= {f"test.{name}": in_words(estimate) for name, estimate in report.test.items()}
    return {f"athanor.{name}": str(value) for name, value in rows.items()}


def observed_tags(report: EvaluationReport, facts: JSON) -> dict[str, str]:
    """Tags that were measured or say when: shown in the registry, no part of a version's identity."""
    return {
        "athanor.run": _text(facts.get("run")),
        "athanor.latency_ms": f"{report.best.latency_ms:.3f}",
        "athanor.choice": report.choice,
    }


def is_decided(tag: str) -> bool:
    """Whether a tag belongs to a version's identity (gate results and measurements do not)."""
    observed = ("athanor.run", "athanor.latency_ms", "athanor.choice", "athanor.decision")
    return tag.startswith("athanor.") and tag not in observed and not tag.startswith("athanor.gate.")


def models_of(records: Iterable[TrainedModel]) -> list[JSON]:
    """A row for each network, and for each that it is made of: identity, role, weights and parents."""
    rows: dict[str, JSON] = {}
    for model in records:
        row = {"identity": model.identity, "role": model.role, "weights": model.weights.sha256, "parents": list(model.parents)}
        rows[model.identity] = {**row, "shares": {member["model"]: member["share"] for member in model.members if "share" in member}}
        for member in model.members:
            told = {"identity": member["model"], "role": member["role"], "weights": member["weights"], "parents": member.get("parents", [])}
            rows.setdefault(member["model"], told)
    return list(rows.values())


def parent_of(parent: Parent, role: str = "parent") -> JSON:
    """A model that training began from, or that joined a soup: its row among the networks, its data, and where it was found."""
    where = parent.origin
    came = f"run {where['run']}" if "run" in where else "a file"
    came = f"version {where['version']} of {where['model']}" if "version" in where else came
    row = {"identity": parent.model.identity, "role": f"{role} ({came})", "weights": parent.model.weights.sha256, "parents": []}
    return {**row, "data": parent.dataset.name, "dataset": parent.dataset.digest, **where}


def ancestors(identity: str, facts: JSON) -> list[JSON]:
    """The networks that one came from, nearest first, each once; of those that the facts do not know, the identity alone."""
    rows = [*(facts.get("models") or ()), *([facts["parent"]] if facts.get("parent") else []), *(facts.get("joining") or ())]
    known = {row["identity"]: row for row in rows}
    found: dict[str, JSON] = {}
    waiting = [identity]
    for name in waiting:
        row = known.get(name, {})
        for parent in row.get("parents", ()):
            if parent not in found and parent != identity:
                share = row.get("shares", {}).get(parent)
                found[parent] = {"role": "parent", "identity": parent, **known.get(parent, {}), **({"share": share} if share else {})}
                waiting.append(parent)
    return list(found.values())


def in_words(estimate: Estimate) -> str:
    """A figure with its interval: `0.9917 [0.9806, 1.0000]`."""
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def walk(version: ModelVersion) -> list[JSON]:
    """From the registered version back to the data: one row a record, with its digest and what it came from."""
    best, facts = version.report.best, version.lineage
    rows = [
        _row("ModelVersion", f"{version.name} version {version.version}", version.file.sha256, run=facts.get("run"), git=facts.get("git")),
        _row("EvaluationReport", f"{version.report.objective} on {version.report.dataset.name}", version.tags.get("athanor.key", "")),
        _row("ExportedModel", best.model.name, best.model.file.sha256, precision=best.model.precision, opset=best.model.opset),
        _row("TrainedModel", best.model.role, best.model.model, seed=facts.get("seed")),
    ]
    rows += [_row("ExportedModel", "before quantisation", origin) for origin in best.model.parents]
    rows += [
        _row("TrainedModel", row["role"], row["identity"], share=row.get("share"), weights=row.get("weights"))
        for row in ancestors(best.model.model, facts)
    ]
    rows += [
        _row("Configuration", "composed", digest_of(facts.get("config") or {})),
        _row("Code", "sources that ran", _digest(facts.get("code"))),
        _row("DatasetVersion", version.report.dataset.name, version.report.dataset.digest, splits=version.report.dataset.splits),
    ]
    return rows


def in_brief(report: EvaluationReport, facts: JSON) -> str:
    """The walk as a Markdown list, from data to version."""
    best, steps = report.best.model, []
    steps.append(f"data `{report.dataset.name}`, digest `{report.dataset.digest[:12]}`")
    steps += [f"code at git `{facts['git']}`"] if facts.get("git") else []
    steps += [f"run `{facts['run']}`, seed {facts.get('seed')}"] if facts.get("run") else []
    steps += [f"{row['role']} network `{row['identity'][:12]}`" for row in reversed(ancestors(best.model, facts))]
    steps.append(f"{best.role} network `{best.model[:12]}`")
    steps.append(f"graph `{best.name}`, sha256 `{best.file.sha256[:12]}`")
    steps.append(f"evaluation `{report.identity[:12]}`")
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def _row(kind: str, name: str, digest: str, **details: Any) -> JSON:
    return {"kind": kind, "name": name, "digest": digest, **{key: value for key, value in details.items() if value not in (None, "")}}


def _digest(value: Any) -> str:
    return value if isinstance(value, str) else digest_of(value) if value else ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical_json(value)
