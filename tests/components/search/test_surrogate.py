"""The default strategy: what it remembers, what it makes of scores, fidelities and constraints, and what it recommends."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from random import Random

import optuna
import pytest
from optuna.trial import TrialState

from components.errors import UsageError
from components.models.interface import Suggest
from components.models.points import Point, Points
from components.search.evidence import constraints_of, objectives_of
from components.search.problem import Problem, Told, keys_of, told_of
from components.search.strategy.surrogate import Surrogate


def program(suggest: Suggest) -> None:
    """Five letters and a number; a second number only where the first letter is an a."""
    for place in range(5):
        suggest.suggest_categorical(f"letter{place}", ["a", "b", "c", "d"])
    suggest.suggest_float("x", 0.0, 1.0)
    if suggest.suggest_categorical("letter0", ["a", "b", "c", "d"]) == "a":
        suggest.suggest_float("y", 0.0, 1.0)


def cost(point: Point) -> float:
    """Lower is better: letters that agree with their neighbour, x near 0.3, and y near 0.8 where there is one."""
    p = point.params
    alike = sum(p[f"letter{i}"] == p[f"letter{i + 1}"] for i in range(4))
    return -alike + 2.0 * abs(p["x"] - 0.3) + (2.0 * abs(p["y"] - 0.8) - 1.0 if "y" in p else 0.0)


def problem() -> Problem:
    return Problem(points=Points(program))


def trial_of(number: int, point: Point, values: Sequence[float] | None, **more: object) -> optuna.trial.FrozenTrial:
    state = more.pop("state", TrialState.COMPLETE if values is not None else TrialState.RUNNING)
    found = optuna.trial.create_trial(
        state=state, values=list(values) if values is not None else None, params=point.params,  # type: ignore[arg-type]
        distributions=point.distributions, **more,  # type: ignore[arg-type]
    )  # fmt: skip
    found.number = number
    return found


def told(trials: Sequence[optuna.trial.FrozenTrial], asked: Problem) -> list[Told]:
    return told_of(trials, [False], asked)


def suggest(strategy: Surrogate, trials: Sequence[optuna.trial.FrozenTrial], asked: Problem, seed: int = 0) -> Point:
    return strategy.sampler(seed, asked).next_point(asked, told(trials, asked), Random(f"{seed}/{len(trials)}"))  # type: ignore[attr-defined]


def search(strategy: Surrogate, asked: Problem, count: int, objective: Callable[[Point], float] = cost, seed: int = 0):  # type: ignore[no-untyped-def]
    trials: list[optuna.trial.FrozenTrial] = []
    for number in range(count):
        point = suggest(strategy, trials, asked, seed)
        trials.append(trial_of(number, point, [objective(point)]))
    return trials


def costs(trials: Sequence[optuna.trial.FrozenTrial]) -> list[float]:
    return [trial.value or 0.0 for trial in trials]


def test_it_finds_what_random_search_does_not() -> None:
    """30 trials on a function of pairs, conditions and numbers: better than the best of 100 random ones on average."""
    found = [min(costs(search(Surrogate(), problem(), 30, seed=seed))) for seed in range(2)]
    rng, points = Random(0), problem().points
    chance = [min(cost(points.draw(rng)) for _ in range(100)) for _ in range(20)]
    assert statistics.mean(found) < statistics.mean(chance)


def test_what_it_keeps_never_changes_what_it_suggests() -> None:
    """With failures, running trials, constraints and fidelities: one problem kept from trial to trial suggests what a new one does."""
    kept, rng = problem(), Random(1)
    trials: list[optuna.trial.FrozenTrial] = []
    for number in range(26):
        point = suggest(Surrogate(), trials, kept)
        assert point.params == suggest(Surrogate(), trials, problem()).params, f"trial {number} depends on what was kept"
        value = cost(point)
        if number % 7 == 5:
            trials.append(trial_of(number, point, None, state=TrialState.FAIL))
        elif number % 7 == 6:
            trials.append(trial_of(number, point, None))
        else:
            trials.append(trial_of(number, point, [value], constraints={"x": point.params["x"] - 0.6}))
        if number % 3 == 0 and (late := next((t for t in trials[:-1] if t.state is TrialState.RUNNING), None)):  # out of order
            trials[late.number] = trial_of(late.number, Point(late.params, late.distributions), [rng.random()])


def test_fidelities_are_told_apart_and_never_mistaken_for_the_end() -> None:
    """Rungs are rows of their own, the last one is the value itself; what a kept problem suggests is what a new one does."""
    kept = problem()
    trials: list[optuna.trial.FrozenTrial] = []
    for number in range(24):
        point = suggest(Surrogate(), trials, kept)
        assert point.params == suggest(Surrogate(), trials, problem()).params
        steps = {2: cost(point) + 3.0, 6: cost(point) + 1.0}
        if number % 3 == 0:
            trials.append(trial_of(number, point, [cost(point)], intermediate_values={**steps, 18: cost(point)}))
        else:
            trials.append(trial_of(number, point, None, state=TrialState.PRUNED, intermediate_values={2: steps[2]}))
    evidence = objectives_of(told(trials, kept))[0]
    assert evidence.fidelities == (2, 6, 18)
    assert len(evidence) == 8 * 3 + 16
    best = Surrogate().recommend(kept, told(trials, kept))
    assert best is not None
    assert best % 3 == 0, "a trial that only came part of the way was recommended"


def test_a_failure_is_the_worst_and_a_constraint_keeps_its_border() -> None:
    """Failed trials count with the largest value; constraint values keep their sign."""
    points, rng = Points(program), Random(0)
    drawn = [points.draw(rng) for _ in range(6)]
    trials = [trial_of(i, p, [float(i)], constraints={"size": i - 2.5}) for i, p in enumerate(drawn[:5])]
    rows = told([*trials, trial_of(5, drawn[5], None, state=TrialState.FAIL)], problem())
    values, threshold = objectives_of(rows)[0].standardised()
    assert values[5] == values.max() == values[4]
    assert math.isinf(threshold)
    assert (values[:4] < values[1:5]).all()
    (size,) = constraints_of(rows)
    values, threshold = size.standardised()
    assert [bool(v <= threshold) for v in values] == [True, True, True, False, False]


def scored(sign: float) -> Problem:
    """Scores that say how many letters agree: what makes a point good, or with the other sign what makes it bad."""
    found = problem()
    found.proxies = lambda point: {"agreement": sign * sum(point.params[f"letter{i}"] == point.params[f"letter{i + 1}"] for i in range(4))}
    return found


def agreement(trial: optuna.trial.FrozenTrial) -> int:
    return sum(trial.params[f"letter{i}"] == trial.params[f"letter{i + 1}"] for i in range(4))


def test_scores_without_training_lead_until_trials_say_that_they_mislead() -> None:
    """Right ones: nearly all of the first trials have the best score. Wrong ones: hardly any after the first, and the end is
    found all the same."""
    right, wrong = (search(Surrogate(), scored(sign), 30) for sign in (1.0, -1.0))
    assert sum(agreement(trial) == 4 for trial in right) >= 4, "there are four words that agree throughout"
    assert statistics.mean(map(agreement, right)) >= 2.0
    assert sum(agreement(trial) == 0 for trial in wrong[16:]) <= 4
    assert max(map(agreement, wrong)) >= 3


def test_the_final_choice_is_by_the_expected_value() -> None:
    """Noise as large as the effects: what is recommended is truly better than what was measured best, over 8 studies."""
    gained = 0.0
    for seed in range(8):
        asked, rng = problem(), Random(f"noise {seed}")
        points = [asked.points.draw(rng) for _ in range(60)]
        trials = [trial_of(i, point, [cost(point) + rng.gauss(0.0, 1.5)]) for i, point in enumerate(points)]
        number = Surrogate().recommend(asked, told(trials, asked))
        assert number is not None
        gained += cost(points[min(range(60), key=lambda i: costs(trials)[i])]) - cost(points[number])
    assert gained > 0.5


def test_only_what_keeps_the_constraints_is_recommended() -> None:
    """None if nothing does."""
    asked, rng = problem(), Random(2)
    points = [asked.points.draw(rng) for _ in range(12)]
    trials = [trial_of(i, point, [cost(point)], constraints={"x": 0.5 - point.params["x"]}) for i, point in enumerate(points)]
    number = Surrogate().recommend(asked, told(trials, asked))
    assert number is not None
    assert points[number].params["x"] >= 0.5
    nothing = [trial_of(i, point, [cost(point)], constraints={"x": 1.0}) for i, point in enumerate(points)]
    assert Surrogate().recommend(asked, told(nothing, asked)) is None
    assert Surrogate().recommend(asked, []) is None


def test_isomorphic_points_are_proposed_once_and_without_what_does_nothing() -> None:
    """Words of the same letters are one point here, represented by the sorted one."""

    def word(suggest: Suggest) -> str:
        return "".join(suggest.suggest_categorical(f"letter{i}", ["a", "b", "c"]) for i in range(4))

    points = Points(word)
    asked = Problem(
        points=points,
        key=lambda point: "".join(sorted(point.value)),
        fold=lambda point: points.draw(Random(0), {f"letter{i}": letter for i, letter in enumerate(sorted(point.value))}),
    )
    trials = search(Surrogate(), asked, 12, objective=lambda point: float(point.value.count("a")))
    values = ["".join(trial.params[f"letter{i}"] for i in range(4)) for trial in trials]
    assert len(set(values)) == 12, "there are 15 words but for their order"
    assert all(list(value) == sorted(value) for value in values)
    assert len(keys_of(asked, told(trials, asked))) == 12


def test_numbers_out_of_range_are_refused() -> None:
    """In one sentence that names key and rule."""
    with pytest.raises(UsageError, match=r"strategy\.random_every must be a whole number of at least 2, got 1"):
        Surrogate(random_every=1)
