"""A run as Markdown: for Prefect's artifacts, for a pull request, and two runs side by side for the terminal.

summary(run, records)                     verdict, figures, gates, deployables, stages
ci_summary(run, records, before)          the same, with the champion's figures beside the new ones
compare({"a": …, "b": …}, "a", "b")       (rows as JSON, the same as aligned text)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.artifacts import JSON, Estimate, EvaluationReport, SearchResult
from components.report import findings, leaderboard, words
from components.report.findings import Records, Run

MOST_TRIALS = 20


def summary(run: Run, records: Records, champion: Mapping[str, Any] | None = None) -> str:
    """What a run decided and found. `champion` maps metrics to the former champion's test figures (numbers or estimates)."""
    parts = [_head(run, records), _figures(records, champion or {}), _gates(records), _deployables(records), _trials(records), _stages(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def ci_summary(run: Run, records: Records, before: Mapping[str, Any] | EvaluationReport | None) -> str:
    """`summary` beside the champion as it was before the run: its test figures, or its whole report."""
    champion = before.test if isinstance(before, EvaluationReport) else before or {}
    note = "" if champion else "There was no champion before this run.\n\n"
    return note + summary(run, records, champion)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A Markdown table; the columns in `right` are aligned to the right."""
    rule = ["---:" if i in right else "---" for i in range(len(headers))]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in [headers, rule, *rows])


def _escaped(cell: str) -> str:
    return str(cell).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


# ---- parts of the summary -------------------------------------------------------------------------------------


def _head(run: Run, records: Records) -> str:
    said = findings.verdict(findings.complete(run, ()), records)
    mark = {"good": "✅", "calm": "➖", "warn": "⚠️", "bad": "❌"}[said.tone]
    facts = [f"run `{run['id']}`"] if run.get("id") else []
    facts += [words.seconds(run["seconds"])] if run.get("seconds") is not None else []
    dataset = findings.dataset_of(records)
    facts += [f"data `{words.short(dataset.digest)}`"] if dataset else []
    revision, is_dirty = findings.revision(run)
    facts += [f"git `{words.short(revision, 9)}`{' with changes' if is_dirty else ''}"] if revision else []
    return f"## {mark} {said.headline}\n\n{said.words}\n\n{' · '.join(facts)}"


def _figures(records: Records, champion: Mapping[str, Any]) -> str:
    report = findings.evaluation_of(records)
    if report is None:
        return ""
    headers = ["test metric", "value", "95 % interval", "baseline"]
    headers += ["champion before", "difference"] if champion else []
    rows = [_figure_row(row, champion) for row in findings.metric_rows(report)]
    return table(headers, rows, right=range(1, len(headers)))


def _figure_row(row: findings.MetricRow, champion: Mapping[str, Any]) -> list[str]:
    cells = [words.metric(row.name), f"**{words.figure(row.test.value)}**", words.interval(row.test), words.figure(row.baseline)]
    if not champion:
        return cells
    before = _number(champion.get(row.name))
    return [*cells, words.figure(before), words.difference(row.test.value, before) if before is not None else words.NONE]


def _number(value: Any) -> float | None:
    """A figure that is given as a number, an estimate, or an estimate's JSON."""
    if isinstance(value, Estimate):
        return value.value
    if isinstance(value, Mapping):
        value = value.get("value")
    return float(value) if isinstance(value, int | float) else None


def _gates(records: Records) -> str:
    decision = findings.decision_of(records)
    if decision is None or not decision.gates:
        return ""
    rows = [[gate.name.replace("_", " "), "pass" if gate.passed else "stop", gate.words, gate.rule] for gate in decision.gates]
    return table(["gate", "", "what it saw", "rule"], rows)


def _deployables(records: Records) -> str:
    report = findings.evaluation_of(records)
    if report is None:
        return ""
    headers = ["deployable", f"validation {words.metric(report.objective)}", "95 % interval", "size", "p50"]
    rows = []
    for one in findings.deployables(report):
        estimate, name = one.metrics.get(report.objective), one.model.name
        shown = f"**{name}** (chosen)" if name == report.chosen else name
        value = words.figure(estimate.value if estimate else None)
        rows.append([shown, value, words.interval(estimate), words.kibibytes(one.size_kb), words.milliseconds(one.latency_ms)])
    return table(headers, rows, right=range(1, len(headers)))


def _trials(records: Records) -> str:
    result = findings.search_of(records)
    return _folded(_trials_title(result), trials_table(result)) if result else ""


def _trials_title(result: SearchResult) -> str:
    complete = sum(1 for trial in result.trials if trial.state == "complete")
    return f"{words.count(len(result.trials), 'trial')}, {complete} complete, best is trial {result.best_number}"


def trials_table(result: SearchResult, most: int = MOST_TRIALS) -> str:
    """The trials, best first, with every objective."""
    objectives = leaderboard.objectives_of(result)[0]
    headers = ["trial", "state", *(words.metric(name) for name in objectives), "parameters", "time", "architecture or reason"]
    right = (0, *range(2, len(objectives) + 4))
    return table(headers, [_trial_cells(row) for row in leaderboard.trials(result)[:most]], right=right)


def _trial_cells(row: leaderboard.Row) -> list[str]:
    state = f"{row['state']} ({row['cause']})" if row["cause"] else row["state"]
    note = leaderboard.note(row)
    parameters = f"{row['parameters']:,}" if row["parameters"] else words.NONE
    told = row["reason"] or words.settings(row["architecture"])
    values = [words.figure(value) for value in row["objectives"].values()]
    return [str(row["number"]), f"{state}, {note}" if note else state, *values, parameters, words.seconds(row["seconds"]), told]


def _stages(run: Run) -> str:
    rows = [[row.name, row.state, words.seconds(row.seconds), row.why] for row in findings.stage_rows(run)]
    return _folded("Stages", table(["stage", "state", "time", "why"], rows, right=(2,))) if rows else ""


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


# ---- two runs side by side ------------------------------------------------------------------------------------


def compare(found: Mapping[str, Records], first: str, second: str) -> tuple[JSON, str]:
    """Two runs' choices and figures: a document `{first, second, rows: [{what, first, second, difference, better}]}` and
    its lines. `better` names the run that is better by the metric's own direction, or is None."""
    rows = [row for row in _compared(found[first], found[second]) if row["first"] is not None or row["second"] is not None]
    for row in rows:
        row["better"] = {True: second, False: first, None: None}[row["better"]]
    return {"first": first, "second": second, "rows": rows}, _lines(rows, first, second)


def _compared(a: Records, b: Records) -> list[JSON]:
    return [*_choices(a, b), *_test_rows(a, b), *_cost_rows(a, b)]


def _choices(a: Records, b: Records) -> list[JSON]:
    first, second = _chosen_facts(a), _chosen_facts(b)
    return [_row(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]


def _chosen_facts(records: Records) -> dict[str, str]:
    """What a run decided, in words, by what is decided."""
    facts: dict[str, str] = {}
    dataset, result, report = findings.dataset_of(records), findings.search_of(records), findings.evaluation_of(records)
    if dataset:
        facts["data"] = f"{dataset.name} {words.short(dataset.digest)}"
    if result:
        facts["trials"] = f"{sum(1 for t in result.trials if t.state == 'complete')} of {len(result.trials)} complete"
        facts["best trial"] = str(result.best_number)
        facts["architecture"] = words.settings(result.best.architecture)
        facts["hyper-parameters"] = words.settings(result.best.hyperparameters)
    if report:
        facts["deployable"] = report.chosen
    decision = findings.decision_of(records)
    if decision:
        facts["decision"] = f"version {decision.version} {'promoted' if decision.promoted else 'kept out'}"
    return facts


def _test_rows(a: Records, b: Records) -> list[JSON]:
    """Validation of the best trials and every test metric; only figures on the same data can be better."""
    first, second = findings.evaluation_of(a), findings.evaluation_of(b)
    same_data = first is not None and second is not None and first.dataset.digest == second.dataset.digest
    names = findings.metric_order({*(first.test if first else {}), *(second.test if second else {})}, first.objective if first else "")
    rows = []
    for name in names:
        values = [report.test[name].value if report and name in report.test else None for report in (first, second)]
        rows.append(_row(f"test {words.metric(name)}", *values, metric=name if same_data else ""))
    return rows


def _cost_rows(a: Records, b: Records) -> list[JSON]:
    chosen = [findings.chosen_of(report) if (report := findings.evaluation_of(records)) else None for records in (a, b)]
    rows = []
    for what, attribute in (("size, KiB", "size_kb"), ("p50, ms", "latency_ms")):
        values = [float(getattr(one, attribute)) if one else None for one in chosen]
        rows.append(_row(what, *values, lower_is_better=True))
    return rows


def _row(what: str, first: Any, second: Any, *, metric: str = "", lower_is_better: bool = False) -> JSON:
    numbers = all(isinstance(value, float) for value in (first, second))
    better = None
    if numbers and lower_is_better and first != second:
        better = second < first
    elif numbers and metric:
        better = leaderboard.better(metric, second, first)
    return {"what": what, "first": first, "second": second, "difference": second - first if numbers else None, "better": better}


def _lines(rows: Sequence[JSON], first: str, second: str) -> str:
    """Aligned columns; a long text of words goes below its name, both values under each other."""
    short = [row for row in rows if not _is_long(row)]
    cells = [[row["what"], _shown(row["first"]), _shown(row["second"]), _gap(row)] for row in short]
    widths = [max(len(line[i]) for line in [["", first, second, ""], *cells]) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(["", first, second, "difference"], widths)).rstrip()]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    for row in rows:
        if _is_long(row):
            same = row["first"] == row["second"]
            lines += [row["what"], f"  both: {row['first']}"] if same else [row["what"], f"  {first}: {_shown(row['first'])}"]
            lines += [] if same else [f"  {second}: {_shown(row['second'])}"]
    return "\n".join(lines)


def _is_long(row: JSON) -> bool:
    return any(isinstance(value, str) and len(value) > 40 for value in (row["first"], row["second"]))


def _shown(value: Any) -> str:
    return words.figure(value) if isinstance(value, float) else words.NONE if value is None else str(value)


def _gap(row: JSON) -> str:
    if row["difference"] is None:
        return "" if row["first"] == row["second"] else "differs"
    told = words.difference(row["second"], row["first"])
    return f"{told}, {row['better']} is better" if row["better"] else told
