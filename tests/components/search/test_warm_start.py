"""Which candidates of earlier studies a new one begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.artifacts import DatasetVersion
from components.search.plan import Plan
from components.search.warm_start import find, leave
from tests.components.search import standin


def left_by(plan: Plan, folder: Path, name: str, *best: dict[str, Any]) -> None:
    """A study's file, as it would be after trials with these parameters, the best first."""
    leave(folder, plan, (), {})
    body = json.loads((folder / "best.json").read_text())
    rows = [{"params": params, "number": place, "value": float(place)} for place, params in enumerate(best)]
    (folder / "best.json").write_text(json.dumps({**body, "study": name, "best": rows}))


def test_what_later_rounds_left_is_found(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Their studies lie in the folder of the first round's."""
    plan = Plan.of(dataset, standin.POLICY, standin.config(), 0)
    left_by(plan, tmp_path / "a" / "round2", "a-round2", {"x": 1})
    assert [start.params for start in find(plan, tmp_path / "b", 3)] == [{"x": 1}]


def test_a_candidate_that_two_studies_share_keeps_its_first_place(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The best of one and the second of another is the best still, whoever else was second."""
    plan = Plan.of(dataset, standin.POLICY, standin.config(), 0)
    left_by(plan, tmp_path / "a", "a", {"x": 1}, {"x": 2})
    left_by(plan, tmp_path / "b", "b", {"x": 3}, {"x": 1})
    assert [start.params["x"] for start in find(plan, tmp_path / "c", 2)] == [1, 3]
