"""Strategies side by side: means and ranges over the seeds, the best test result first, every curve where it was."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from components.report import search_charts, strategies
from components.report.html import render
from tests.components.report.runs import ReportedRun
from tests.components.report.test_html import Page

PLAIN = "plain Optuna TPE + Lightning"


def run(strategy: str, seed: int, test: float | None, curve: list[list[float]], **more: Any) -> dict[str, Any]:
    best = curve[-1][1] if curve else None
    return {"strategy": strategy, "space": "convnet", "seed": seed, "trials": 10, "best": best, "test": test, "curve": curve, **more}


@pytest.fixture
def document() -> dict[str, Any]:
    runs = [
        run("random", 0, 0.90, [[2.0, 0.80], [8.0, 0.91]]), run("random", 1, 0.92, [[4.0, 0.85], [6.0, 0.93]]),
        run("surrogate", 0, 0.96, [[3.0, 0.90], [5.0, 0.97]]), run("surrogate", 1, 0.95, [[3.0, 0.92]], not_complete=2),
        run(PLAIN, 0, 0.93, [[2.0, 0.90]]), run(PLAIN, 1, 0.91, [[2.0, 0.94]]),
        {"strategy": "nsga2", "space": "convnet", "seed": 0, "trials": 0, "error": "nsga2 pursues several objectives", "curve": []},
    ]  # fmt: skip
    return {
        "dataset": "digits", "digest": "d" * 64, "objective": "accuracy", "direction": "maximize", "seconds": 60, "workers": 2,
        "machine": "2 cores", "beside": PLAIN, "runs": runs,
    }  # fmt: skip


def test_the_best_mean_stands_first_and_what_failed_last(document: dict[str, Any]) -> None:
    """Mean test result with its range, trials, and in one line why a strategy could not run."""
    found = strategies.view(document)
    assert found is not None
    rows = found["rows"]
    assert [row["strategy"] for row in rows] == ["surrogate", PLAIN, "random", "nsga2"]
    assert (rows[0]["test_words"], rows[0]["range_words"], rows[0]["not_complete"]) == ("0.9550", "0.9500 to 0.9600", 2)
    assert (rows[3]["test_words"], rows[3]["why"]) == ("–", "nsga2 pursues several objectives")
    assert rows[2]["from"] == 0.0
    assert rows[0]["to"] == pytest.approx(100.0)
    assert "4 searches of digits, each 1 min 00 s of search on 2 workers, 2 seeds" in found["words"]


def test_an_error_is_better_when_it_is_smaller(document: dict[str, Any]) -> None:
    """With a metric to minimise the order turns round."""
    found = strategies.view({**document, "direction": "minimize", "objective": "log_loss"})
    assert found is not None
    assert [row["strategy"] for row in found["rows"]] == ["random", PLAIN, "surrogate", "nsga2"]


def test_a_mean_curve_begins_where_every_seed_has_a_value() -> None:
    """And is the mean of the staircases from there on."""
    curve = strategies._mean_curve([[[2.0, 0.80], [8.0, 0.91]], [[4.0, 0.85], [6.0, 0.93]]])
    assert curve[0] == (4.0, pytest.approx((0.80 + 0.85) / 2))
    assert curve[-1] == (8.0, pytest.approx((0.91 + 0.93) / 2))
    assert strategies._mean_curve([[[2.0, 0.8]], []]) == []


def test_every_strategy_has_its_chart_with_all_others_behind_it(document: dict[str, Any]) -> None:
    """Three that ran: three charts of three lines, one of them hot, and the plain one dashed in the others' charts."""
    found = strategies.view(document)
    assert found is not None
    assert len(found["charts"]) == 3
    for chart in found["charts"]:
        lines = [e for e in ElementTree.fromstring(chart["svg"]).iter() if "line" in str(e.get("class")).split()]
        assert len(lines) == 3
        assert sum("hot" in str(e.get("class")) for e in lines) == 1
        assert sum("dashed" in str(e.get("class")) for e in lines) == (0 if chart["title"].startswith(PLAIN) else 1)
        assert not re.search(r"nan|inf", str(chart["svg"]))


def test_a_page_of_its_own_and_a_section_of_a_run(document: dict[str, Any], digits: ReportedRun, tmp_path: Path) -> None:
    """The same table and charts on both; without a document the run's report has no such section."""
    page = Page(strategies.write_comparison(tmp_path / "c.html", [document, {**document, "dataset": "mnist"}]).read_text())
    assert {"part1", "part2"} <= page.ids
    for text in (page.text, Page(render(**digits.keywords(), comparison=document)).text):
        for word in ("surrogate", "0.9550", PLAIN, "2 not complete", "pursues several objectives", "so far, by seconds"):
            assert word in text, word
    assert "strategies" not in Page(render(**digits.keywords())).ids
    assert strategies.view({**document, "runs": []}) is None


def test_trials_may_be_the_budget(document: dict[str, Any]) -> None:
    """Then the words and the charts count trials."""
    counted = {key: value for key, value in document.items() if key != "seconds"} | {"trials": 24}
    found = strategies.view(counted)
    assert found is not None
    assert "each 24 trials on 2 workers" in found["words"]
    assert found["unit"] == "trials"


@pytest.mark.parametrize(("end", "marks"), [(8.0, "0 2 4 6 8"), (10.0, "0 5 10"), (3.0, "0 1 2 3")])
def test_no_trial_is_half_a_trial(end: float, marks: str) -> None:
    racers = [search_charts.Racer("random", [(1.0, 0.8), (end, 0.9)])]
    found = search_charts.race("a race", racers, "random", "", x="trials", low=0.7, high=1)
    assert " ".join(re.findall(r'text-anchor="middle" >([\d.]+)<', str(found))) == marks


def test_a_document_is_found_by_the_data_it_was_measured_on(document: dict[str, Any], digits: ReportedRun, tmp_path: Path) -> None:
    """Another version of the data has none, and a file that is cut off is passed over."""
    dataset = digits.records["version"]
    (tmp_path / "cut.json").write_text('{"digest": "')
    (tmp_path / "digits.json").write_text(json.dumps({**document, "digest": dataset.digest}))
    found = strategies.find(tmp_path, dataset)
    assert found is not None
    assert found["runs"] == document["runs"]
    assert strategies.find(tmp_path, dataset.replace(digest="other")) is None
    assert strategies.find(tmp_path / "absent", dataset) is None
    assert strategies.find(tmp_path, None) is None
