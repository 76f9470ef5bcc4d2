"""What a real run leaves for a person to read of its search: the report and the leaderboard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.flows.conftest import Athanor


def test_the_report_shows_the_search_that_was_run(finished: tuple[Athanor, dict[str, Any]]) -> None:
    """Its members, every trial's value and its charts, each of which an XML parser takes."""
    athanor, document = finished
    text = Path(document["report"]).read_text(encoding="utf-8")
    rows = athanor.json("leaderboard")["trials"]
    assert rows
    for row in rows:
        assert f"{row['value']:.4f}" in text
    for word in ("Trials in order", "strategy ", "evaluator train", "All trials"):
        assert word in text, word
    charts = re.findall(r'<svg class="chart".*?</svg>', text, re.S)
    assert len(charts) > 4
    for chart in charts:
        ElementTree.fromstring(chart)


def test_the_leaderboard_says_who_is_best_and_how_long_each_was_trained(finished: tuple[Athanor, dict[str, Any]]) -> None:
    """Rows without nesting: rank, state, value, whether it is the best, epochs, and every setting under its own key."""
    athanor, _ = finished
    rows = athanor.json("leaderboard")["trials"]
    assert [row["best"] for row in rows] == [True] + [False] * (len(rows) - 1)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(row["fidelity.epochs"] == 1 for row in rows)
    assert "best" in athanor("leaderboard").splitlines()[2]


@pytest.mark.slow
def test_the_derived_cell_of_a_real_supernet_is_drawn(fresh: Athanor) -> None:
    """A one-shot search of cells: the best trial's cell and the derived one are pictures, each edge named by its operation."""
    words = ("space=cell", "strategy=oneshot", "strategy.epochs=8", "search.trials=2", "search.epochs=1", "training.epochs=1")
    document = fresh.json("run", *words, "distillation=none", "quantization=none", "budget=null", "search.workers=1", "training.threads=1")
    text = Path(document["report"]).read_text(encoding="utf-8")
    drawn = re.findall(r'<svg class="chart" role="img" aria-label="cell .*?</svg>', text, re.S)
    assert drawn
    for picture in drawn:
        edges = [e for e in ElementTree.fromstring(picture).iter() if "edge" in str(e.get("class")).split()]
        assert len(edges) == 6
    assert "What the supernet says of each choice" in text
