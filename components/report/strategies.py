"""Strategies at equal budget, side by side: what each had found after so many seconds, and what its winner is worth.

`benchmarks/strategies.py` measures them and leaves one document a data set. It is shown on a page of its own and, handed
to `write_report`, in the report of a run on the same data (`find`).

    {"dataset": name, "digest": .., "objective": "accuracy", "direction": "maximize", "seconds": 60 (or "trials": 24), "workers": 2,
     "retrained": false, "machine": "..", "beside": "plain Optuna TPE + Lightning",
     "runs": [{"strategy": "surrogate", "space": "convnet", "seed": 0, "trials": 30, "not_complete": 1, "best": 0.99, "test": 0.98,
               "curve": [[seconds (or trials), best validation so far], ..]}, ..]}
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.artifacts import JSON, DatasetVersion
from components.report import search_charts, words
from components.store import full_disk_says_so, write_atomically

View = dict[str, Any]
Runs = Sequence[Mapping[str, Any]]
STEPS = 80  # points of a curve


def view(document: Mapping[str, Any] | None) -> View | None:
    """What the page shows of one document; None if there is none, or nothing was measured."""
    groups = _groups((document or {}).get("runs") or ())
    if not document or not groups:
        return None
    maximize, metric = document["direction"] == "maximize", str(document["objective"])
    rows = sorted((_row(name, space, runs) for (name, space), runs in groups.items()), key=lambda r: _order(r, maximize))
    beside, unit = str(document.get("beside") or ""), "trials" if "trials" in document else "seconds"
    return {
        "title": str(document["dataset"]),
        "words": _words(document, rows),
        "metric": words.metric(metric),
        "rows": [{**row, "is_beside": row["strategy"] == beside} for row in _placed(rows)],
        "charts": _charts(groups, [row["name"] for row in rows], beside, maximize, unit),
        "unit": unit,
        "beside": beside,
        "machine": str(document.get("machine") or ""),
    }


def find(folder: Path, dataset: DatasetVersion | None) -> JSON | None:
    """The newest document below `folder` that was measured on this version of the data; a damaged one is passed over."""
    files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True) if dataset else []
    for file in files:
        try:
            document: JSON = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if dataset and document.get("digest") == dataset.digest:
            return document
    return None


def _groups(runs: Runs) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """The runs of each strategy in each space, one a seed."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault((str(run["strategy"]), str(run["space"])), []).append(run)
    return found


def _row(strategy: str, space: str, runs: Runs) -> View:
    tests = [float(run["test"]) for run in runs if run.get("test") is not None]
    bests = [float(run["best"]) for run in runs if run.get("best") is not None]
    return {
        "name": name_of(strategy, space), "strategy": strategy, "space": space, "seeds": len(runs),
        "trials": statistics.mean(run["trials"] for run in runs), "best": statistics.mean(bests) if bests else None,
        "not_complete": sum(run.get("not_complete", 0) for run in runs),
        "test": statistics.mean(tests) if tests else None, "low": min(tests, default=None), "high": max(tests, default=None),
        "why": next((str(run["error"]) for run in runs if run.get("error")), ""),
    }  # fmt: skip


def name_of(strategy: str, space: str) -> str:
    """A strategy in a space, as a chart names it."""
    return f"{strategy}, {space}" if space else strategy


def _order(row: View, maximize: bool) -> tuple[bool, float, str]:
    """The best test result first; what has none goes by validation, behind."""
    value = row["test"] if row["test"] is not None else row["best"]
    cost = 0.0 if value is None else -value if maximize else value
    return row["test"] is None, cost, row["name"]


def _placed(rows: Sequence[View]) -> list[View]:
    """The rows in words, with the places of mean and range on one track from the lowest to the highest test result."""
    known = [row for row in rows if row["test"] is not None]
    low, high = min((row["low"] for row in known), default=0.0), max((row["high"] for row in known), default=1.0)
    span = (high - low) or 1.0

    def place(value: float | None) -> float | None:
        return None if value is None else 100.0 * (value - low) / span

    return [
        {
            **row,
            "at": place(row["test"]), "from": place(row["low"]), "to": place(row["high"]),
            "test_words": words.figure(row["test"]), "best_words": words.figure(row["best"]),
            "range_words": words.NONE if row["test"] is None else f"{words.figure(row['low'])} to {words.figure(row['high'])}",
            "trials_words": f"{row['trials']:.0f}",
        }
        for row in rows
    ]  # fmt: skip


def _words(document: Mapping[str, Any], rows: Sequence[View]) -> str:
    seeds = max(row["seeds"] for row in rows)
    spent = (
        words.count(int(document["trials"]), "trial") if "trials" in document else f"{words.seconds(float(document['seconds']))} of search"
    )
    budget = f"{spent} on {words.count(int(document['workers']), 'worker')}"
    told = f"{words.count(len(rows), 'search', 'searches')} of {document['dataset']}, each {budget}, {words.count(seeds, 'seed')}."
    metric = words.metric(str(document["objective"]))
    judged = "is trained by the same recipe" if document.get("retrained") else "is judged with the weights of its trial"
    return f"{told} The winner of each {judged}; its test {metric} is the mean over the seeds, with their range."


# ---- charts ---------------------------------------------------------------------------------------------------


def _charts(groups: Mapping[tuple[str, str], Runs], order: Sequence[str], beside: str, maximize: bool, unit: str) -> list[View]:
    """One small chart a strategy: its best so far by what was spent, before the faint lines of all others."""
    curves = {name_of(*key): _mean_curve([run["curve"] for run in runs if run.get("curve")]) for key, runs in groups.items()}
    racers = [search_charts.Racer(name, curves[name]) for name in order if curves[name]]
    if not racers:
        return []
    low, high = _bounds([racer.points for racer in racers], maximize)
    held = next((racer.name for racer in racers if racer.name.startswith(beside)), "") if beside else ""
    return [
        {
            "title": racer.name,
            "svg": search_charts.race(
                f"best validation result so far of {racer.name}", racers, racer.name, held, x=unit, low=low, high=high
            ),
        }
        for racer in racers
    ]


def _mean_curve(curves: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """The mean of staircases over the seeds, from where every seed has a value."""
    if not curves or not all(curves):
        return []
    start, end = max(curve[0][0] for curve in curves), max(curve[-1][0] for curve in curves)
    times = [start + (end - start) * step / STEPS for step in range(STEPS + 1)]
    return [(time, statistics.mean(_at(curve, time) for curve in curves)) for time in times]


def _at(curve: Sequence[Sequence[float]], time: float) -> float:
    return float([value for at, value in curve if at <= time + 1e-9][-1])


def _bounds(lines: Sequence[Sequence[tuple[float, float]]], maximize: bool) -> tuple[float, float]:
    """From the best end back to three times the spread of the ends: where lines begin is far off and the same for all."""
    ends = [line[-1][1] for line in lines]
    best, worst = (max(ends), min(ends)) if maximize else (min(ends), max(ends))
    reach = max(3.0 * abs(best - worst), 0.02 * abs(best), 1e-6)
    return (best - reach, best + 0.1 * reach) if maximize else (best - 0.1 * reach, best + reach)


# ---- a page of its own ----------------------------------------------------------------------------------------


def write_comparison(path: Path, documents: Sequence[JSON]) -> Path:
    """Writes a page with a section for each document, whole or not at all. Raises `TryAgainError` when the disk is full."""
    from components.report.template import environment

    sections = [found for document in documents if (found := view(document))]
    text = environment().get_template("comparison.html").render(sections=sections)
    with full_disk_says_so(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    return path
