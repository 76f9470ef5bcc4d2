"""Rows of trials and of model versions, best first: what `athanor leaderboard` prints and the report's tables show.

trials(search), trials_of_events(events)   rows with nested settings, for the report
trial_rows(search)                         the same flat, for `--json` and table artifacts
rows_of_run(records, events)               the same flat, also of a search that has not ended
versions(registered)                       one row a model version
text(rows)                                 rows as a terminal shows them
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components import metrics
from components.artifacts import Candidate, ModelVersion, SearchResult, Trial
from components.report import cell, words
from components.search.leader import Leader
from components.search.ranking import costs, values_of, violation

Row = dict[str, Any]


# ---- trials ---------------------------------------------------------------------------------------------------


def trials(result: SearchResult) -> list[Row]:
    """One row a trial: the best, the other complete ones (feasible ones by their objectives, then by how little they miss
    their constraints), the pruned ones, then those without a value by number.

    Keys: rank (None unless complete), number, state, value, objectives (all of them by name), best, closest (to the
    constraints, where no trial keeps them), on_front, missed (what constraints are missed by), parameters, seconds, fidelity,
    architecture, hyperparameters, values, cause, reason.
    """
    places = _places(result)
    ordered = sorted(result.trials, key=lambda trial: places[trial.number])
    return [_row(trial, rank, result) for rank, trial in enumerate(ordered, start=1)]


def objectives_of(result: SearchResult) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All objectives and the direction of each."""
    return result.objectives or (result.objective,), result.directions or (result.direction,)


def missed(trial: Trial) -> dict[str, float]:
    """By how much each constraint is missed that is."""
    return {name: by for name, by in trial.constraints.items() if by > 0}


PLAIN = ("rank", "number", "state", "value", "best", "closest", "on_front", "parameters", "seconds", "cause", "reason")
EVENTS = {"trial.started": "running", "trial.rested": "resting", "trial.finished": "complete", "trial.failed": "failed"}


def trials_of_events(events: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The same rows from a journal, for a search that has not ended (or never will): what is known so far, by number, one of them
    the best of all rounds, or the closest where none keeps the constraints.

    The latest event of a number counts, so a trial that was killed and run again appears once, and one that rests at a
    rung, to be carried on or not, is `resting`. Trials of later rounds are numbered on, as in the search's record.
    """
    rows: dict[tuple[int, int], Row] = {}
    leader = Leader()
    round_number = 1  # each has a study of its own, whose trials begin at 0; a run that is resumed goes through them again
    for event in events:
        kind, number = str(event.get("event", "")), event.get("number")
        leader.hear(event, round_number)
        if kind == "stage.started":
            round_number = 1
        elif kind == "search.round":
            round_number = int(event["round"]) + 1
        elif number is not None and kind in EVENTS:
            rows[round_number, int(number)] = _event_row(int(number), kind, event)
    if leader.place in rows and rows[leader.place]["state"] == "complete":
        rows[leader.place]["best" if leader.is_feasible else "closest"] = True
    places = sorted(rows)
    several = len({place[0] for place in places}) > 1
    return [{**rows[place], "number": i} if several else rows[place] for i, place in enumerate(places)]


def trial_rows(result: SearchResult) -> list[Row]:
    """`trials` with every setting as a key of its own (`architecture.width`, `hyperparameters.dropout`): no nested values."""
    return [_flat_row(row) for row in trials(result)]


def rows_of_run(records: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Flat rows of a run's trials: from its search's record, or from its journal while the search is at work or if it failed."""
    result = records.get("search")
    return trial_rows(result) if result is not None else [_flat_row(row) for row in trials_of_events(events)]


def value_of(trial: Trial, objective: str) -> float | None:
    """A trial's objective, None where it has none that can be compared (failed, killed, not a number)."""
    value = trial.values.get(objective)
    return value if value is not None and math.isfinite(value) and trial.state in ("complete", "pruned") else None


def _places(result: SearchResult) -> dict[int, tuple[Any, ...]]:
    """What each trial is sorted by."""
    names, directions = objectives_of(result)
    fit = [t for t in result.trials if t.state == "complete" and all(value_of(t, name) is not None for name in names)]
    ranked = costs([values_of(t, names, directions) for t in fit], [violation(t) for t in fit])
    cost = {trial.number: found for trial, found in zip(fit, ranked)}

    def place(trial: Trial) -> tuple[Any, ...]:
        own = cost.get(trial.number, _cost(value_of(trial, result.objective), result.direction))
        tie = trial.values.get("log_loss", math.inf)
        is_best = trial.number == result.best_number
        return not is_best, trial.state != "complete", own, tie, trial.num_parameters, trial.number

    return {trial.number: place(trial) for trial in result.trials}


def _cost(value: float | None, direction: str) -> float:
    if value is None or not math.isfinite(value):
        return math.inf
    return value if direction == "minimize" else -value


def _row(trial: Trial, rank: int | None, result: SearchResult) -> Row:
    value = value_of(trial, result.objective)
    return {
        "rank": rank if value is not None and trial.state == "complete" else None,
        "number": trial.number,
        "state": trial.state,
        "value": value,
        "objectives": {name: value_of(trial, name) for name in objectives_of(result)[0]},
        "best": trial.number == result.best_number,
        "closest": False,
        "on_front": trial.number in result.front,
        "missed": missed(trial),
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
    objective = str(event.get("objective") or "")
    trial = Trial.from_json(event["trial"]) if isinstance(event.get("trial"), Mapping) else _told(number, kind, objective, event)
    trial = trial.replace(state=EVENTS[kind]) if kind in ("trial.started", "trial.rested") else trial
    known = SearchResult(study="", objective=objective, direction="", trials=(trial,), best_number=-1)
    return {**_row(trial, None, known), "value": trial.values.get(objective)}


def _told(number: int, kind: str, objective: str, event: Mapping[str, Any]) -> Trial:
    """A trial as an event tells it that does not hold its record."""
    candidate = Candidate(space="", architecture={"": event["architecture"]} if event.get("architecture") else {}, hyperparameters={})
    return Trial(
        number=number,
        candidate=candidate,
        state=str(event.get("state") or EVENTS[kind]),
        values={objective: float(event["value"])} if isinstance(event.get("value"), int | float) else {},
        cause=str(event.get("cause") or ""),
        reason=str(event.get("reason") or ""),
        seconds=float(event.get("seconds") or 0.0),
    )


def _flat_row(row: Row) -> Row:
    kept = {key: row[key] for key in PLAIN}
    objectives = {name: value for name, value in row["objectives"].items() if name}  # a trial at work has none yet
    told = _flatten(objectives, "objective.") | _flatten(row["missed"], "missed.") | _flatten(row["fidelity"], "fidelity.")
    return kept | told | _flatten(row["architecture"], "architecture.") | _flatten(row["hyperparameters"], "hyperparameters.")


# ---- settings -------------------------------------------------------------------------------------------------


def flat(candidate: Candidate) -> Row:
    """A candidate's settings in one mapping: nested ones by dotted name, the members of a list one by one."""
    found = {**_flatten(candidate.architecture, ""), **_flatten(candidate.hyperparameters, "")}
    return {key: value for name, item in found.items() for key, value in _members(name, item)}


def _members(name: str, value: Any) -> list[tuple[str, Any]]:
    """A list's members with their places from 1 (`depths` is `depths 1`, `depths 2`), a cell's operations with their edges,
    any other value as it is."""
    if isinstance(value, str) and cell.STRING.fullmatch(value):
        return [(f"edge {source}-{target}", operation) for source, target, operation in cell.edges_of(value)]
    return [(f"{name} {i}", item) for i, item in enumerate(value, start=1)] if isinstance(value, list | tuple) else [(name, value)]


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
    """Trial rows or version rows as aligned columns; what all trials share is said below them. Nothing for no rows."""
    if not rows:
        return ""
    shared = _shared(rows)
    objectives = next((list(found) for row in rows if (found := _under(row, "objective"))), [])
    cells = [_trial_cells(row, shared, objectives) if "number" in row else _version_cells(row) for row in rows]
    widths = {name: max(len(name), *(len(cell[name]) for cell in cells)) for name in cells[0]}
    lines = [{name: name for name in cells[0]}, *cells]
    foot = [f"every trial: {words.settings(shared)}"] if shared else []
    return "\n".join([*("  ".join(_aligned(name, line[name], widths[name]) for name in widths).rstrip() for line in lines), *foot])


def _shared(rows: Sequence[Row]) -> Row:
    """The settings of the architecture that are the same in every trial."""
    chosen = [found for row in rows if (found := _under(row, "architecture"))]
    return {key: value for key, value in chosen[0].items() if all(o.get(key) == value for o in chosen)} if len(chosen) > 1 else {}


TEXTS = ("state", "note", "architecture or reason", "alias", "deployable", "data")


def _aligned(name: str, cell: str, width: int) -> str:
    return cell.ljust(width) if name in TEXTS else cell.rjust(width)


def note(row: Row) -> str:
    """What sets a trial apart, in a word or two: the best, on the front, how far it came, what constraint it misses by how much."""
    missing = _under(row, "missed")
    told = [f"misses {words.plain(name)} by {words.amount(name, by)}" for name, by in missing.items()]
    epochs = _under(row, "fidelity").get("epochs")
    told += [f"after {epochs:g} epoch{'' if epochs == 1 else 's'}"] if row["state"] in ("pruned", "resting") and epochs else []
    places = {"best": "best", "closest": "closest", "on_front": "on the front"}
    return ", ".join([*(words for key, words in places.items() if row.get(key)), *told])


def _under(row: Row, name: str) -> Row:
    """The entries of a nested key, also of a row that was made flat."""
    return row[name] if name in row else {key.partition(".")[2]: value for key, value in row.items() if key.startswith(f"{name}.")}


def _trial_cells(row: Row, shared: Row, names: Sequence[str]) -> dict[str, str]:
    state = f"{row['state']} ({row['cause']})" if row["cause"] and row["cause"] != row["state"] else str(row["state"])
    chosen = {key: value for key, value in _under(row, "architecture").items() if key not in shared}
    known = _under(row, "objective")
    objectives = {name: known.get(name) for name in names} if len(names) > 1 else {next(iter(names), "value"): row["value"]}
    return {
        "trial": str(row["number"]),
        "state": state,
        **{words.metric(name): words.figure(value) for name, value in objectives.items()},
        "parameters": f"{row['parameters']:,}" if row["parameters"] else words.NONE,
        "time": words.seconds(row["seconds"]),
        "note": note(row),
        "architecture or reason": " ".join(row["reason"].split()) or words.settings(chosen),
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
