"""The last screen of a run: what is champion, how good it is, what the gates said, where things are, what to type next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.artifacts import JSON, Decision, Estimate, EvaluationReport
from components.home import home


def document(*, run: str, model: str, decision: Decision, report: EvaluationReport, seconds: float, stages: JSON) -> JSON:
    """What `athanor run --json` prints: run, model, version, promoted, metrics, deployable, seconds, stages."""
    best = report.best
    return {
        "run": run,
        "model": decision.model or model,
        "version": decision.version,
        "promoted": decision.promoted,
        "champion": decision.champion,
        "metrics": {name: value.to_json() for name, value in report.test.items()},
        "deployable": {
            "name": best.model.name, "path": str(best.model.file.path),
            "size_kb": round(best.size_kb, 1), "latency_ms": round(best.latency_ms, 4),
        },
        "gates": [gate.to_json() for gate in decision.gates],
        "seconds": round(seconds, 2),
        "stages": stages,
        "report": str(home() / "runs" / run / "report.html"),
    }  # fmt: skip


def text(found: JSON, objective: str, *, nothing_to_do: bool = False) -> str:
    """The document as lines for a person."""
    best, champion = found["deployable"], found["champion"]
    verdict = (
        "is champion"
        if found["promoted"] or champion == found["version"]
        else f"stays challenger; version {champion} is champion"
        if champion
        else "was not promoted"
    )
    rows = [
        f"{found['model']} version {found['version']} {verdict}",
        f"  test {objective:<12} {estimate(found['metrics'].get(objective))}",
        f"  deployable        {best['name']}: {best['size_kb']:.0f} KiB, p50 {best['latency_ms']:.3f} ms at batch 1 on ONNX Runtime",
        *(f"  gate {gate['name']:<12} {'pass' if gate['passed'] else 'stop'}: {gate['words']}" for gate in found["gates"]),
        f"  run               {home_relative(home() / 'runs' / found['run'])}",
        f"  report            {home_relative(Path(found['report']))}",
        f"  model             {home_relative(Path(best['path']))}",
        f"  time              {found['seconds']:.1f} s",
        "next:",
        f"  athanor predict FILE model={found['model']}      athanor report      athanor leaderboard      athanor ui",
    ]
    if nothing_to_do:
        rows.insert(
            0, f"nothing to do: data, configuration, code, library versions and seed are as they were for all {len(found['stages'])} stages"
        )
    return "\n".join(rows)


def estimate(value: JSON | Estimate | None) -> str:
    """A value with its interval: `0.9917 [0.981, 1.000]`."""
    if value is None:
        return "not measured"
    row = value.to_json() if isinstance(value, Estimate) else value
    return f"{row['value']:.4f} (95 % interval {row['low']:.4f} to {row['high']:.4f})"


def home_relative(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def last_run_of(identity: str, model: str) -> str:
    """The id of the newest finished run with this configuration, else of this model; empty if there is none."""
    fallback = ""
    for folder in sorted((home() / "runs").glob("*"), reverse=True):
        note: dict[str, Any] = note_of(folder)
        if note.get("identity") == identity and note.get("state") == "finished":
            return folder.name
        if not fallback and note.get("model") == model and note.get("state") == "finished":
            fallback = folder.name
    return fallback


def is_unfinished(identity: str) -> bool:
    """Whether a run with this configuration was killed before it could report: its results may be there, its end is not."""
    notes = (note_of(folder) for folder in (home() / "runs").glob("*"))
    return any(note.get("identity") == identity and note.get("state") == "running" for note in notes)


def note_of(folder: Path) -> dict[str, Any]:
    """What a run's folder says of it (model, state and identity at least); empty if the note is missing or damaged."""
    try:
        found = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    whole = isinstance(found, dict) and all(isinstance(found.get(key), str) for key in ("model", "state", "identity"))
    return found if whole else {}
