"""Rows of trials and versions: who stands where, and that nothing without a value stands first."""

from __future__ import annotations

import json
import math

import pytest

from components.artifacts import Candidate, Estimate, SearchResult, Trial
from components.report import leaderboard
from tests.components.report.runs import ReportedRun


def trial(number: int, value: float | None, *, state: str = "complete", parameters: int = 10, **more: object) -> Trial:
    candidate = Candidate(space="mlp", architecture={"depth": number}, hyperparameters={"learning_rate": 0.1})
    values = {} if value is None else {"rmse": value}
    return Trial(number=number, candidate=candidate, state=state, values=values, num_parameters=parameters, **more)  # type: ignore[arg-type]


def study(*trials: Trial, direction: str = "minimize", best: int = 0) -> SearchResult:
    return SearchResult(study="s", objective="rmse", direction=direction, trials=trials, best_number=best)


def numbers(rows: list[leaderboard.Row]) -> list[int]:
    return [row["number"] for row in rows]


def test_smaller_errors_stand_first() -> None:
    """With an error metric, rank 1 is the smallest; failed trials come last with their reason and no rank."""
    rows = leaderboard.trials(
        study(trial(0, 3.0), trial(1, None, state="failed", cause="oom", reason="out of memory"), trial(2, 1.0), best=2)
    )
    assert numbers(rows) == [2, 0, 1]
    assert [row["rank"] for row in rows] == [1, 2, None]
    assert rows[2]["reason"] == "out of memory"


def test_not_a_number_never_stands_first() -> None:
    """NaN is no value: it has no rank and stands behind every number, in both directions."""
    for direction in ("minimize", "maximize"):
        rows = leaderboard.trials(study(trial(0, math.nan), trial(1, 5.0), direction=direction, best=1))
        assert numbers(rows) == [1, 0]
        assert rows[1]["rank"] is None
        assert rows[1]["value"] is None


def test_a_killed_trial_with_a_value_is_not_ranked() -> None:
    """A value measured before a kill says nothing about the candidate."""
    rows = leaderboard.trials(study(trial(0, 2.0), trial(1, 1.0, state="killed", cause="timeout"), best=0))
    assert numbers(rows) == [0, 1]
    assert rows[1]["rank"] is None


def test_infeasible_trials_stand_behind_feasible_ones_and_say_why() -> None:
    """However good: a trial that misses a constraint follows those that keep it, the one that misses less first."""
    rows = leaderboard.trials(
        study(
            trial(0, 3.0), trial(1, 1.0, constraints={"latency_ms": 0.5}), trial(2, 2.0, constraints={"latency_ms": 0.2, "macs": -5.0}),
            trial(3, 4.0, constraints={"latency_ms": -0.1}), trial(4, 0.5, state="pruned", fidelity={"epochs": 3}),
        )
    )  # fmt: skip
    assert numbers(rows) == [0, 3, 2, 1, 4]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, None]
    assert [leaderboard.note(row) for row in rows] == [
        "best",
        "",
        "misses latency by 0.2000 ms",
        "misses latency by 0.5000 ms",
        "after 3 epochs",
    ]


def test_several_objectives_stand_side_by_side(halving: ReportedRun) -> None:
    """A column an objective, the chosen trial first, the front ranked before what it beats, feasible ones first."""
    result = halving.records["search"]
    rows = leaderboard.trial_rows(result)
    head, *lines = leaderboard.text(rows).splitlines()
    assert {"accuracy", "size,", "KiB", "note"} <= set(head.split())
    complete = [row for row in rows if row["state"] == "complete"]
    kept = [row for row in complete if not any(key.startswith("missed.") for key in row)]
    assert rows[0]["number"] == result.best_number
    assert {row["number"] for row in kept[: len(result.front)]} == set(result.front)
    assert complete[: len(kept)] == kept
    assert sum("on the front" in line for line in lines) == len(result.front)
    assert sum("misses parameters" in line for line in lines) == sum(trial.constraints["num_parameters"] > 0 for trial in result.trials) > 1
    assert json.loads(json.dumps(rows)) == rows


def test_settings_that_all_trials_share_are_said_once() -> None:
    """In a terminal they stand below the table, not in each line."""
    result = study(*(trial(n, float(n)) for n in range(3)))
    same = tuple(t.replace(candidate=t.candidate.replace(architecture={"depth": t.number, "norm": "batch"})) for t in result.trials)
    text = leaderboard.text(leaderboard.trial_rows(result.replace(trials=same)))
    assert text.count("batch") == 1
    assert text.splitlines()[-1] == "every trial: norm batch"


def test_flat_rows_are_json_without_nesting(digits: ReportedRun) -> None:
    """What `--json` and table artifacts get: scalars and lists only, every setting under its own key."""
    rows = leaderboard.trial_rows(digits.records["search"])
    assert len(rows) == 14
    assert not [value for row in rows for value in row.values() if isinstance(value, dict)]
    assert json.loads(json.dumps(rows)) == rows
    assert {"architecture.kind", "hyperparameters.learning_rate"} <= set(rows[0])


def test_text_names_every_trial_and_the_reasons(digits: ReportedRun) -> None:
    """One aligned line a trial below the head."""
    lines = leaderboard.text(leaderboard.trial_rows(digits.records["search"])).splitlines()
    assert len(lines) == 15
    assert lines[0].split()[:3] == ["trial", "state", "accuracy"]
    assert any("failed (nan)" in line and "not a number at step 31" in line for line in lines)
    assert leaderboard.text([]) == ""


def test_events_tell_the_latest_of_each_trial() -> None:
    """A trial that was killed and run again appears once, as it is now; its record in the event is used."""
    done = trial(0, 1.5)
    events = [
        {"event": "trial.started", "number": 0},
        {"event": "trial.failed", "number": 0, "state": "killed", "cause": "killed", "reason": "worker died"},
        {"event": "trial.started", "number": 0},
        {"event": "trial.epoch", "number": 0, "value": 9.0},
        {"event": "trial.finished", "number": 0, "objective": "rmse", "trial": done.to_json()},
        {"event": "trial.started", "number": 1, "architecture": "depth=2"},
    ]
    rows = leaderboard.trials_of_events(events)
    assert [(row["number"], row["state"], row["value"]) for row in rows] == [(0, "complete", 1.5), (1, "running", None)]
    rested = {"event": "trial.rested", "number": 0, "objective": "rmse", "best_number": 0, "trial": done.to_json()}
    (row,) = leaderboard.trials_of_events([rested])
    assert (row["state"], row["value"], row["best"]) == ("resting", 1.5, False)
    assert rows[0]["hyperparameters"] == {"learning_rate": 0.1}


def test_a_run_whose_search_failed_has_a_leaderboard(failed: ReportedRun, digits: ReportedRun) -> None:
    """What the journal knows, with the reasons; the search's record where there is one."""
    text = leaderboard.text(leaderboard.rows_of_run(failed.records, failed.events))
    assert "failed (oom)" in text
    assert "out of memory at batch 512" in text
    assert "running" in text
    assert leaderboard.rows_of_run(digits.records, digits.events) == leaderboard.trial_rows(digits.records["search"])


def test_varied_settings_are_those_that_differ_or_are_missing() -> None:
    """Shared settings are left out, conditional ones are kept."""
    make = [{"width": 8, "norm": "batch"}, {"width": 16, "norm": "batch"}, {"width": 8, "norm": "batch", "expansion": 2}]
    candidates = [Candidate(space="s", architecture=a, hyperparameters={"epochs": 3}) for a in make]
    assert leaderboard.varied(candidates) == ["width", "expansion"]


def test_trials_of_later_rounds_are_numbered_on() -> None:
    """Each round's study begins at 0; a resumed run tells the first rounds again and changes nothing."""

    def ended(number: int, value: float) -> dict[str, object]:
        return {"event": "trial.finished", "number": number, "objective": "rmse", "trial": trial(number, value).to_json()}

    over = {"event": "search.round", "round": 1}
    events = [{"event": "stage.started", "stage": "search"}, ended(0, 3.0), ended(1, 2.0), over, ended(0, 1.0)]
    expected = [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert [(row["number"], row["value"]) for row in leaderboard.trials_of_events(events)] == expected
    resumed = [*events, {"event": "stage.started", "stage": "search"}, over, ended(0, 1.0), ended(1, 0.5)]
    assert [(row["number"], row["value"]) for row in leaderboard.trials_of_events(resumed)] == [*expected, (3, 0.5)]


def test_members_of_lists_and_cells_are_settings_of_their_own() -> None:
    """So that what matters can be told for each depth and each edge."""
    architecture = {"depths": [1, 2], "cell": "|nor_conv_3x3~0|+|none~0|skip_connect~1|", "channels": 16}
    candidate = Candidate(space="s", architecture=architecture, hyperparameters={})
    edges = {"edge 0-1": "nor_conv_3x3", "edge 0-2": "none", "edge 1-2": "skip_connect"}
    assert leaderboard.flat(candidate) == {"depths 1": 1, "depths 2": 2, **edges, "channels": 16}


def test_versions_on_other_data_stand_behind(digits: ReportedRun) -> None:
    """Best first among those judged on the newest version's data; aliases are named."""
    base = digits.records["register"]

    def version(number: int, value: float, digest: str = "") -> object:
        report = base.report
        dataset = report.dataset.replace(digest=digest) if digest else report.dataset
        return base.replace(
            version=number, report=report.replace(dataset=dataset, test={"accuracy": Estimate(value=value, low=value, high=value)})
        )

    rows = leaderboard.versions([version(1, 0.99, "old"), version(2, 0.95), version(3, 0.97)], champion=3, previous=2)  # type: ignore[list-item]
    assert [row["version"] for row in rows] == [3, 2, 1]
    assert [row["alias"] for row in rows] == ["champion", "previous", ""]
    assert "champion" in leaderboard.text(rows)


@pytest.mark.parametrize(
    ("name", "value", "than", "expected"),
    [("rmse", 1.0, 2.0, True), ("auc", 0.8, 0.9, False), ("auc", 0.9, 0.9, None), ("own", 1.0, 2.0, None)],
)
def test_better_follows_the_metric(name: str, value: float, than: float, expected: bool | None) -> None:
    """Lower errors and higher scores are better; equal or unknown is neither."""
    assert leaderboard.better(name, value, than) is expected


def ended(number: int, value: float, best: int, **more: object) -> dict[str, object]:
    row = {"event": "trial.finished", "number": number, "objective": "rmse", "best_number": best}
    return {**row, "trial": trial(number, value, **more).to_json()}  # type: ignore[arg-type]


def test_one_trial_of_an_unfinished_search_is_the_best() -> None:
    """However many were the best for a while."""
    rows = leaderboard.trials_of_events([ended(0, 3.0, 0), ended(1, 1.0, 1), ended(2, 2.0, 1)])
    assert [row["number"] for row in rows if row["best"]] == [1]
    assert leaderboard.note({**rows[0], "missed": {"num_parameters": 4154.0}}) == "misses parameters by 4,154"


def test_the_best_of_an_unfinished_search_is_that_of_all_rounds_and_keeps_the_constraints() -> None:
    """A later round's best may be worse, or miss a limit; where every trial does, the one that comes nearest is the closest."""
    over = {"event": "search.round", "round": 1}
    kept, missed = {"constraints": {"macs": -1.0}}, {"constraints": {"macs": 5.0}}
    for later in (ended(0, 2.0, 0, **kept), ended(0, 0.5, 0, **missed)):
        rows = leaderboard.trials_of_events([ended(0, 1.0, 0, **kept), over, later])
        assert [row["number"] for row in rows if row["best"]] == [0]
        assert not any(row["closest"] for row in rows)
    rows = leaderboard.trials_of_events([ended(0, 1.0, 0, constraints={"macs": 9.0}), over, ended(0, 2.0, 0, **missed)])
    assert [leaderboard.note(row).partition(",")[0] for row in rows] == ["misses MACs by 9", "closest"]
    assert not any(row["best"] for row in rows)
