"""The page's sections: each function turns records into what the template shows, or None where there is nothing to show.

The template holds no logic beyond loops; the charts arrive as finished SVG.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from components import metrics
from components.artifacts import JSON, Column, DatasetVersion, Deployable, EvaluationReport, TrainedModel
from components.evaluation.selection import RELATIVE
from components.report import charts, evidence, findings, leaderboard, pictures, words
from components.report.findings import Records, Run

View = dict[str, Any]
MOST_CLASSES = 12  # bars of the class balance


# ---- summary --------------------------------------------------------------------------------------------------


def summary(run: Run, records: Records, events: Sequence[Mapping[str, Any]], champion: EvaluationReport | None) -> View:
    """Verdict, headline figures and what each gate said."""
    decision = findings.decision_of(records)
    starts = findings.sessions(events)
    return {
        "verdict": findings.verdict(run, records),
        "tiles": _tiles(run, records, champion),
        "gates": decision.gates if decision else (),
        "resumed": starts - 1 if starts > 1 else 0,
    }


def _tile(label: str, value: str, sub: str, more: str = "") -> View:
    return {"label": label, "value": value, "sub": sub, "more": more}


def _tiles(run: Run, records: Records, champion: EvaluationReport | None) -> list[View]:
    report = findings.evaluation_of(records)
    tiles = _measured_tiles(report, champion) if report else []
    search = findings.search_of(records)
    if search:
        complete = sum(1 for trial in search.trials if trial.state == "complete")
        tiles.append(_tile("trials", f"{complete}", f"complete of {len(search.trials)}; best is trial {search.best_number}"))
    if run.get("seconds") is not None:
        tiles.append(_tile("wall time", words.seconds(run["seconds"]), _of_budget(run)))
    return tiles


def _measured_tiles(report: EvaluationReport, champion: EvaluationReport | None) -> list[View]:
    tiles = []
    for name in findings.headline_metrics(report):
        estimate = report.test[name]
        sub = f"95 % interval {words.interval(estimate)}"
        baseline = report.baseline.get(name)
        told = [] if baseline is None else [f"baseline {words.figure(baseline)}"]
        if champion and name in champion.test:
            told.append(f"{words.difference(estimate.value, champion.test[name].value)} to the champion")
        tiles.append(_tile(f"test {words.metric(name)}", words.figure(estimate.value), sub, ", ".join(told)))
    best = findings.chosen_of(report)
    if best:
        tiles.append(_tile("size", words.kibibytes(best.size_kb), f"{best.model.name}, ONNX opset {best.model.opset}"))
        p95 = f"p95 {words.milliseconds(best.latency_p95_ms)}, " if best.latency_p95_ms else ""
        tiles.append(_tile("p50 latency", words.milliseconds(best.latency_ms), f"{p95}batch 1, one thread, ONNX Runtime"))
    return tiles


def _of_budget(run: Run) -> str:
    budget = run.get("budget")
    if not budget:
        return "no budget was set"
    return f"of {words.seconds(float(budget)) if isinstance(budget, int | float) else budget} budget"


def stages(run: Run) -> View | None:
    rows = findings.stage_rows(run)
    if not rows:
        return None
    ran = [row for row in rows if row.state == "ran"]
    cached = [row for row in rows if row.state == "cached"]
    total = sum(row.seconds or 0.0 for row in ran)
    told = [f"{words.count(len(ran), 'stage')} ran in {words.seconds(total)}"] if ran else []
    told += [f"{words.count(len(cached), 'stage')} came from the artifact store"] if cached else []
    return {"rows": rows, "words": words.sentence(", ".join(told))}


# ---- data -----------------------------------------------------------------------------------------------------


def data(records: Records) -> View | None:
    dataset, quality = findings.dataset_of(records), records.get("validate")
    if dataset is None:
        return None
    policy = records.get("augment")
    columns = [column for spec in dataset.inputs for column in spec.columns]
    return {
        "dataset": dataset,
        "facts": _data_facts(dataset),
        "quality": sorted(quality.rows, key=lambda row: ("fail", "warn", "pass").index(row.status)) if quality else (),
        "balance": _balance(dataset),
        "target_chart": _target_chart(dataset),
        "columns": [_column_view(column) for column in columns],
        "policy": policy,
        "policy_words": words.settings({k: v for k, v in policy.config.items() if k != "_target_"}) if policy else "",
        "preview": pictures.of_file(policy.preview.path) if policy and policy.preview else None,
    }


def _data_facts(dataset: DatasetVersion) -> list[tuple[str, str]]:
    task = f"{dataset.task}, {words.count(len(dataset.classes), 'class', 'classes')}" if dataset.classes else dataset.task
    inputs = "; ".join(f"{spec.name} {spec.dtype} {'×'.join(str(n) for n in spec.shape)}" for spec in dataset.inputs)
    splits = ", ".join(f"{rows:,} {split}" for split, rows in dataset.splits.items())
    facts = [("task", task), ("modality", dataset.modality), ("rows", splits), ("inputs", inputs), ("target", dataset.target)]
    if dataset.task == "regression":
        facts.append(("target on training rows", f"mean {words.setting(dataset.target_mean)}, std {words.setting(dataset.target_std)}"))
    return [*facts, ("digest", dataset.digest)]


def _balance(dataset: DatasetVersion) -> View | None:
    if not dataset.classes:
        return None
    counts = evidence.class_counts(dataset)
    if "train" not in counts:
        return None
    order = sorted(range(len(dataset.classes)), key=lambda k: -counts["train"][k])
    shown = order if len(order) <= MOST_CLASSES else order[: MOST_CLASSES - 4] + order[-4:]
    most = max(counts["train"]) or 1
    rows = [{"name": dataset.classes[k], "part": counts["train"][k] / most, "counts": [of[k] for of in counts.values()]} for k in shown]
    return {"rows": rows, "splits": list(counts), "hidden": len(order) - len(shown), "cut": MOST_CLASSES - 4}


def _target_chart(dataset: DatasetVersion) -> Markup | None:
    target = evidence.array(dataset.files.get("train/target")) if dataset.task == "regression" else None
    if target is None or not len(target):
        return None
    edges, counts = evidence.bins_of(target)
    return charts.histogram(f"distribution of {dataset.target} on the training rows", edges, counts, x=dataset.target)


def _column_view(column: Column) -> View:
    if column.kind == "category":
        listed = ", ".join(column.vocabulary[:6]) + (", …" if len(column.vocabulary) > 6 else "")
        return {"name": column.name, "kind": words.count(len(column.vocabulary), "category", "categories"), "told": listed}
    told = f"mean {words.setting(column.mean)}, std {words.setting(column.std)}"
    if column.quantiles:
        told += f", {words.setting(column.quantiles[0])} to {words.setting(column.quantiles[-1])}"
    return {"name": column.name, "kind": "number", "told": told}


# ---- training -------------------------------------------------------------------------------------------------

LINES = ("c1", "c2", "hot")  # of the networks that have learning curves


def training(records: Records, config: JSON) -> View | None:
    models = findings.networks(records)
    if not models:
        return None
    objective = _objective(records)
    names = findings.metric_order({name for model in models for name in model.metrics}, objective)
    rows = [
        {"model": model, "metrics": [words.figure(model.metrics.get(name)) for name in names], "told": _network_words(model)}
        for model in models
    ]
    trained = [model for model in models if model.history]
    drawn = [chart for chart in (_objective_chart(trained, objective), _loss_chart(trained)) if chart]
    told = _fusion_words(records, config, objective)
    return {"rows": rows, "names": [words.metric(name) for name in names], "charts": drawn, "words": told}


def _fusion_words(records: Records, config: JSON, objective: str) -> str:
    """What came out of the fusion, beside the teacher alone; empty for `fusion=none` and before it has ended."""
    teacher, fused = records.get("train"), records.get("fuse")
    method = str((config.get("fusion") or {}).get("_target_") or "").rpartition(".")[0].rpartition(".")[2]
    if teacher is None or fused is None or method in ("", "none"):
        return ""
    if fused.identity == teacher.identity:
        return f"Fusion {method} brought nothing on validation: the teacher goes on alone."
    both = (words.figure(model.metrics.get(objective)) for model in (fused, teacher))
    values = f"{words.metric(objective)} {next(both)} on validation, the teacher alone {next(both)}"
    if len(fused.members) < 2:  # a network that the user named is a member by its name, one trained on from the teacher is not
        alone = fused.members[0]["role"] if fused.role == "member" else fused.role
        return f"Fusion {method} found no mixture better than {alone}, which goes on alone: {values}."
    return f"Fusion {method} {made_of(fused).replace('made of', 'took')}: {values}."


def _objective(records: Records) -> str:
    report, result = findings.evaluation_of(records), findings.search_of(records)
    return report.objective if report else result.objective if result else ""


def _network_words(model: TrainedModel) -> View:
    return {
        "parameters": f"{model.num_parameters:,}",
        "epochs": f"{model.epochs:.4g}",
        "cut": "cut by the time limit" if model.truncated else "",
        "seconds": words.seconds(model.seconds),
        "architecture": made_of(model) or words.settings(shape_of(model)),
        "hyper": words.settings(model.candidate.hyperparameters),
        "numerics": words.settings(model.candidate.numerics) if model.candidate.numerics else "",
    }


def made_of(model: TrainedModel) -> str:
    """The members of a fused network, each with its share; empty for one that was trained."""
    shares = [f"{row['role']} ({row['share']:.0%})" if "share" in row else str(row["role"]) for row in model.members]
    return f"made of {', '.join(shares)}" if shares else ""


def shape_of(model: TrainedModel) -> JSON:
    """The architecture that a network has, that of the child for one with stages of others."""
    architecture = model.candidate.architecture
    return dict(architecture["bases"][0]["architecture"]) if "bases" in architecture else architecture


def began(model: TrainedModel) -> str:
    """Whose weights a network began with, and how much of it was trained on; empty for fresh ones."""
    told = model.adopted
    if told.get("inherit") == "stages":
        lenders = ", ".join(words.short(parent) for parent in model.parents)
        return f"; {told['inherited']:.0%} of its weights began as those of network {lenders} (inherit=stages: {told['stages']})"
    if not told.get("finetune"):
        return ""
    trained, share = int(told["trained_parameters"]), float(told["inherited"])
    grown = f"grown: {told['grown']}; " if told.get("grown") else ""
    how = f"{grown}finetune={told['finetune']}, {trained:,} of {int(told['of_parameters']):,} parameters trained"
    return f"; {share:.0%} of its weights began as those of network {words.short(str(told['parent']))} ({how})"


def _curve(model: TrainedModel, key: str, name: str, css: str, *, dashed: bool = False) -> charts.Curve | None:
    points = [(float(row.get("epoch", i)), float(row[key])) for i, row in enumerate(model.history) if isinstance(row.get(key), int | float)]
    return charts.Curve(name, points, css, dashed) if len(points) > 1 else None


def _chart(title: str, lines: list[charts.Curve | None], y: str, *, log: bool = False) -> View | None:
    kept = [line for line in lines if line is not None]
    if not kept:
        return None
    legend = [{"name": line.name, "css": line.css, "dashed": line.dashed} for line in kept]
    positive = all(value > 0 for line in kept for _, value in line.points)
    return {"title": title, "legend": legend, "svg": charts.curves(title, kept, x="epoch", y=y, log=log and positive)}


def _loss_chart(models: Sequence[TrainedModel]) -> View | None:
    lines: list[charts.Curve | None] = []
    for model, css in zip(models, LINES):
        lines.append(_curve(model, "train_loss", f"{model.role}, training", css, dashed=True))
        key = _first_key(model, ("log_loss", "validation_loss", "validation_log_loss"))
        lines.append(_curve(model, key, f"{model.role}, validation", css) if key else None)
    return _chart("Loss", lines, "loss", log=True)


def _objective_chart(models: Sequence[TrainedModel], objective: str) -> View | None:
    if objective in ("", "log_loss"):
        return None
    keys = (objective, f"validation_{objective}", "value", "objective")
    lines = [_curve(model, key, model.role, css) for model, css in zip(models, LINES) if (key := _first_key(model, keys))]
    return _chart(f"Validation {words.metric(objective)}", lines, words.metric(objective))


def _first_key(model: TrainedModel, keys: Sequence[str]) -> str:
    present = {key for row in model.history for key in row}
    return next((key for key in keys if key in present), "")


# ---- deployables ----------------------------------------------------------------------------------------------


def deployables(records: Records, config: JSON) -> View | None:
    report = findings.evaluation_of(records)
    if report is None:
        return _exported_only(records)
    names = findings.metric_order({name for d in report.deployables for name in d.metrics}, report.objective)
    shown = [name for name in names if name in (report.objective, "log_loss", "r2")]
    return {
        "names": [words.metric(name) for name in shown],
        "rows": [_deployable_view(d, shown, d.model.name == report.chosen) for d in findings.deployables(report)],
        "choice": words.sentence(report.choice),
        "frontiers": _frontiers(report, config),
        "device": words.settings(report.device) if report.device else "",
    }


def _exported_only(records: Records) -> View | None:
    models = [*(records.get("export") or ()), *(records.get("quantize") or ())]
    if not models:
        return None
    rows = [_deployable_view(Deployable(model=m, metrics={}, size_kb=m.file.size / 1024), [], False) for m in models]
    return {"names": [], "rows": rows, "choice": "These models are exported and not yet evaluated.", "frontiers": [], "device": ""}


def _deployable_view(deployable: Deployable, names: Sequence[str], chosen: bool) -> View:
    model = deployable.model
    return {
        "model": model,
        "chosen": chosen,
        "metrics": [_cell(deployable, name) for name in names],
        "others": [
            (words.metric(name), _cell(deployable, name)) for name in findings.metric_order(deployable.metrics) if name not in names
        ],
        "size": words.kibibytes(deployable.size_kb),
        "p50": words.milliseconds(deployable.latency_ms),
        "p95": words.milliseconds(deployable.latency_p95_ms),
        "memory": f"{deployable.memory_mb:.0f} MiB" if deployable.memory_mb else "",
        "parity": f"{max(model.parity.values()):.1e}" if model.parity else words.NONE,
        "parity_words": ", ".join(f"batch {batch}: {gap:.1e}" for batch, gap in model.parity.items()),
        "operators": ", ".join(f"{name} {number}" for name, number in sorted(model.operators.items(), key=lambda item: -item[1])),
        "parameters": f"{model.num_parameters:,}" if model.num_parameters else words.NONE,
    }


def _cell(deployable: Deployable, name: str) -> View:
    estimate = deployable.metrics.get(name)
    return {"value": words.figure(estimate.value if estimate else None), "interval": words.interval(estimate)}


COSTS = (("Validation result against size", "size, KiB", "size_kb"), ("Validation result against latency", "p50 latency, ms", "latency_ms"))


def _frontiers(report: EvaluationReport, config: JSON) -> list[View]:
    """The deployables by what they cost, in size and in time."""
    judged = [d for d in findings.deployables(report) if report.objective in d.metrics]
    if len(judged) < 2:
        return []
    allowed = _allowed(report, [d.metrics[report.objective].value for d in judged], config)
    drawn = []
    for title, x, attribute in COSTS:
        costs = [float(getattr(d, attribute)) for d in judged]
        if min(costs) > 0:
            offers = [_offer(d, cost, report) for d, cost in zip(judged, costs)]
            svg = charts.frontier(title, offers, x=x, y=words.metric(report.objective), allowed=allowed)
            drawn.append({"title": title, "svg": svg, "allowed": words.figure(allowed) if allowed is not None else None})
    return drawn


def _offer(deployable: Deployable, cost: float, report: EvaluationReport) -> charts.Offer:
    estimate, name = deployable.metrics[report.objective], deployable.model.name
    tip = _offer_tip(deployable, report.objective)
    return charts.Offer(name, cost, estimate.value, estimate.low, estimate.high, tip, name == report.chosen)


def _allowed(report: EvaluationReport, values: Sequence[float], config: JSON) -> float | None:
    """The least good validation value that could be chosen: the configured tolerance from the best."""
    tolerance = (config.get("selection") or {}).get("tolerance")
    if tolerance is None:
        return None
    best = max(values) if report.direction == "maximize" else min(values)
    gap = float(tolerance) * (abs(best) if report.objective in RELATIVE else 1.0)
    return best - gap if report.direction == "maximize" else best + gap


def _offer_tip(deployable: Deployable, objective: str) -> str:
    estimate = deployable.metrics[objective]
    head = f"{deployable.model.name}\n{words.metric(objective)} {words.figure(estimate.value)} ({words.interval(estimate)})"
    return f"{head}\n{words.kibibytes(deployable.size_kb)}, p50 {words.milliseconds(deployable.latency_ms)}"


# ---- evaluation -----------------------------------------------------------------------------------------------

NEEDS_PREDICTIONS = (
    "wrong",
    "confusion",
    "classes",
    "reliability",
    "calibration_error",
    "confidence",
    "agreement",
    "residuals",
    "residual_words",
    "mistakes",
)


def evaluation(records: Records, champion: EvaluationReport | None) -> View | None:
    report = findings.evaluation_of(records)
    if report is None:
        return None
    rows = findings.metric_rows(report, champion)
    view: View = {
        "report": report,
        "rows": [_metric_view(row) for row in rows],
        "track": _track(rows),
        "has_baseline": any(row.baseline is not None for row in rows),
        "has_champion": any(row.champion is not None for row in rows),
        "test_rows": report.dataset.splits.get("test", 0),
        **dict.fromkeys(NEEDS_PREDICTIONS),
    }
    view |= _answers(report)
    known = evidence.outcome(report)
    if known is None:
        return view
    drawn = _confidence(known[0]) if report.dataset.task == "classification" else _residuals(report, *known)
    return view | drawn | {"mistakes": evidence.mistakes(report, *known)}


def _metric_view(row: findings.MetricRow) -> View:
    better = leaderboard.better(row.name, row.test.value, row.champion.value) if row.champion else None
    return {
        "name": words.metric(row.name),
        "value": words.figure(row.test.value),
        "interval": words.interval(row.test),
        "validation": words.figure(row.validation.value) if row.validation else words.NONE,
        "baseline": words.figure(row.baseline) if row.baseline is not None else words.NONE,
        "champion": words.figure(row.champion.value) if row.champion else words.NONE,
        "gap": words.difference(row.test.value, row.champion.value) if row.champion else "",
        "tone": {True: "good", False: "bad", None: ""}[better],
        "low": row.test.low,
        "high": row.test.high,
        "at": row.test.value,
        "bounded": row.test.low >= 0 and row.test.high <= 1 and row.name not in metrics.ERRORS,
    }


def _track(rows: Sequence[findings.MetricRow]) -> View | None:
    """The part of 0..1 on which the intervals of metrics that end at 1 are drawn: from a round value below the lowest."""
    lows = [row.test.low for row in rows if row.test.low >= 0 and row.test.high <= 1 and row.name not in metrics.ERRORS]
    if not lows:
        return None
    low = next((edge for edge in (0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5) if edge <= min(lows)), 0.0)
    return {"low": low, "high": 1.0}


def _answers(report: EvaluationReport) -> View:
    """What the evaluation kept of a classifier's answers: right and wrong by class, and calibration."""
    counts, calibrated, classes = evidence.confusion(report), evidence.calibration(report), report.dataset.classes
    view: View = {}
    if counts is not None:
        rows, wrong = int(counts.sum()), int(counts.sum() - counts.diagonal().sum())
        view["wrong"] = f"{words.count(wrong, 'row')} of {rows:,} {'is' if wrong == 1 else 'are'} wrong."
        view["classes"] = [_class_view(row) for row in evidence.class_rows(counts, classes)]
        if len(classes) <= evidence.LARGEST_MATRIX:
            view["confusion"] = charts.confusion("confusion matrix on the test split", counts.tolist(), classes)
    if calibrated is not None:
        bins, error = calibrated
        view["reliability"] = charts.reliability("accuracy against confidence on the test split", bins)
        view["calibration_error"] = words.figure(error)
    return view


def _confidence(probabilities: np.ndarray) -> View:
    counts, edges = np.histogram(probabilities.max(axis=1), bins=20, range=(0.0, 1.0))
    return {"confidence": charts.histogram("rows by confidence", edges.tolist(), counts.tolist(), x="confidence")}


def _class_view(row: evidence.ClassRow) -> View:
    return {
        "name": row.name,
        "rows": f"{row.rows:,}",
        "precision": words.figure(row.precision, 3),
        "recall": words.figure(row.recall, 3),
        "part": row.recall,
        "taken_for": row.taken_for,
    }


def _residuals(report: EvaluationReport, values: np.ndarray, targets: np.ndarray) -> View:
    residuals = metrics.residuals(values, targets)
    edges, counts = evidence.bins_of(residuals)
    quantiles = np.quantile(np.abs(residuals), [0.5, 0.9])
    half, most = (words.setting(float(q)) for q in quantiles)
    inside = f"Half of the rows are within {half} of the truth, nine in ten within {most}."
    target = report.dataset.target
    agreement = charts.agreement(
        "true against predicted value", evidence.pairs(values, targets), x=f"predicted {target}", y=f"true {target}"
    )
    return {
        "agreement": agreement,
        "residuals": charts.histogram("residuals, true minus predicted", edges, counts, x="true minus predicted", mark=0.0),
        "residual_words": inside,
    }


# ---- lineage, configuration, reproduction ---------------------------------------------------------------------


def lineage(run: Run, records: Records) -> View | None:
    """The walk from the bytes to the alias: each step with its name, its digest and what it says."""
    steps = [*_data_steps(records), *_search_steps(records), *_network_steps(records), *_export_steps(records), *_registry_steps(records)]
    if not steps:
        return None
    version = findings.version_of(records)
    return {"steps": steps, "tags": sorted(version.tags.items()) if version else [], "lineage": _plain(version.lineage) if version else []}


def _step(kind: str, name: str, digest: str = "", told: str = "") -> View:
    return {"kind": kind, "name": name, "digest": digest, "short": words.short(digest), "told": told}


def _data_steps(records: Records) -> list[View]:
    dataset = findings.dataset_of(records)
    if dataset is None:
        return []
    source = words.settings({k: v for k, v in dataset.source.items() if k not in ("_target_", "name") and v not in (None, [], "")})
    return [_step("dataset", dataset.name, dataset.digest, source if source != words.NONE else "")]


def _search_steps(records: Records) -> list[View]:
    result = findings.search_of(records)
    if result is None:
        return []
    best = result.best_trial
    name = f"trial {best.number} of {len(result.trials)}"
    return [
        _step(
            "candidate",
            name,
            best.candidate.identity,
            f"{words.settings(best.candidate.architecture)}; study {words.short(result.study, 32)}",
        )
    ]


def _network_steps(records: Records) -> list[View]:
    steps, names = [], {}
    for model in findings.networks(records):
        names[model.identity] = model.role
        parents = ", ".join(names.get(parent, words.short(parent)) for parent in model.parents)
        told = f"{model.num_parameters:,} parameters, seed {model.seed}"
        told += f"; {made_of(model)}" if model.members else began(model) or (f"; learned from the {parents}" if parents else "")
        steps.append(_step("network", model.role, model.identity, told))
    return steps


def _export_steps(records: Records) -> list[View]:
    report = findings.evaluation_of(records)
    chosen = findings.chosen_of(report) if report else None
    if chosen is None:
        return []
    model, roles = chosen.model, {m.identity: f"the {m.role}" for m in findings.networks(records)}
    told = f"{words.kibibytes(chosen.size_kb)}, made from {roles.get(model.model, 'network ' + words.short(model.model))}"
    return [_step("ONNX model", model.name, model.file.sha256, told)]


def _registry_steps(records: Records) -> list[View]:
    version, decision = findings.version_of(records), findings.decision_of(records)
    steps = []
    if version is not None:
        steps.append(_step("model version", f"{version.name} {version.version}", "", f"MLflow run {version.run_id}"))
    if decision is not None:
        steps.append(_step("alias", "champion" if decision.promoted else "challenger", "", words.sentence(decision.words)))
    return steps


def _plain(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        rows += _plain(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", words.setting(value))]
    return rows


def reproduction(run: Run, records: Records, config: JSON) -> View:
    """The commands that lead here again, what must be equal then, and the libraries' versions."""
    revision, is_dirty = findings.revision(run)
    overrides = [str(item) for item in run.get("overrides") or ()]
    command = " ".join(["athanor run", *(shlex.quote(item) for item in overrides)])
    dataset = findings.dataset_of(records)
    return {
        "commands": [*([f"git checkout {revision}"] if revision else []), command],
        "is_dirty": is_dirty,
        "revision": revision,
        "expected": _expected(records, dataset, config),
        "versions": sorted((run.get("versions") or {}).items()),
        "next": [str(item) for item in run.get("next") or ()],
    }


def _expected(records: Records, dataset: DatasetVersion | None, config: JSON) -> list[tuple[str, str]]:
    report = findings.evaluation_of(records)
    chosen = findings.chosen_of(report) if report else None
    found: list[tuple[str, str | None]] = [
        ("dataset digest", dataset.digest if dataset else None),
        ("seed", str(config["seed"]) if "seed" in config else None),
        ("ONNX sha256", chosen.model.file.sha256 if chosen else None),
    ]
    return [(name, value) for name, value in found if value]
