"""What a run found, in words and plain rows: said once, shown by the page, the Markdown summary and the terminal.

`run` is {id, model, started, finished, state, seconds, budget, stages: {name: {state, seconds, key, why}}, git, versions}
and may hold `overrides` (what the user typed), `reason` (why it stopped) and `next` (commands to type next); `complete`
adds what only the journal's events tell. `records` maps a verb to its record (`export` and `quantize` to tuples); any
may be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.artifacts import (
    DatasetVersion,
    Decision,
    Deployable,
    Estimate,
    EvaluationReport,
    ModelVersion,
    SearchResult,
    TrainedModel,
)
from components.report import words

STAGES = (
    "version", "validate", "augment", "search", "train", "fuse", "distill", "export", "quantize", "evaluate", "register", "promote",
)  # fmt: skip
ORDER = ("accuracy", "auc", "f1", "precision", "recall", "log_loss", "rmse", "mae", "r2")
REASONS = 3  # of a stage's run that are told at once
Records = Mapping[str, Any]
Run = Mapping[str, Any]


def complete(run: Run, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The run with every key present: what it does not hold itself (keys of stages, the stage that failed and why) from its events."""
    told = {"id": "", "model": "", "started": None, "finished": None, "state": "", "seconds": None, "budget": None, "reason": "", **run}
    stages = {name: dict(stage) for name, stage in (run.get("stages") or {}).items()}
    for event in events:
        kind, name = str(event.get("event", "")), event.get("stage")
        if kind in ("stage.finished", "stage.cached") and name in stages and event.get("key"):
            stages[name]["key"] = event["key"]
        elif kind == "stage.started" and name not in stages:
            stages[str(name)] = {"state": "running", "why": event.get("why"), "begun": event.get("time")}
        elif kind == "stage.failed" and stages.get(name, {}).get("state") in ("running", None):
            begun = stages.get(name, {}).get("begun") or event.get("time") or 0.0
            stages[str(name)] = {"state": "failed", "why": event.get("why"), "seconds": (event.get("time") or 0.0) - begun}
        elif kind == "run.failed":
            told["reason"] = told["reason"] or event.get("why") or ""
    return {**told, "stages": stages}


@dataclass(frozen=True)
class Verdict:
    """How the run ended: `tone` is good, calm, warn or bad."""

    tone: str
    headline: str
    words: str


def verdict(run: Run, records: Records) -> Verdict:
    """The first thing to say of a run."""
    decision, report = decision_of(records), evaluation_of(records)
    if has_failed(run):
        return Verdict(
            "bad",
            f"Stopped at {failed_stage(run) or 'an early step'}",
            words.sentence(str(run.get("reason") or "the journal holds the reason")),
        )
    if decision is not None:
        return _decided(decision)
    if report is not None:
        return Verdict(
            "warn", f"Best so far: {report.chosen}", "The run has not promoted a model yet; the same command goes on where it was."
        )
    return Verdict("warn", "Not finished", f"{progress(run)} The same command goes on where it was.")


def _decided(decision: Decision) -> Verdict:
    said = words.sentence(decision.words)
    if decision.promoted:
        return Verdict("good", f"{decision.model} {decision.version} is the champion", said)
    if decision.champion:
        return Verdict("calm", f"{decision.model} {decision.champion} stays the champion", said)
    return Verdict("warn", f"{decision.model} {decision.version} was not promoted", said)


def has_failed(run: Run) -> bool:
    return str(run.get("state", "")).lower() in ("failed", "crashed", "error")


def failed_stage(run: Run) -> str:
    """The stage that failed, or the one that was at work when the run ended."""
    stages = run.get("stages") or {}
    for wanted in ("failed", "running"):
        for name, stage in stages.items():
            if stage.get("state") == wanted:
                return str(name)
    return ""


def progress(run: Run) -> str:
    """How many stages are done."""
    stages = run.get("stages") or {}
    done = [name for name, stage in stages.items() if stage.get("state") in ("ran", "cached")]
    return f"{len(done)} of {len(STAGES)} stages are done." if done else "No stage is done."


# ---- records by what they are ---------------------------------------------------------------------------------


def dataset_of(records: Records) -> DatasetVersion | None:
    report = records.get("evaluate")
    return records.get("version") or (report.dataset if report is not None else None)


def search_of(records: Records) -> SearchResult | None:
    return records.get("search")


def evaluation_of(records: Records) -> EvaluationReport | None:
    version = records.get("register")
    return records.get("evaluate") or (version.report if version is not None else None)


def version_of(records: Records) -> ModelVersion | None:
    return records.get("register")


def decision_of(records: Records) -> Decision | None:
    return records.get("promote")


def networks(records: Records) -> list[TrainedModel]:
    """The trained networks, each once: with `fusion=none` and `distillation=none` all are the teacher."""
    found: dict[str, TrainedModel] = {}
    for verb in ("train", "fuse", "distill"):
        model = records.get(verb)
        if model is not None:
            found.setdefault(model.identity, model)
    return list(found.values())


def metric_order(names: Iterable[str], objective: str = "") -> list[str]:
    """Metrics in a fixed order, the objective first."""
    known = {name: i for i, name in enumerate(ORDER)}
    return sorted(names, key=lambda name: (name != objective, known.get(name, len(known)), name))


# ---- rows -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageRow:
    """One stage of the run: what happened, how long it took (0..1 of the longest as `part`), and why: the first reasons,
    and all the others where there are many."""

    name: str
    state: str
    seconds: float | None
    part: float
    key: str
    why: str
    more: tuple[str, ...] = ()


def stage_rows(run: Run) -> list[StageRow]:
    """The stages in the pipeline's order, those the run knows of."""
    stages = run.get("stages") or {}
    names = [name for name in STAGES if name in stages] + [name for name in stages if name not in STAGES]
    longest = max([float(stages[name].get("seconds") or 0.0) for name in names], default=0.0) or 1.0
    return [_stage_row(name, stages[name], longest) for name in names]


def _stage_row(name: str, stage: Mapping[str, Any], longest: float) -> StageRow:
    spent, why = stage.get("seconds"), stage.get("why") or ""
    told = [str(item) for item in why] if isinstance(why, list | tuple) else [str(why)]
    shown = REASONS if len(told) > REASONS + 1 else len(told)
    return StageRow(
        name, str(stage.get("state") or "waiting"), spent, float(spent or 0.0) / longest, str(stage.get("key") or ""),
        "; ".join(told[:shown]), tuple(told[shown:]),
    )  # fmt: skip


@dataclass(frozen=True)
class MetricRow:
    """One metric of the chosen model on the test split, beside the baseline's and, where it is known, the champion's."""

    name: str
    test: Estimate
    baseline: float | None = None
    champion: Estimate | None = None
    validation: Estimate | None = None


def metric_rows(report: EvaluationReport, champion: EvaluationReport | None = None) -> list[MetricRow]:
    """Every test metric, the objective first."""
    validation = chosen_of(report)
    return [
        MetricRow(
            name,
            report.test[name],
            report.baseline.get(name),
            champion.test.get(name) if champion else None,
            validation.metrics.get(name) if validation else None,
        )
        for name in metric_order(report.test, report.objective)
    ]


def chosen_of(report: EvaluationReport) -> Deployable | None:
    """The chosen deployable; None for a report whose choice is not among them."""
    return next((d for d in report.deployables if d.model.name == report.chosen), None)


def deployables(report: EvaluationReport) -> list[Deployable]:
    """The chosen one first, then by size."""
    return sorted(report.deployables, key=lambda d: (d.model.name != report.chosen, d.size_kb, d.latency_ms))


def headline_metrics(report: EvaluationReport) -> list[str]:
    """What goes beside the verdict: the objective, and accuracy or R² if that is not it."""
    extra = "accuracy" if report.dataset.task == "classification" else "r2"
    return [name for name in dict.fromkeys((report.objective, extra)) if name in report.test]


def sessions(events: Sequence[Mapping[str, Any]]) -> int:
    """How often the run was started: more than once means that it was resumed."""
    return sum(1 for event in events if event.get("event") == "run.started")


def revision(run: Run) -> tuple[str, bool]:
    """The git revision ("" if unknown) and whether the tree had changes."""
    git = run.get("git") or ""
    if isinstance(git, Mapping):
        return str(git.get("revision") or git.get("commit") or git.get("sha") or ""), bool(git.get("dirty"))
    return str(git).removesuffix("-dirty"), str(git).endswith("-dirty")
