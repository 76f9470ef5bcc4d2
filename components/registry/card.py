"""The model card that is registered beside each model: what it is for, how good, on what data, how to make it again."""

from __future__ import annotations

from components.artifacts import JSON, Deployable, EvaluationReport, InputField
from components.registry.lineage import in_words


def model_card(model: str, report: EvaluationReport, facts: JSON) -> str:
    """Markdown. `facts` is the lineage as `components.registry.lineage.complete` makes it."""
    parts = [_title(model, report), _figures(report), _choice(report), _interface(report), _data(report), _limits(report), _origin(facts)]
    return "\n\n".join(parts) + "\n"


def _title(model: str, report: EvaluationReport) -> str:
    best, data = report.best, report.dataset
    answer = f"one of {len(data.classes)} classes" if data.task == "classification" else f"a number, `{data.target}`"
    return (
        f"# {model}\n\n"
        f"Predicts {answer} from {_kind(data.modality)} like those of `{data.name}`. An ONNX graph of {best.size_kb:.0f} KiB "
        f"({best.model.num_parameters:,} parameters, {best.model.precision}) with its preprocessing inside: feed it raw rows."
    )


def _kind(modality: str) -> str:
    return {"image": "images", "table": "table rows"}.get(modality, f"{modality} rows")


def _figures(report: EvaluationReport) -> str:
    rows = [
        f"| {name} | {estimate.value:.4f} | {estimate.low:.4f} to {estimate.high:.4f} | {_baseline(report, name)} |"
        for name, estimate in report.test.items()
    ]
    head = f"## Figures on the test split ({report.dataset.splits.get('test', 0):,} rows, read once)\n\n"
    return head + _table("metric", "value", "95 % interval", "without a model") + "\n".join(rows)


def _baseline(report: EvaluationReport, name: str) -> str:
    value = report.baseline.get(name)
    return "" if value is None else f"{value:.4f}"


def _choice(report: EvaluationReport) -> str:
    rows = "\n".join(_deployable(row, report) for row in report.deployables)
    head = f"## Why `{report.chosen}`\n\n{report.choice or 'Chosen on the validation split.'}\n\n"
    return head + _table("deployable", f"validation {report.objective}", "KiB", "ms at batch 1 (p50)", "p95") + rows


def _deployable(row: Deployable, report: EvaluationReport) -> str:
    estimate = row.metrics.get(report.objective)
    name = f"**{row.model.name}**" if row.model.name == report.chosen else row.model.name
    value = in_words(estimate) if estimate else ""
    return f"| {name} | {value} | {row.size_kb:.1f} | {row.latency_ms:.3f} | {row.latency_p95_ms:.3f} |"


def _interface(report: EvaluationReport) -> str:
    rows = "\n".join(f"| {field.name} | {_dtype(field)} | {_shape(field)} | {_content(field)} |" for field in report.dataset.inputs)
    classes = report.dataset.classes
    shown = ", ".join(f"`{name}`" for name in classes[:30]) + (f" and {len(classes) - 30} more" if len(classes) > 30 else "")
    output = f"`probabilities` float32 [N, {len(classes)}] over {shown}" if classes else "`value` float32 [N]"
    return "## Inputs and output\n\n" + _table("input", "type", "shape", "what") + rows + f"\n\nOutput: {output}."


def _dtype(field: InputField) -> str:
    return "string" if any(column.kind == "category" for column in field.columns) else field.dtype


def _shape(field: InputField) -> str:
    return "[" + ", ".join(["N", *map(str, field.shape)]) + "]"


def _content(field: InputField) -> str:
    if not field.columns:
        return "raw values"
    names = ", ".join(column.name.replace("|", "\\|") for column in field.columns[:20])
    return names + (f" and {len(field.columns) - 20} more" if len(field.columns) > 20 else "")


def _data(report: EvaluationReport) -> str:
    data = report.dataset
    splits = ", ".join(f"{name} {count:,}" for name, count in data.splits.items())
    notes = "".join(f"\n- {note}" for note in data.notes)
    return f"## Data\n\n`{data.name}`, digest `{data.digest}`; rows: {splits}.{notes}"


def _limits(report: EvaluationReport) -> str:
    text = (
        "## Limits\n\n"
        "The figures hold for rows drawn like the test split. Values and categories never seen in training are accepted and "
        "answered without a warning. Intervals come from a bootstrap over the test rows: they do not cover a change of the data."
    )
    if not report.dataset.classes:
        return text
    return text + "\n\nProbabilities are as the network gives them; how far to trust them is in the run's reliability diagram."


def _origin(facts: JSON) -> str:
    rows = [("run", facts.get("run")), ("seed", facts.get("seed")), ("git", facts.get("git")), ("report", facts.get("report"))]
    rows += [(f"{name}", version) for name, version in sorted(dict(facts.get("libraries") or {}).items())]
    lines = "\n".join(f"| {name} | `{value}` |" for name, value in rows if value not in (None, ""))
    return "## Where it comes from\n\n" + _table("fact", "value") + lines + "\n\nConfiguration and stages: `lineage.json` beside this card."


def _table(*names: str) -> str:
    return "| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|\n"
