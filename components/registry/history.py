"""What was decided about a model so far, and how good its champion is: light to ask, MLflow need not be imported."""

from __future__ import annotations

import time

from components.artifacts import JSON, Estimate, EvaluationReport
from components.registry import ledger
from components.registry.champions import find_champion


def decisions(model: str) -> list[JSON]:
    """Every decision, oldest first: time, when (local), action, version, before, after, applied and the decision itself."""
    rows = ledger.history(model)
    return [{**row, "when": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["time"]))} for row in rows]


def champion_report(model: str) -> EvaluationReport | None:
    """The evaluation of the champion of now; None while there is none."""
    found = find_champion(model)
    return found.report if found else None


def champion_metrics(model: str) -> dict[str, Estimate]:
    """The champion's figures on its test split; empty while there is none."""
    report = champion_report(model)
    return dict(report.test) if report else {}
