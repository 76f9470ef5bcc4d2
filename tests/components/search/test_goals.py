"""Rungs, several objectives, constraints, targets with rounds, and warm starts: on the same real, small problem."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import DatasetVersion, SearchResult, Trial
from components.errors import UsageError
from components.search import target
from components.search.failures import NoTimeError
from components.search.plan import Plan
from components.search.ranking import costs, distance, dominates
from components.search.target import diagnose
from components.training.searched import settled
from components.workspace import Workspace
from flows.table import STAGES
from tests.components.search import standin
from tests.components.search.test_search import Events, decisions, outcome, run

pytestmark = pytest.mark.usefixtures("light_workers")
ASHA = {"_target_": "components.search.scheduler.asha.ASHA", "reduction": 3, "least": 1}
DESCENDING = {"_target_": f"{standin.HERE}.Descending"}
CLIMBING: dict[str, Any] = {"scheduler": ASHA, "evaluator": DESCENDING, "epochs": 9, "trials": 9}


# ---- rungs ----


def test_trials_rest_at_rungs_and_the_best_are_carried_on(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Every trial is trained to the first rung, a third goes on from where it was, and nothing is trained twice."""
    result = run(dataset, tmp_path / "s", **CLIMBING)
    lengths = Counter(max(int(e) for e in t.rungs) for t in result.trials)
    assert sum(lengths.values()) == 9
    assert lengths[1] >= 3
    assert 1 <= lengths[9] <= 3
    assert {t.state for t in result.trials if "9" in t.rungs} == {"complete"}
    assert all(t.state == "pruned" and f"of {9}" in t.reason for t in result.trials if "9" not in t.rungs)
    assert "9" in result.best_trial.rungs
    done = Counter((row["number"], row["epoch"]) for row in standin.starts(tmp_path / "s"))
    assert set(done.values()) == {1}, "an epoch was trained twice"
    assert sum(done.values()) == sum(max(int(e) for e in t.rungs) for t in result.trials)


def test_a_trial_that_is_killed_at_every_rung_once_has_lives_for_each_kill_only(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Its starts at higher rungs are no deaths: it is what it would have been."""
    emit = Events()
    whole = run(dataset, tmp_path / "whole", **CLIMBING)
    fragile = {**CLIMBING, "evaluator": {"_target_": f"{standin.HERE}.KilledOnceAtTheTop"}}
    result = run(dataset, tmp_path / "s", emit=emit, **fragile)
    assert [(outcome(t), t.rungs) for t in result.trials] == [(outcome(t), t.rungs) for t in whole.trials]
    assert len(emit.named("trial.retried")) == 2
    undisturbed = [row["attempt"] for row in emit.named("trial.started") if row["epochs"] == 3]
    assert set(undisturbed) == {1}


def test_a_climbing_study_goes_on_where_it_was(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Ended by the clock in the middle and called again, it is what it would have been; resting trials are told from finished ones."""
    whole = run(dataset, tmp_path / "whole", **CLIMBING)
    for _ in range(30):  # each session has time for a trial or two
        part = run(dataset, tmp_path / "parts", seconds=0.7, **CLIMBING)
        if len(part.trials) == 9 and sum("9" in t.rungs for t in part.trials) == sum("9" in t.rungs for t in whole.trials):
            break
    parts = run(dataset, tmp_path / "parts", **CLIMBING)
    assert [(outcome(t), t.rungs) for t in parts.trials] == [(outcome(t), t.rungs) for t in whole.trials]
    assert set(Counter((row["number"], row["epoch"]) for row in standin.starts(tmp_path / "parts")).values()) <= {1, 2}


@pytest.mark.parametrize("strategy", [standin.CONFIG["strategy"], standin.TPE], ids=["random", "tpe"])
def test_rungs_with_several_objectives_are_compared_by_dominance(
    dataset: DatasetVersion, tmp_path: Path, strategy: dict[str, Any]
) -> None:  # fmt: skip
    """Where Optuna's pruners raise, the trials that are carried on are those of the best front; its samplers take part."""
    result = run(dataset, tmp_path / "s", **{**CLIMBING, "trials": 8}, objective=["rmse", "mae"], strategy=strategy)
    assert result.objectives == ("rmse", "mae")
    assert any("9" in t.rungs for t in result.trials)
    assert any(t.state == "pruned" for t in result.trials)


def test_a_scheduler_needs_an_evaluator_with_epochs(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Refused in one line that names what would do."""
    with pytest.raises(UsageError, match=r"scheduler=asha needs an evaluator that trains epoch by epoch.*choose evaluator="):
        run(dataset, tmp_path / "s", scheduler=ASHA, trials=2)


# ---- objectives and constraints ----


def test_front_holds_what_no_other_trial_beats(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The front of two errors, its choice, and the record's directions."""
    result = run(dataset, tmp_path / "s", trials=10, objective=["rmse", "mae"])
    rows = {t.number: (t.values["rmse"], t.values["mae"]) for t in result.trials}
    assert set(result.front) == {n for n, row in rows.items() if not any(dominates(other, row) for other in rows.values())}
    assert result.best_number in result.front
    assert result.directions == ("minimize", "minimize")


def test_infeasible_trials_are_complete_and_never_best(dataset: DatasetVersion, tmp_path: Path) -> None:
    """A limit that about half of the trials miss: their misses are recorded, the best one keeps the limit."""
    free = run(dataset, tmp_path / "free", trials=10)
    limit = sorted(t.values["mae"] for t in free.trials)[4]
    bound = run(dataset, tmp_path / "bound", trials=10, constraint={"mae": limit}, objective="rmse")
    assert {t.state for t in bound.trials} == {"complete"}
    for trial in bound.trials:
        assert trial.constraints["mae"] == pytest.approx(trial.values["mae"] - limit)
    assert bound.best_trial.constraints["mae"] <= 0
    assert any(t.constraints["mae"] > 0 for t in bound.trials)


def test_a_limit_that_nothing_meets_names_the_closest(dataset: DatasetVersion, tmp_path: Path) -> None:
    """One line with the limit, the trial that came closest and what it had."""
    with pytest.raises(UsageError, match=r"no trial meets constraint.mae=1e-09: the closest is trial \d with mae 0\.\d+; loosen"):
        run(dataset, tmp_path / "s", trials=3, constraint={"mae": 1e-9})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "rmsse"}, "unknown objective 'rmsse'; did you mean 'rmse'"),
        ({"objective": ["latency_ms", "rmse"]}, "objective must begin with one of rmse, mae, r2, got latency_ms"),
        ({"objective": ["rmse", "rmse"]}, "objective names rmse twice"),
        ({"objective": "accuracy"}, "accuracy judges classification, this dataset's task is regression"),
        ({"constraint": {"latencyms": 1}}, "unknown constraint 'latencyms'; did you mean 'latency_ms'"),
        ({"constraint": {"latency_ms": -1}}, "constraint.latency_ms must be a positive number, got -1"),
        ({"target": {"rmsee": 1}}, "unknown target 'rmsee'; did you mean 'rmse'"),
        ({"target": {"rmse": 0.1}, "rounds": 0}, "rounds must be a whole number of at least 1, got 0"),
        ({"warm_start": -1}, "search.warm_start is a number of candidates"),
    ],
)
def test_a_goal_that_makes_no_sense_is_one_line(dataset: DatasetVersion, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """Each names the key, the rule and the value, before anything is tried."""
    with pytest.raises(UsageError, match=message):
        run(dataset, tmp_path / "s", **settings)


def test_ranking_by_dominance() -> None:
    """Fronts before fronts, feasible before infeasible, the crowded ones of a front last."""
    rows = [(1.0, 5.0), (2.0, 2.0), (5.0, 1.0), (2.1, 2.1), (6.0, 6.0), (0.0, 0.0)]
    cost = costs(rows, [0, 0, 0, 0, 0, 1.0])
    assert max(cost[:3]) < cost[3] < cost[4] < cost[5]
    assert costs([(3.0,), (1.0,)], [0, 0]) == [3.0, 1.0]
    assert distance({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 3], "c": 0}) == 2.0


# ---- targets ----


def test_a_target_that_is_met_ends_after_one_round(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The round says what was asked and what was reached."""
    result = run(dataset, tmp_path / "s", trials=3, target={"rmse": 10.0}, rounds=3)
    assert len(result.rounds) == 1
    assert result.rounds[0]["met"] is True
    assert len(result.trials) == 3


def test_a_missed_target_gets_a_diagnosis_and_a_round_that_starts_from_the_best(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The second round tries the first one's best, trains longer, and the best of both is the result."""
    emit = Events()
    result = run(dataset, tmp_path / "s", trials=4, target={"rmse": 1e-6}, rounds=2, evaluator=DESCENDING, warm_start=1, emit=emit)
    first, second = result.rounds
    assert first["diagnosis"] in ("under-fit", "over-fit")
    assert first["aim"]
    assert not second["met"]
    assert second["aim"] == ""
    assert [t.number for t in result.trials] == list(range(8))
    assert {t.fidelity["epochs"] for t in result.trials[4:]} == {6}
    assert len(set(decisions(result)[5:]) - set(decisions(result)[:4])) == 3, "a round draws candidates of its own"
    best_before = min(result.trials[:4], key=lambda t: t.values["rmse"])
    assert decisions(result)[4] == decisions(result)[best_before.number]
    assert len(emit.named("search.round")) == 2


def test_a_round_that_nothing_comes_of_takes_nothing_from_those_before(
    dataset: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Where trials of the second round all fail, or all miss a limit, the first one's best is the result."""
    goal: dict[str, Any] = {"target": {"rmse": 1e-6}, "rounds": 3, "trials": 3}
    broken = {"_target_": f"{standin.HERE}.Own", "function": "always_a_bug"}
    monkeypatch.setattr(target, "sized", lambda config, factor: {**config, "evaluator": broken})
    alone = run(dataset, tmp_path / "alone", trials=3)
    result = run(dataset, tmp_path / "s", **goal)
    assert result.best_trial.values == alone.best_trial.values
    assert [(row["diagnosis"], row["met"]) for row in result.rounds][1:] == [("no result", False)]
    assert "none of 3 trials completed" in result.rounds[1]["words"]


def test_limits_that_the_first_round_misses_aim_the_second(dataset: DatasetVersion, tmp_path: Path) -> None:
    """At smaller networks; if all rounds miss them, the closest of all is named."""
    emit = Events()
    with pytest.raises(UsageError, match=r"no trial meets constraint.mae=1e-09: the closest is trial \d with mae 0\.\d+; loosen"):
        run(dataset, tmp_path / "s", trials=3, constraint={"mae": 1e-9}, target={"rmse": 0.5}, rounds=2, emit=emit)
    first, second = emit.named("search.round")
    assert (first["diagnosis"], first["aim"], first["met"]) == ("too slow", "smaller networks", False)
    assert "no trial meets constraint.mae" in first["words"]
    assert second["aim"] == ""


def test_a_first_round_without_time_leaves_the_question_to_the_next(dataset: DatasetVersion, tmp_path: Path) -> None:
    """And where no round has the time for one trial, that is what is said."""
    emit, asked = Events(), []
    config = standin.config(trials=2, target={"rmse": 10.0}, rounds=2)
    plan, found = Plan.of(dataset, standin.POLICY, config, 0), run(dataset, tmp_path / "s", trials=2)

    def hurried(plan: Plan, folder: Path) -> SearchResult:
        asked.append(folder.name)
        if len(asked) == 1:
            raise NoTimeError("the search had 1 s, too few for one trial")
        return found

    result = target.in_rounds(plan, tmp_path / "it", Workspace(out=tmp_path, seconds=60, emit=emit), hurried)
    assert asked == ["it", "round2"]
    assert [row["met"] for row in result.rounds] == [False, True]
    assert [row["diagnosis"] for row in emit.named("search.round")[:1]] == ["no result"]


def test_a_search_without_time_for_one_trial_says_so(dataset: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that says what to raise: it is no bug."""
    monkeypatch.setattr("components.search.search.GRACE_SECONDS", 0.6)
    with pytest.raises(NoTimeError, match=r"the search had \d+ s, too few for one trial; raise budget"):
        run(dataset, tmp_path / "s", seconds=0.2, evaluator=f"{standin.HERE}.sleeps")


def test_each_setting_that_changes_a_trial_changes_the_studys_name(dataset: DatasetVersion) -> None:
    """On one database a study has nothing but its name: all that the stage's key takes is in it, but for what is asked of rounds."""
    stage = STAGES["search"]
    left_out = {*stage.ignores, *stage.extent, "runner", "parent", "inherit", "growth", "finetune", "metrics", "search"}
    plain = standin.config()
    name = Plan.of(dataset, standin.POLICY, plain, 0).name
    for section in stage.reads:
        if section in left_out:
            continue
        changed = {**plain, section: CHANGED[section]}
        assert Plan.of(dataset, standin.POLICY, changed, 0).name != name, section


CHANGED: dict[str, Any] = {
    "space": {"_target_": f"{standin.HERE}.TwoPoints"}, "strategy": standin.TPE, "scheduler": ASHA, "evaluator": DESCENDING,
    "trainer": {"_target_": "components.training.trainer.cpu.Cpu", "accumulate": 4}, "optimizer": {"other": {}},
    "schedule": {"one_cycle": {}}, "loss": {"huber": {}}, "training": {"clip": 0.5}, "objective": ["rmse", "mae"],
    "constraint": {"mae": 1.0},
}  # fmt: skip


def test_a_class_that_got_weight_in_a_round_has_it_in_the_full_training(dataset: DatasetVersion) -> None:
    """A candidate of that round carries it, and training takes a candidate's own."""
    plan = dataclasses.replace(Plan.of(dataset, standin.POLICY, target.weighted(standin.config(), 1), 0), round=2)
    result = SearchResult(study="s", objective="rmse", direction="minimize", trials=(trial_with(),), best_number=0)
    found = target._as_candidates(result, plan).best.hyperparameters
    assert found == {"class_weights": {"1": 2.0}}
    assert settled({"clip": 1.0, "class_weights": {"0": 9.0}}, found)["class_weights"] == {"1": 2.0}


CURVE = [{"epoch": e, "train_loss": 1.0 / e, "log_loss": 0.6} for e in range(1, 10)]


def trial_with(**fields: Any) -> Trial:
    candidate = {"space": "standin", "architecture": {}, "hyperparameters": {}}
    return Trial.from_json({"number": 0, "candidate": candidate, "state": "complete", "values": {"rmse": 1.0}, **fields})


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"history": [{**row, "log_loss": 2.0} for row in CURVE]}, "over-fit"),
        ({"history": [{**row, "log_loss": row["train_loss"]} for row in CURVE]}, "under-fit"),
        ({"history": CURVE, "constraints": {"mae": -0.001}}, "too slow"),
    ],
)
def test_diagnosis_follows_from_the_curve_and_the_limits(
    dataset: DatasetVersion, fields: dict[str, Any], kind: str
) -> None:  # fmt: skip
    """Each kind changes something in the configuration that it names."""
    config = standin.config(constraint={"mae": 0.1})
    plan = Plan.of(dataset, standin.POLICY, config, 0)
    found = diagnose(trial_with(**fields), plan)
    assert found.kind == kind
    assert found.words
    assert found.changes(plan.config) != plan.config or kind == "over-fit"


def test_one_bad_class_gets_weight(dataset: DatasetVersion) -> None:
    """A class that has most of the errors counts twice in the next round's loss."""
    classes = [{"rows": 100, "recall": 0.99}, {"rows": 100, "recall": 0.6}, {"rows": 100, "recall": 0.98}]
    named = dataset.replace(classes=("cat", "dog", "owl"))
    plan = Plan.of(dataset, standin.POLICY, standin.config(), 0)
    plan = dataclasses.replace(plan, dataset=named)
    found = diagnose(trial_with(history=[{"epoch": 1, "train_loss": 0.1, "classes": classes}]), plan)
    assert found.kind == "one bad class"
    assert "class dog has 93% of the errors (recall 0.600)" in found.words
    assert found.changes(plan.config)["training"]["class_weights"] == {"1": 2.0}


# ---- warm start ----


def test_a_new_study_starts_from_the_best_of_the_old_ones(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Best first, as ordinary trials; on resume the same ones; a changed space takes what it still knows."""
    old = run(dataset, tmp_path / "studies" / "a", trials=6)
    emit = Events()
    new = run(dataset, tmp_path / "studies" / "b", trials=3, seed=1, warm_start=2, emit=emit)
    ranked = [decisions(old)[t.number] for t in sorted(old.trials, key=lambda t: t.values["rmse"])]
    assert decisions(new)[:2] == ranked[:2]
    assert emit.named("search.warm_started")[0]["count"] == 2
    longer = run(dataset, tmp_path / "studies" / "b", trials=5, seed=1, warm_start=2)
    assert decisions(longer)[:3] == decisions(new)
    space = {"_target_": f"{standin.HERE}.TwoPoints"}
    changed = run(dataset, tmp_path / "studies" / "c", trials=2, space=space, warm_start=2)
    assert len(set(decisions(changed))) == 2


def test_studies_on_other_data_are_left_alone(dataset: DatasetVersion, tmp_path: Path) -> None:
    """A dataset a thousand times as large, or of another task, has nothing to say."""
    run(dataset, tmp_path / "studies" / "a", trials=2)
    kept = tmp_path / "studies" / "a" / "best.json"
    body = json.loads(kept.read_text())
    for change in ({"features": {**body["features"], "rows": 9.0}, "dataset": "other"}, {"question": {"task": "classification"}}):
        kept.write_text(json.dumps(body | change))
        emit = Events()
        run(dataset, tmp_path / "studies" / f"b{len(change)}", trials=1, seed=1, warm_start=2, emit=emit)
        assert not emit.named("search.warm_started")
    kept.write_text("{ torn")
    run(dataset, tmp_path / "studies" / "c", trials=1, seed=1, warm_start=2)


def test_a_strategy_that_recommends_has_the_last_word(dataset: DatasetVersion, tmp_path: Path) -> None:
    """What it believes in is the result, is kept for a run with nothing to do, and is a complete trial."""
    strategy = {"_target_": f"{standin.HERE}.Believer"}
    result = run(dataset, tmp_path / "s", trials=4, strategy=strategy)
    worst = max(result.trials, key=lambda t: t.values["rmse"])
    assert result.best_number == worst.number
    assert run(dataset, tmp_path / "s", trials=4, strategy=strategy) == result
    assert json.loads((tmp_path / "s" / "recommended.json").read_text())["number"] == worst.number
