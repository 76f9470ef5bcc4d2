"""What a registered model came from: the facts stored with it, its tags in the registry, and the walk back to the data.

The facts are a plain dict that the caller of `register` knows and a report does not: `run` (Athanor run id), `seed`,
`config` (the composed configuration), `code` (a digest, or digests by file), `git` (revision), `libraries` (versions),
`stages` (by stage: key and identity). All are optional; other entries are kept as they are.
"""

from __future__ import annotations

from typing import Any

from components.artifacts import JSON, Estimate, EvaluationReport, ModelVersion, canonical_json, digest_of
from components.fingerprint import versions

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
    rows += [_row("TrainedModel", "parent", identity) for identity in best.model.parents if identity != best.model.model]
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
    steps += [f"network `{identity[:12]}`" for identity in best.parents if identity != best.model]
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
