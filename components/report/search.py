"""The search on the page: what was tried, how it went, which trials lead, what made the difference, and what comes of it.

Drawn from the search's record; from the journal's events where it has not ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from components.artifacts import JSON, SearchResult, Trial
from components.report import cell, charts, findings, leaderboard, search_charts, words
from components.report.findings import Records
from components.report.importance import importances, is_crowded_low, ranks
from components.report.leaderboard import Row
from components.search.ranking import costs, values_of, violation

View = dict[str, Any]
MOST_DIMENSIONS = 8  # of the parallel coordinates
MOST_IMPORTANCES = 12
MOST_CLIMBS = 120  # learning curves drawn
CHOICES = ("space", "strategy", "scheduler", "evaluator", "runner")
DRAWN = ("history", "cost", "parallel", "rungs", "importance", "effects", "fronts", "leading", "cells", "rounds")


def view(records: Records, events: Sequence[Mapping[str, Any]], config: JSON) -> View | None:
    """All that the page shows of a search; None if there was none."""
    result = findings.search_of(records)
    empty: View = {**dict.fromkeys(DRAWN), "setup": _setup(config)}
    if result is None:
        rows = leaderboard.trials_of_events(events)
        told = {"words": _unfinished_words(rows, events), "rounds": _rounds([e for e in events if e.get("event") == "search.round"])}
        return {**empty, **told, **_trial_table(rows)} if rows else None
    rows = leaderboard.trials(result)
    several = len(leaderboard.objectives_of(result)[0]) > 1
    return {
        **empty,
        **_trial_table(rows),
        "words": _search_words(result),
        "history": _history(result, rows),
        "cost": None if several else _cost(result, rows),
        "fronts": _fronts(result, rows, _limits(config)) if several else None,
        "leading": [row for row in _views(rows) if row["on_front"]] if several else None,
        "importance": _importance(result),
        "rungs": _rungs(result, rows),
        "parallel": _parallel(result, rows),
        "cells": _cells(result),
        "effects": _effects(result.derived.get("effects") or {}, result.derived.get("evidence") or {}),
        "rounds": _rounds(result.rounds),
    }


# ---- in words -------------------------------------------------------------------------------------------------


def _setup(config: JSON) -> str:
    """Which member each family took."""
    named = [(family, str((config.get(family) or {}).get("_target_") or "")) for family in CHOICES]
    return ", ".join(f"{family} {target.rpartition('.')[0].rpartition('.')[2]}" for family, target in named if "." in target)


def _limits(config: JSON) -> dict[str, float]:
    return {key: float(value) for key, value in (config.get("constraint") or {}).items() if value is not None}


def _unfinished_words(rows: Sequence[Row], events: Sequence[Mapping[str, Any]]) -> str:
    complete = sum(1 for row in rows if row["state"] == "complete")
    failed = [e for e in events if e.get("event") in ("stage.started", "stage.failed") and e.get("stage") == "search"][-1:]
    ended = "ended without a result" if failed and failed[0]["event"] == "stage.failed" else "has not ended"
    return f"The search {ended}: {words.count(complete, 'trial')} complete of {len(rows)} started, told by the journal."


def _search_words(result: SearchResult) -> str:
    return " ".join([_best_words(result), *_front_words(result), *_missed_words(result), _ends_words(result)])


def _best_words(result: SearchResult) -> str:
    best = result.best_trial
    value = best.values.get(result.objective)
    if best.state != "complete":  # nothing was trained to the end
        return f"No trial was trained to the end; trial {best.number} stands for them, {words.figure(value)} when it stopped."
    told = f"Trial {best.number} is the best of {len(result.trials)} by validation {words.metric(result.objective)}"
    if result.front:
        told = f"Of {words.count(len(result.trials), 'trial')}, {best.number} is taken: validation {words.metric(result.objective)}"
    told += f", {words.figure(value)}" if value is not None else ""
    first = next((t for t in result.trials if t.number == 0), None)
    start = leaderboard.value_of(first, result.objective) if first and first.state == "complete" else None
    if start is not None and value is not None and best.number != 0:
        told += f" ({words.difference(value, start)} against trial 0)"
    return told + "."


def _front_words(result: SearchResult) -> list[str]:
    if not result.front:
        return []
    goals, several = words.listed([words.plain(objective) for objective in result.objectives]), len(result.front) > 1
    verb, them = ("are", "them") if several else ("is", "it")
    return [f"{words.count(len(result.front), 'trial')} {verb} on the front of {goals}: no other beats {them}."]


def _missed_words(result: SearchResult) -> list[str]:
    short = [trial for trial in result.trials if leaderboard.missed(trial)]
    if not short:
        return []
    names = words.listed([words.plain(limit) for limit in dict.fromkeys(limit for trial in short for limit in leaderboard.missed(trial))])
    return [f"{words.count(len(short), 'trial')} {'miss' if len(short) > 1 else 'misses'} a constraint ({names})."]


def _ends_words(result: SearchResult) -> str:
    ended: dict[str, int] = {}
    for trial in result.trials:
        if trial.state != "complete":
            kind = f"{trial.state} ({trial.cause})" if trial.cause and trial.cause != trial.state else trial.state
            ended[kind] = ended.get(kind, 0) + 1
    others = ", ".join(f"{number} {kind}" for kind, number in ended.items())
    return f"Not complete: {others}." if others else "Every trial completed."


# ---- the table of trials --------------------------------------------------------------------------------------


def _trial_table(rows: Sequence[Row]) -> View:
    """Rows for the table; a setting that all trials share is said once, not in each row."""
    architecture, hyper = _common(rows)
    shared = {**architecture, **hyper}
    objectives = list(rows[0]["objectives"]) if rows else []
    return {"rows": _views(rows), "shared": words.settings(shared) if shared else "", "objectives": [words.metric(o) for o in objectives]}


def _common(rows: Sequence[Row]) -> tuple[JSON, JSON]:
    architecture, hyper = (_shared([row[part] for row in rows if row[part]]) for part in ("architecture", "hyperparameters"))
    return architecture, hyper


def _shared(settings: Sequence[JSON]) -> JSON:
    if len(settings) < 2:
        return {}
    return {key: value for key, value in settings[0].items() if all(key in other and other[key] == value for other in settings)}


def _without(settings: JSON, shared: JSON) -> str:
    return words.settings({key: value for key, value in settings.items() if key not in shared})


def _views(rows: Sequence[Row]) -> list[View]:
    architecture, hyper = _common(rows)
    return [_trial_view(row, architecture, hyper) for row in rows]


def _trial_view(row: Row, architecture: JSON, hyper: JSON) -> View:
    plain = row["architecture"].get("")
    objectives = row["objectives"] if len(row["objectives"]) > 1 else {"": row["value"]}
    return {
        **row,
        "cells": [{"value": value, "words": words.figure(value)} for value in objectives.values()],
        "note": leaderboard.note({**row, "best": False}),
        "parameters_words": words.figure(int(row["parameters"])) if row["parameters"] else words.NONE,
        "seconds_words": words.seconds(row["seconds"]) if row["seconds"] else words.NONE,
        "architecture_words": str(plain) if plain else _without(row["architecture"], architecture),
        "hyper_words": _without(row["hyperparameters"], hyper),
        "values_words": ", ".join(f"{words.metric(k)} {words.figure(v)}" for k, v in row["values"].items() if k),
        "fidelity_words": words.settings(row["fidelity"]) if row["fidelity"] else "",
    }


def _tip(row: Row) -> str:
    told = ", ".join(f"{words.metric(k)} {words.figure(v)}" for k, v in row["objectives"].items() if v is not None)
    head = f"trial {row['number']}: {told}" if told else f"trial {row['number']}: {row['state']}. {row['reason']}"
    note = leaderboard.note(row)
    parts = [head, *([note] if note else []), words.settings(row["architecture"]), words.settings(row["hyperparameters"])]
    return "\n".join(parts)


# ---- trials in order and by cost ------------------------------------------------------------------------------


def _state(row: Row) -> str:
    return "infeasible" if row["missed"] and row["value"] is not None else str(row["state"])


def _marks(rows: Sequence[Row]) -> list[search_charts.TrialMark]:
    ordered = sorted(rows, key=lambda row: row["number"])
    return [search_charts.TrialMark(row["number"], row["value"], _tip(row), _state(row)) for row in ordered]


def _history(result: SearchResult, rows: Sequence[Row]) -> Markup | None:
    if len(rows) < 2:
        return None
    label = f"validation {words.metric(result.objective)} of each trial, with the best so far"
    begun = [(int(row["first"]), f"round {row['round']}") for row in result.rounds if row.get("first")]
    return search_charts.history(
        label, _marks(rows), y=words.metric(result.objective), maximize=result.direction == "maximize",
        best=result.best_number, rounds=begun,
    )  # fmt: skip


def _cost(result: SearchResult, rows: Sequence[Row]) -> Markup | None:
    parameters = {row["number"]: float(row["parameters"]) for row in rows if row["parameters"] and row["value"] is not None}
    if len(set(parameters.values())) < 2:
        return None
    trials = [(parameters[mark.number], mark) for mark in _marks(rows) if mark.number in parameters]
    metric, maximize = words.metric(result.objective), result.direction == "maximize"
    return search_charts.scatter(
        f"validation {metric} of each trial against its parameters",
        trials, x="parameters", y=metric, maximize=maximize, best=result.best_number,
    )  # fmt: skip


# ---- the front ------------------------------------------------------------------------------------------------


def _fronts(result: SearchResult, rows: Sequence[Row], limits: Mapping[str, float]) -> list[View]:
    """The first objective against each of the others."""
    sides = {
        o: search_charts.Objective(words.metric(o), d == "maximize", limits.get(o)) for o, d in zip(result.objectives, result.directions)
    }
    first, others = result.objectives[0], result.objectives[1:]
    rows = [row for row in rows if row["state"] == "complete" or row["missed"]]
    drawn = []
    for other in others:
        marks = [_front_mark(row, other, first) for row in rows if row["objectives"][other] is not None and row["value"] is not None]
        if len(marks) > 1:
            title = f"{words.sentence(words.plain(first))[:-1]} against {words.plain(other)}"
            svg = search_charts.front(f"{title} of each trial", marks, sides[other], sides[first], stairs=len(others) == 1)
            drawn.append({"title": title, "svg": svg, "limit": other in limits or first in limits})
    return drawn


def _front_mark(row: Row, x: str, y: str) -> search_charts.FrontMark:
    return search_charts.FrontMark(row["objectives"][x], row["objectives"][y], _tip(row), _state(row), row["on_front"], row["best"])


# ---- importance -----------------------------------------------------------------------------------------------


def complete_costs(result: SearchResult) -> tuple[list[Trial], list[float]]:
    """The complete trials and how good each is by all objectives and constraints; lower is better."""
    names, directions = leaderboard.objectives_of(result)
    fit = [t for t in result.trials if t.state == "complete" and all(leaderboard.value_of(t, o) is not None for o in names)]
    return fit, costs([values_of(t, names, directions) for t in fit], [violation(t) for t in fit])


def _importance(result: SearchResult) -> View | None:
    """How much each setting explains, the most important first."""
    fit, cost = complete_costs(result)
    found = importances([leaderboard.flat(t.candidate) for t in fit], cost, leaderboard.varied([t.candidate for t in fit]))
    if not found:
        return None
    rows = [
        {
            "name": spoken(row.name), "share": words.share(row.share), "part": row.share, "chance": row.chance,
            "is_sure": row.share > row.chance,
        }
        for row in found[:MOST_IMPORTANCES]
    ]  # fmt: skip
    return {"rows": rows, "trials": len(fit), "hidden": max(0, len(found) - MOST_IMPORTANCES), "sure": any(row["is_sure"] for row in rows)}


def spoken(setting: str) -> str:
    """A setting's name without where it stands."""
    return setting.rpartition(".")[2].replace("_", " ")


# ---- rungs ----------------------------------------------------------------------------------------------------


def _rungs(result: SearchResult, rows: Sequence[Row]) -> Markup | None:
    """Learning curves over the rungs where a scheduler compared trials."""
    known = {trial.number: trial for trial in result.trials if trial.rungs and not leaderboard.missed(trial)}
    if len({epochs for trial in known.values() for epochs in trial.rungs}) < 2:
        return None
    order = sorted(known.values(), key=lambda t: (t.number == result.best_number, len(t.rungs), t.number))[-MOST_CLIMBS:]
    tips = {row["number"]: _tip(row) for row in rows}
    climbs = [search_charts.Climb(_steps(trial), _climb_style(trial, result.best_number), tips[trial.number]) for trial in order]
    metric = words.metric(result.objective)
    label = f"validation {metric} of each trial at the epochs at which trials were compared"
    return search_charts.rungs(label, climbs, y=metric, maximize=result.direction == "maximize")


def _steps(trial: Trial) -> list[charts.Point]:
    return sorted((float(epochs), value) for epochs, value in trial.rungs.items())


def _climb_style(trial: Trial, best: int) -> str:
    return "hot thick" if trial.number == best else "c1" if trial.state == "complete" else "faint"


# ---- parallel coordinates -------------------------------------------------------------------------------------


def _parallel(result: SearchResult, rows: Sequence[Row]) -> Markup | None:
    """Settings against the objectives, the ones that go with them most on the right."""
    trials, cost = complete_costs(result)
    names = leaderboard.varied([trial.candidate for trial in trials])
    if len(trials) < 3 or not names:
        return None
    by_number = {trial.number: found for trial, found in zip(trials, cost)}
    flat = {trial.number: leaderboard.flat(trial.candidate) for trial in trials}
    dimensions = [dimension(spoken(setting), {n: f[setting] for n, f in flat.items() if setting in f}) for setting in names]
    dimensions.sort(key=lambda d: association(d, by_number))
    order = sorted(by_number, key=lambda n: (n == result.best_number, -by_number[n]))
    leading = max(1, len(order) // 4)
    grades = dict.fromkeys(order[:-leading], "faint") | dict.fromkeys(order[-leading:], "c1") | {result.best_number: "hot thick"}
    tips = {row["number"]: _tip(row) for row in rows}
    label = "settings of every completed trial, each line one trial, the best quarter and the best one highlighted"
    axes = _objective_axes(result, trials)
    return search_charts.parallel(label, [*dimensions[len(axes) - 1 - MOST_DIMENSIONS :], *axes], order, tips, grades)


def _objective_axes(result: SearchResult, trials: Sequence[Trial]) -> list[search_charts.Dimension]:
    """One axis an objective, the first one on the right."""
    names = reversed(leaderboard.objectives_of(result)[0])
    return [dimension(words.metric(objective), {trial.number: trial.values[objective] for trial in trials}) for objective in names]


def dimension(label: str, values: Mapping[int, Any]) -> search_charts.Dimension:
    """An axis for a setting: by value for numbers, by kind for the rest."""
    numbers = [v for v in values.values() if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > 1:
        return _numeric_dimension(label, {n: float(v) for n, v in values.items()})
    kinds = [words.setting(v) for v in sorted(values.values(), key=_kind_order)]
    place = {kind: (i + 0.5) / len(set(kinds)) for i, kind in enumerate(dict.fromkeys(kinds))}
    ticks = tuple((at, kind) for kind, at in place.items()) if len(place) <= 9 else ()
    return search_charts.Dimension(label, {n: place[words.setting(v)] for n, v in values.items()}, ticks)


def _kind_order(value: Any) -> tuple[int, Any]:
    """Lists of numbers by length and then by value, everything else by its text."""
    is_numeric = isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value)
    return (0, (len(value), tuple(value))) if is_numeric else (1, (0, (words.setting(value),)))


def _numeric_dimension(label: str, values: Mapping[int, float]) -> search_charts.Dimension:
    low, high = min(values.values()), max(values.values())
    axis = charts.Axis(label, low, high, log=is_crowded_low(list(values.values())))
    distinct = sorted(set(values.values()))
    marks = _apart(distinct, axis) if len(distinct) <= 4 else [m for m in axis.marks(4) if low <= m <= high]
    ends = [] if len(distinct) <= 4 else [v for v in (low, high) if all(abs(axis.at(v) - axis.at(m)) > 0.09 for m in marks)]
    ticks = tuple((axis.at(m), charts.tick_text(float(f"{m:.2g}" if m in ends else f"{m:.3g}"))) for m in [*marks, *ends])
    return search_charts.Dimension(label, {n: axis.at(v) for n, v in values.items()}, ticks)


def _apart(values: Sequence[float], axis: charts.Axis) -> list[float]:
    """The values whose labels do not lie on each other; of neighbours the lower one."""
    kept: list[float] = []
    for value in values:
        if not kept or axis.at(value) - axis.at(kept[-1]) > 0.07:
            kept.append(value)
    return kept


def association(found: search_charts.Dimension, cost: Mapping[int, float]) -> float:
    """How strongly a setting goes with the result: the absolute rank correlation over the trials that have it."""
    numbers = [n for n in found.places if n in cost]
    if len(numbers) < 3:
        return 0.0
    places, values = ranks([found.places[n] for n in numbers]), ranks([cost[n] for n in numbers])
    if places.std() == 0 or values.std() == 0:
        return 0.0
    return abs(float(np.corrcoef(places, values)[0, 1]))


# ---- cells, what a supernet said, rounds ----------------------------------------------------------------------


def _cells(result: SearchResult) -> list[View]:
    """The best trial's cell, and the one that was derived from a supernet where it is another."""
    best = cell.string_of(result.best.architecture)
    derived = next((string for params in result.derived.get("candidates") or () if (string := cell.string_of_params(params))), "")
    told = f"Trial {result.best_number}'s cell" + (", as the supernet had it" if derived == best else "")
    found = [(told, best)] if best else []
    found += [("The cell that the supernet's training derived", derived)] if derived and derived != best else []
    return [{"title": title, "string": string, "svg": cell.draw(string)} for title, string in found]


def _effects(effects: Mapping[str, float], evidence: Mapping[str, Any]) -> View | None:
    """What each value of a parameter adds to a candidate by the supernet, a row a parameter; strength 0..1 of the largest."""
    by_parameter: dict[str, dict[str, float]] = {}
    for key, effect in effects.items():
        parameter, _, value = key.partition("=")
        by_parameter.setdefault(parameter, {})[value] = float(effect)
    columns = list(dict.fromkeys(value for values in by_parameter.values() for value in values))
    largest = max((abs(effect) for effect in effects.values()), default=0.0)
    if not effects:
        return None
    if not largest:
        return {
            "columns": [],
            "rows": [],
            "words": "Its judgements differ no more than chance would have it: it tells no candidates apart.",
        }
    rows = [
        {"name": cell.edge_name(parameter) or spoken(parameter), "cells": [_effect_cell(values.get(column), largest) for column in columns]}
        for parameter, values in by_parameter.items()
    ]
    chance = evidence.get("p_value")
    told = "" if chance is None else f"Were there no differences, ones as large would be seen with a probability of {float(chance):.2g}."
    return {"columns": [cell.SPOKEN.get(column, column) for column in columns], "rows": rows, "words": told}


def _effect_cell(effect: float | None, largest: float) -> View:
    if effect is None:
        return {"words": "", "tone": "", "strength": 0.0}
    return {"words": f"{effect:+.4f}".replace("-", "−"), "tone": "c1" if effect > 0 else "bad", "strength": abs(effect) / largest}


def _rounds(rounds: Sequence[Mapping[str, Any]]) -> list[View]:
    """What each round reached of the target, what was diagnosed and how the next was aimed."""
    return [
        {
            "round": row.get("round"),
            "met": bool(row.get("met")),
            "reached": ", ".join(f"{words.metric(k)} {words.figure(v)}" for k, v in (row.get("reached") or {}).items()),
            "target": ", ".join(f"{words.metric(k)} {v:g}" for k, v in (row.get("target") or {}).items()),
            "diagnosis": str(row.get("diagnosis") or ""),
            "words": words.sentence(str(row.get("words") or "")),
            "aim": words.sentence(str(row.get("aim") or "")),
        }
        for row in rounds
    ]
