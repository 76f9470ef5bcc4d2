"""A search hands on the weights of its best trials, as files of its own result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.artifacts import Candidate, DatasetVersion, SearchResult, StoredFile, Trial
from components.errors import UsageError
from components.search.kept import publish
from tests.components.search.test_search import run

pytestmark = pytest.mark.usefixtures("light_workers")


def test_the_best_trials_with_weights_keep_them_below_the_results_folder(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Each has its own, whole; the others, and those that left none, have none. More are kept by the same study."""
    found = run(dataset, tmp_path / "s", trials=9, evaluator="standin.keeps_weights", keep=3)
    kept = [trial for trial in found.trials if trial.weights]
    able = sorted((trial for trial in found.trials if trial.number % 3 != 2), key=lambda trial: trial.values["rmse"])
    assert {trial.number for trial in kept} == {trial.number for trial in able[:3]}
    for trial in kept:
        assert trial.weights is not None
        assert trial.weights.path.is_relative_to(tmp_path / "out")
        assert trial.weights.path.read_text() == f"weights of trial {trial.number}"
        assert StoredFile.of(trial.weights.path) == trial.weights
    assert SearchResult.from_json(json.loads(json.dumps(found.to_json()))) == found
    more = run(dataset, tmp_path / "s", trials=9, evaluator="standin.keeps_weights", keep=99)
    assert more.study == found.study
    assert sum(trial.weights is not None for trial in more.trials) == 6


def test_no_evaluator_has_to_leave_weights_and_none_may_be_asked_for(dataset: DatasetVersion, tmp_path: Path) -> None:
    assert all(trial.weights is None for trial in run(dataset, tmp_path / "s", trials=2).trials)
    none = run(dataset, tmp_path / "t", trials=2, evaluator="standin.keeps_weights", keep=0)
    assert all(trial.weights is None for trial in none.trials)


def test_a_candidate_is_kept_once(tmp_path: Path) -> None:
    """Of trials of one candidate, the best; infeasible and pruned ones never."""
    (tmp_path / "w").write_text("w")
    weights = StoredFile.of(tmp_path / "w")

    def trial(number: int, width: int, value: float, **fields: object) -> Trial:
        candidate = Candidate(space="s", architecture={"width": width}, hyperparameters={})
        usual = {"state": "complete", "values": {"rmse": value}, "weights": weights}
        return Trial(number=number, candidate=candidate, **{**usual, **fields})  # type: ignore[arg-type]

    trials = (
        trial(0, 1, 0.3), trial(1, 1, 0.2), trial(2, 2, 0.4), trial(3, 3, 0.1, state="pruned"), trial(4, 4, 0.1, constraints={"macs": 1.0}),
    )  # fmt: skip
    result = SearchResult(study="s", objective="rmse", direction="minimize", trials=trials, best_number=1)
    assert [t.number for t in publish(result, 8, tmp_path / "out").trials if t.weights] == [1, 2]


def test_a_record_from_before_weights_were_kept_still_loads() -> None:
    old = Trial(number=0, candidate=Candidate(space="s", architecture={}, hyperparameters={}), state="complete").to_json()
    del old["weights"]
    assert Trial.from_json(old).weights is None


@pytest.mark.parametrize("keep", [-1, 1.5, "all", True])
def test_a_wrong_number_is_named_before_anything_runs(dataset: DatasetVersion, tmp_path: Path, keep: object) -> None:
    with pytest.raises(UsageError, match=r"search\.keep must be a whole number of at least 0, got"):
        run(dataset, tmp_path / "s", keep=keep)
