"""Rows of trials and of model versions, best first: what `athanor leaderboard` prints and the report's tables show.

trials(search), trials_of_events(events)   rows with nested settings, for the report
trial_rows(search)                         the same flat, for `--json` and table artifacts
versions(registered)                       one row a model version
text(rows)                                 rows as a terminal shows them
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components import metrics
from components.artifacts import Candidate, ModelVersion, SearchResult, Trial
from components.report import words

Row = dict[str, Any]


# ---- trials ---------------------------------------------------------------------------------------------------


def trials(result: SearchResult) -> list[Row]:
    """One row a trial: the best, the other completed ones by their objective, then those without a value by number.

    Keys: rank (None without a value), number, state, value, best (bool), parameters, seconds, fidelity,
    architecture, hyperparameters, values, cause, reason.
    """
    ordered = sorted(result.trials, key=lambda trial: _place(trial, result))
    return [_row(trial, rank, result.objective, best=trial.number == result.best_number) for rank, trial in enumerate(ordered, start=1)]


def trials_of_events(events: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The same rows from a journal, for a search that has not ended (or never will): what is known so far, by number.

    The latest event of a number counts, so a trial that was killed and run again appears once.
    """
    rows: dict[int, Row] = {}
    for event in events:
        kind, number = str(event.get("event", "")), event.get("number")
        if number is not None and kind in ("trial.started", "trial.finished", "trial.failed"):
            rows[int(number)] = _event_row(int(number), kind, event)
    return [rows[number] for number in sorted(rows)]


def trial_rows(result: SearchResult) -> list[Row]:
    """`trials` with every setting as a key of its own (`architecture.width`, `hyperparameters.dropout`): no nested values."""
    return [_flat_row(row) for row in trials(result)]


def value_of(trial: Trial, objective: str) -> float | None:
    """A trial's objective, None where it has none that can be compared (failed, killed, not a number)."""
    value = trial.values.get(objective)
    return value if value is not None and math.isfinite(value) and trial.state in ("complete", "pruned") else None


def _place(trial: Trial, result: SearchResult) -> tuple[bool, bool, float, float, int, int]:
    value = value_of(trial, result.objective)
    tie = trial.values.get("log_loss", math.inf)
    is_best = trial.number == result.best_number
    return not is_best, trial.state != "complete", _cost(value, result.direction), tie, trial.num_parameters, trial.number


def _cost(value: float | None, direction: str) -> float:
    if value is None or not math.isfinite(value):
        return math.inf
    return value if direction == "minimize" else -value


def _row(trial: Trial, rank: int | None, objective: str, *, best: bool) -> Row:
    value = value_of(trial, objective)
    return {
        "rank": rank if value is not None else None,
        "number": trial.number,
        "state": trial.state,
        "value": value,
        "best": best,
        "parameters": trial.num_parameters,
        "seconds": trial.seconds,
        "fidelity": dict(trial.fidelity),
        "architecture": trial.candidate.architecture,
        "hyperparameters": trial.candidate.hyperparameters,
        "values": dict(trial.values),
        "cause": trial.cause,
        "reason": trial.reason,
    }


def _event_row(number: int, kind: str, event: Mapping[str, Any]) -> Row:
    if isinstance(event.get("trial"), Mapping):
        return _row(Trial.from_json(event["trial"]), None, str(event.get("objective", "")), best=event.get("best_number") == number)
    known = {"trial.started": "running", "trial.finished": "complete", "trial.failed": "failed"}[kind]
    candidate = Candidate(space="", architecture={"": event["architecture"]} if event.get("architecture") else {}, hyperparameters={})
    trial = Trial(
        number=number,
        candidate=candidate,
        state=str(event.get("state") or known),
        values={"": float(event["value"])} if isinstance(event.get("value"), int | float) else {},
        cause=str(event.get("cause") or ""),
        reason=str(event.get("reason") or ""),
        seconds=float(event.get("seconds") or 0.0),
    )
    return _row(trial, None, "", best=False)


def _flat_row(row: Row) -> Row:
    kept = {key: row[key] for key in ("rank", "number", "state", "value", "parameters", "seconds", "cause", "reason")}
    return kept | _flatten(row["architecture"], "architecture.") | _flatten(row["hyperparameters"], "hyperparameters.")


# ---- settings -------------------------------------------------------------------------------------------------


def flat(candidate: Candidate) -> Row:
    """A candidate's settings in one mapping: nested ones by dotted name."""
    return {**_flatten(candidate.architecture, ""), **_flatten(candidate.hyperparameters, "")}


def varied(candidates: Sequence[Candidate]) -> list[str]:
    """The settings in which the candidates differ or that only some have, in the order they are written."""
    values: dict[str, list[str]] = {}
    for candidate in candidates:
        for name, value in flat(candidate).items():
            values.setdefault(name, []).append(repr(value))
    return [name for name, seen in values.items() if len(set(seen)) > 1 or len(seen) < len(candidates)]


def _flatten(values: Mapping[str, Any], prefix: str) -> Row:
    found: Row = {}
    for key, value in values.items():
        found |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


# ---- versions -------------------------------------------------------------------------------------------------


def versions(registered: Sequence[ModelVersion], *, champion: int = 0, previous: int = 0) -> list[Row]:
    """One row a model version, the best test result first; `alias` says champion or previous.

    Keys: version, alias, objective, value, low, high, size_kb, latency_ms, deployable, dataset, run_id.
    Versions judged on other data or by another objective than the newest come after those that can be compared.
    """
    if not registered:
        return []
    newest = max(registered, key=lambda version: version.version)
    yardstick = (newest.report.dataset.digest, newest.report.objective)

    def place(version: ModelVersion) -> tuple[bool, float, int]:
        comparable = (version.report.dataset.digest, version.report.objective) == yardstick
        return not comparable, _cost(_test_value(version), version.report.direction), -version.version

    aliases = {previous: "previous", champion: "champion"}
    return [_version_row(version, aliases.get(version.version, "")) for version in sorted(registered, key=place)]


def _test_value(version: ModelVersion) -> float | None:
    estimate = version.report.test.get(version.report.objective)
    return estimate.value if estimate else None


def _version_row(version: ModelVersion, alias: str) -> Row:
    report = version.report
    estimate, best = report.test.get(report.objective), report.best
    return {
        "version": version.version,
        "alias": alias,
        "objective": report.objective,
        "value": estimate.value if estimate else None,
        "low": estimate.low if estimate else None,
        "high": estimate.high if estimate else None,
        "size_kb": best.size_kb,
        "latency_ms": best.latency_ms,
        "deployable": report.chosen,
        "dataset": report.dataset.digest,
        "run_id": version.run_id,
    }


# ---- in a terminal --------------------------------------------------------------------------------------------


def text(rows: Sequence[Row]) -> str:
    """Trial rows or version rows as aligned columns; nothing for no rows."""
    if not rows:
        return ""
    cells = [_trial_cells(row) if "number" in row else _version_cells(row) for row in rows]
    widths = {name: max(len(name), *(len(cell[name]) for cell in cells)) for name in cells[0]}
    lines = [{name: name for name in cells[0]}, *cells]
    return "\n".join("  ".join(_aligned(name, line[name], widths[name]) for name in widths).rstrip() for line in lines)


NUMERIC = ("trial", "value", "parameters", "time", "version", "size", "p50")


def _aligned(name: str, cell: str, width: int) -> str:
    return cell.rjust(width) if name in NUMERIC else cell.ljust(width)


def _trial_cells(row: Row) -> dict[str, str]:
    state = f"{row['state']} ({row['cause']})" if row["cause"] and row["cause"] != row["state"] else str(row["state"])
    chosen = {key.partition(".")[2]: value for key, value in row.items() if key.startswith("architecture.")}
    return {
        "trial": str(row["number"]),
        "state": state,
        "value": words.figure(row["value"]),
        "parameters": f"{row['parameters']:,}" if row["parameters"] else words.NONE,
        "time": words.seconds(row["seconds"]),
        "architecture or reason": row["reason"] or words.settings(chosen),
    }


def _version_cells(row: Row) -> dict[str, str]:
    return {
        "version": str(row["version"]),
        "alias": row["alias"],
        "value": words.figure(row["value"]),
        "size": words.kibibytes(row["size_kb"]),
        "p50": words.milliseconds(row["latency_ms"]),
        "deployable": row["deployable"],
        "data": words.short(row["dataset"]),
    }


def better(name: str, value: float, than: float) -> bool | None:
    """Whether `value` beats `than` by the metric's own direction; None where they are equal or the metric is unknown."""
    if name not in metrics.METRICS or value == than:
        return None
    return metrics.is_better(name, value, than)
