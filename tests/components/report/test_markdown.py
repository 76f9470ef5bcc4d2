"""Markdown and comparisons: the figures are there, tables hold, and better means better."""

from __future__ import annotations

import json

from components.artifacts import Estimate
from components.report import markdown
from tests.components.report.runs import ReportedRun


def test_summary_says_what_was_decided(digits: ReportedRun) -> None:
    """Verdict, test accuracy with its interval, every gate, every deployable, every stage."""
    text = markdown.summary(digits.run, digits.records)
    estimate = digits.records["evaluate"].test["accuracy"]
    assert "digits 3 is the champion" in text
    assert f"**{estimate.value:.4f}** | {estimate.low:.4f} to {estimate.high:.4f}" in text
    for word in ("beats baseline | pass", "student-int8", "distill | ran", "14 trials"):
        assert word in text


def test_trials_are_told_with_every_objective(halving: ReportedRun) -> None:
    """Both objectives of the chosen trial, and what sets it apart."""
    result = halving.records["search"]
    text = markdown.trials_table(result)
    assert text.splitlines()[0] == "| trial | state | accuracy | size, KiB | parameters | time | architecture or reason |"
    best = result.best_trial
    assert f"| {best.number} | complete, best, on the front | {best.values['accuracy']:.4f} | {best.values['size_kb']:.4f} |" in text


def test_ci_summary_puts_the_champion_beside(digits: ReportedRun) -> None:
    """Figures may come as numbers, estimates or their JSON; without a champion the text says so."""
    value = digits.records["evaluate"].test["accuracy"].value
    for before in (value - 0.01, Estimate(value=value - 0.01, low=0.0, high=1.0), {"value": value - 0.01, "low": 0.0, "high": 1.0}):
        text = markdown.ci_summary(digits.run, digits.records, {"accuracy": before})
        assert f"{value - 0.01:.4f} | +0.0100" in text
    assert "no champion before" in markdown.ci_summary(digits.run, digits.records, None)
    assert "±0" in markdown.ci_summary(digits.run, digits.records, digits.records["evaluate"])


def test_summary_of_nothing_is_still_a_summary() -> None:
    """A run that failed before its first record."""
    text = markdown.summary({"id": "r1", "state": "failed", "reason": "dataset.path does not exist"}, {})
    assert "dataset.path does not exist" in text


def test_table_cells_cannot_break_the_table() -> None:
    """Pipes, line ends and markup in a cell stay in it."""
    text = markdown.table(["a"], [["x|y\n<b>"]])
    assert text.splitlines()[2] == "| x\\|y &lt;b> |"


def test_compare_names_the_better_run_by_the_metric(digits: ReportedRun) -> None:
    """A higher accuracy is better, a lower log-loss is better, a smaller file is better."""
    report = digits.records["evaluate"]
    shifted = {name: e.replace(value=e.value - 0.01) for name, e in report.test.items()}
    other = {**digits.records, "evaluate": report.replace(test=shifted, chosen="teacher-fp32")}
    document, text = markdown.compare({"a": digits.records, "b": other}, "a", "b")
    better = {row["what"]: row["better"] for row in document["rows"]}
    assert better["test accuracy"] == "a"
    assert better["test log-loss"] == "b"
    assert better["size, KiB"] == "a"
    assert better["data"] is None
    assert json.loads(json.dumps(document)) == document
    assert "−0.0100, a is better" in text


def test_figures_on_different_data_are_not_compared(digits: ReportedRun) -> None:
    """Two test splits: the figures stand side by side and neither is called better."""
    report = digits.records["evaluate"]
    other = {
        "evaluate": report.replace(
            dataset=report.dataset.replace(digest="other"), test={"accuracy": Estimate(value=1.0, low=1.0, high=1.0)}
        )
    }
    document, _ = markdown.compare({"a": digits.records, "b": other}, "a", "b")
    assert {row["better"] for row in document["rows"] if row["what"].startswith("test ")} == {None}


def test_a_run_without_records_compares(digits: ReportedRun) -> None:
    """A failed run beside a finished one: what is missing is a dash."""
    document, text = markdown.compare({"a": digits.records, "b": {}}, "a", "b")
    assert all(row["second"] is None for row in document["rows"])
    assert "–" in text
