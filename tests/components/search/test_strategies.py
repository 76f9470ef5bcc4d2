"""What each strategy does beyond what its family's contract asks of all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from components.errors import UsageError
from components.models.points import Point, Points
from components.search.problem import Problem, Recollection, Told, assessed, key_of_params, keys_of, told_of
from components.search.ranking import dominates
from components.search.strategy.evolution import Evolution
from components.search.strategy.gp import GP, Encoding, best_and_latest, observations, standardised
from components.search.strategy.greedy import Greedy
from components.search.strategy.grid import Grid
from components.search.strategy.nsga2 import NSGA2
from components.search.strategy.reinforce import LARGEST, Reinforce, ReinforceSampler, ascended, softmax
from components.search.strategy.tpe import TPEStrategy

LETTERS = "pqrst"
Objective = Callable[[dict[str, Any]], float | tuple[float, ...]]


def word(suggest: Any) -> dict[str, Any]:
    """Six letters, each with its own effect."""
    return {f"letter{place}": suggest.suggest_categorical(f"letter{place}", LETTERS) for place in range(6)}


def tree(suggest: Any) -> dict[str, Any]:
    """A choice between two families, each with a number of its own, over a shared one."""
    found = {"kind": suggest.suggest_categorical("kind", ["a", "b"]), "rate": suggest.suggest_float("rate", 1e-5, 1e-1, log=True)}
    name = "x" if found["kind"] == "a" else "y"
    return {**found, name: suggest.suggest_float(name, 0.0, 1.0), "depth": suggest.suggest_int("depth", 1, 4)}


def wrong_letters(params: dict[str, Any]) -> float:
    return float(sum(abs(LETTERS.index(value) - 3) for value in params.values()))


def bowl(params: dict[str, Any]) -> float:
    """Its least value is 0, in the family b."""
    away = (params["x"] - 0.5) ** 2 + 1 if params["kind"] == "a" else (params["y"] - 0.3) ** 2
    return away + (math.log10(params["rate"]) + 3) ** 2 + (params["depth"] - 3) ** 2


def search(strategy: Any, program: Callable[[Any], Any], objective: Objective, trials: int, seed: int = 0) -> list[Told]:
    """A study as the search plays it: a fresh sampler for every suggestion, of a problem that is kept."""
    problem = Problem(points=Points(program))
    told: list[Told] = []
    for number in range(trials):
        point = strategy.sampler(1000 * seed + number, problem).next_point(problem, told, Random(f"{seed}/{number}"))
        told.append(row(number, point, objective(point.params)))
    return told


def row(number: int, point: Point, values: float | tuple[float, ...] | None, **fields: Any) -> Told:
    state = TrialState.COMPLETE if values is not None else TrialState.FAIL
    values = (values,) if isinstance(values, float) else values
    trial = create_trial(state=state, values=values, params=point.params, distributions=point.distributions)
    return Told(number, point, fields.get("state", state), values, fields.get("violation", 0.0), fields.get("steps", {}), trial)


def least(told: Sequence[Told]) -> float:
    return min(t.values[0] for t in told if t.values)


@pytest.mark.parametrize(
    ("strategy", "trials", "seeds"),
    [(Greedy(), 60, 4), (Evolution(), 60, 4), (Reinforce(), 60, 4), (NSGA2(), 120, 4), (GP(candidates=50), 30, 2)],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else "",
)
@pytest.mark.parametrize(("program", "objective"), [(word, wrong_letters), (tree, bowl)])
def test_it_finds_better_ones_than_a_random_search(strategy: Any, trials: int, seeds: int, program: Any, objective: Any) -> None:
    """At the same number of trials, over the same seeds, on choices and on conditional numbers."""
    drawn = [[objective(Points(program).draw(Random(f"{seed}/{i}")).params) for i in range(trials)] for seed in range(seeds)]
    found = [least(search(strategy, program, objective, trials, seed)) for seed in range(seeds)]
    assert statistics.mean(found) < 0.8 * statistics.mean(min(values) for values in drawn)


# ---- grid ----


def test_grid_has_every_combination_once() -> None:
    """Choices, whole numbers and levels of numbers, along the conditions; then it repeats one, which ends a search."""
    told = search(Grid(levels=3), tree, bowl, 2 * 3 * 3 * 3)
    shown = {tuple(sorted(t.point.params.items())) for t in told}
    assert len(shown) == 54
    assert {t.point.params["depth"] for t in told} == {1, 3, 4}
    assert {t.point.params["rate"] for t in told} == {1e-5, 1e-3, 1e-1}
    problem = Problem(points=Points(tree))
    assert key_of_params(Grid(levels=3).sampler(1, problem).next_point(problem, told, Random(1))) in {key_of_params(t.point) for t in told}


def test_grid_is_shuffled_by_the_seed() -> None:
    """Its first points are not neighbours in the order of the space, and another seed has another order."""
    orders = [[t.point.params["letter0"] for t in search(Grid(), word, wrong_letters, 20, seed)] for seed in (0, 1)]
    assert orders[0] != orders[1]
    assert all(len(set(order)) == 5 for order in orders)


# ---- greedy ----


def test_greedy_tries_every_neighbour_and_then_starts_somewhere_else() -> None:
    """Around an optimum from which nothing leads on: its 24 neighbours, then a point that is no neighbour of any."""
    points, rng = Points(word), Random(0)
    best = points.draw(rng, {f"letter{i}": "s" for i in range(6)})
    told = [row(0, best, 0.0)]
    problem = Problem(points=points)
    for number in range(1, 26):
        point = Greedy(startup=1).sampler(number, problem).next_point(problem, told, Random(number))
        told.append(row(number, point, wrong_letters(point.params)))
    away = [sum(t.point.params[name] != best.params[name] for name in best.params) for t in told[1:]]
    assert away[:24] == [1] * 24
    assert away[24] > 1


def test_greedy_takes_smaller_steps_where_larger_ones_were_in_vain() -> None:
    """A number's neighbours come nearer from round to round, and end."""
    points, rng = Points(lambda suggest: suggest.suggest_float("x", 0.0, 1.0)), Random(0)
    told = [row(0, points.draw(rng, {"x": 0.5}), 0.0)]
    problem = Problem(points=points)
    steps = []
    for number in range(1, 201):
        point = Greedy(startup=1, rounds=100).sampler(number, problem).next_point(problem, told, Random(number))
        steps.append(abs(point.params["x"] - 0.5))
        told.append(row(number, point, 1.0))
        if number == 20:
            break
    assert statistics.mean(steps[:4]) > 5 * statistics.mean(steps[-4:])


# ---- evolution ----


def test_evolution_lets_the_old_die() -> None:
    """A candidate that was best long ago is no parent any more: children resemble the young."""
    points, rng = Points(word), Random(0)
    old = [row(n, points.draw(rng, {f"letter{i}": "s" for i in range(6)}), 0.0) for n in range(5)]
    young = [row(5 + n, points.draw(rng, {f"letter{i}": "p" for i in range(6)}), 18.0) for n in range(10)]
    problem = Problem(points=points)
    children = [Evolution(crossover=0.0).sampler(s, problem).next_point(problem, old + young, Random(s)) for s in range(10)]
    assert all(list(child.params.values()).count("p") >= 4 for child in children)


def test_trials_that_came_only_part_of_the_way_are_parents_too() -> None:
    """Under a scheduler most trials rest early: the further one came the better, then by value; failures are none."""
    points, rng = Points(word), Random(0)
    point = points.draw(rng)
    resting = {"state": TrialState.RUNNING}
    told = [
        row(0, point, None, steps={1: 0.1}, **resting), row(1, point, None, steps={1: 0.9, 3: 0.8}, **resting),
        row(2, point, 0.7), row(3, point, None), row(4, point, None, steps={1: 0.2}, **resting), row(5, point, None, steps={1: 0.0}),
    ]  # fmt: skip
    assert [t.number for t in assessed(told)] == [2, 1, 0, 4]


# ---- reinforce ----


def test_reinforce_learns_the_same_whenever_trials_end() -> None:
    """What the memo holds is a fresh replay of the trials, also when they end in another order than they began, are carried on
    from rung to rung, or fail."""
    points, rng = Points(tree), Random(0)
    ends = [row(n, (p := points.draw(rng)), None if n % 7 == 3 else bowl(p.params)) for n in range(60)]
    rungs = [row(n, t.point, None, state=TrialState.RUNNING, steps={1: 0.5 + n / 100}) for n, t in enumerate(ends)]
    sampler, kept = ReinforceSampler(0, None, Reinforce()), []
    shown: dict[int, Told] = {}
    for step in range(60 + 9):
        for number, rows in ((step, rungs), (step - 9 if step % 2 else step - 4, ends)):
            if 0 <= number < 60:
                shown[number] = rows[number]
        told = [shown[number] for number in sorted(shown)]
        assert sampler.replay(told, kept) == sampler.replay(told, [])
    assert len(kept) > 50


def test_reinforce_follows_its_gradient_within_bounds() -> None:
    """A rewarded choice becomes likelier, in agreement with the numerical gradient; no logit leaves the bounds."""
    logits, taken, advantage, entropy, tiny = (0.3, -0.2, 0.1), 1, 0.7, 0.05, 1e-6

    def objective(at: Sequence[float]) -> float:
        chances = softmax(at)
        return advantage * math.log(chances[taken]) - entropy * sum(p * math.log(p) for p in chances)

    moved = ascended(logits, taken, advantage, 1.0, entropy)
    for place in range(3):
        nudged = [logit + tiny * (i == place) for i, logit in enumerate(logits)]
        assert moved[place] - logits[place] == pytest.approx((objective(nudged) - objective(logits)) / tiny, abs=1e-4)
    assert max(ascended((LARGEST, 0.0), 0, 1.0, 100.0, 0.0)) <= LARGEST


# ---- nsga2 ----


def test_nsga2_covers_more_of_the_front_than_a_random_search() -> None:
    """With two objectives that pull apart: by the area that its trials dominate, and nearly all random ones are dominated."""

    def both(params: dict[str, Any]) -> tuple[float, float]:
        places = [LETTERS.index(value) for value in params.values()]
        return float(sum(places)), float(sum((4 - place) ** 2 for place in places))

    areas = []
    for seed in range(3):
        found = [t.values for t in search(NSGA2(), word, both, 150, seed) if t.values]
        drawn = [both(Points(word).draw(Random(f"{seed}/{i}")).params) for i in range(150)]
        areas.append([dominated_area(rows, (24.0, 96.0)) for rows in (found, drawn)])
        assert sum(any(dominates(a, b) for a in found) for b in drawn) > 0.9 * len(drawn)
    assert statistics.mean(found for found, _ in areas) > 1.01 * statistics.mean(drawn for _, drawn in areas)


def dominated_area(rows: Sequence[tuple[float, ...]], corner: tuple[float, float]) -> float:
    """Of two objectives, lower is better, up to a corner that all rows lie below."""
    area, best = 0.0, corner[1]
    for first, second in sorted(rows):  # type: ignore[misc]
        area += (corner[0] - first) * max(0.0, best - second)
        best = min(best, second)
    return area


# ---- gp ----


def test_gp_encodes_what_is_not_there_at_one_distance_from_all_that_is() -> None:
    """A number that only some points have lies on an arc around the place of those that have none."""
    points = Points(tree)
    a = [points.draw(Random(0), {"kind": "a", "x": x, "rate": 1e-3, "depth": 2}) for x in (0.0, 0.4, 1.0)]
    b = points.draw(Random(0), {"kind": "b", "y": 0.5, "rate": 1e-3, "depth": 2})
    encoding = Encoding.of([*a, b])
    columns = [name for name in sorted(encoding.ranges) for _ in range(2 if name in "xy" else 1)]
    rows = encoding.rows([*a, b])[:, [name == "x" for name in columns]]
    assert rows.shape == (4, 2)
    assert np.allclose(np.linalg.norm(rows[:3] - rows[3], axis=1), 1.0)
    assert np.linalg.norm(rows[0] - rows[2]) > np.linalg.norm(rows[0] - rows[1]) > 0
    assert encoding.is_choice.sum() == 1


def test_gp_sees_the_best_and_the_latest() -> None:
    """Of many trials the best half and the latest of the rest; values far worse than the median count as equally bad, and
    a failure as the worst."""
    points, rng = Points(word), Random(0)
    told = [row(n, points.draw(rng), float(n)) for n in range(50)]
    assert [found.trial.number for found in best_and_latest(observations(told, 5), 10)] == [0, 1, 2, 3, 4, 45, 46, 47, 48, 49]
    rows = observations(
        [row(0, told[0].point, 1.0), row(1, told[1].point, 2.0), row(2, told[2].point, 1e9), row(3, told[3].point, None)], 3
    )
    values = standardised(rows)[:, 0]
    assert values[0] > values[1] > values[2] == values[3]
    assert values[1] - values[2] < 4 * (values[0] - values[1])


def test_gp_takes_constraints_and_running_trials() -> None:
    """With a second objective, a constraint and trials under way it proposes what nobody tries, and mostly what is feasible."""
    study = optuna.create_study(directions=["minimize", "minimize"])
    problem = Problem(points=Points(tree))
    rng = Random(0)
    for number in range(25):
        point = problem.points.draw(rng)
        trial = create_trial(
            state=TrialState.RUNNING if number >= 23 else TrialState.COMPLETE,
            values=None if number >= 23 else [bowl(point.params), -point.params["rate"]],
            params=point.params, distributions=point.distributions,
            constraints={} if number >= 23 else {"depth": point.params["depth"] - 2.5},
        )  # fmt: skip
        study.add_trial(trial)
    told = told_of(study.get_trials(deepcopy=False), [False, False], problem)
    found = [GP(candidates=60).sampler(seed, problem).next_point(problem, told, Random(seed)) for seed in range(5)]
    assert all(problem.key(point) not in keys_of(problem, told) for point in found)
    assert sum(point.params["depth"] <= 2 for point in found) >= 3


# ---- settings ----


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Grid(levels=0), r"strategy\.levels must be a whole number of at least 1, got 0"),
        (lambda: Greedy(startup="few"), r"strategy\.startup must be a whole number of at least 1, got 'few'"),
        (lambda: Evolution(sample=11), r"strategy\.sample must be a whole number in 1\.\.10 \(strategy\.population\), got 11"),
        (lambda: Evolution(crossover=1.5), r"strategy\.crossover must be a number of at least 0 and at most 1, got 1\.5"),
        (lambda: Reinforce(baseline=1.0), r"strategy\.baseline must be a number of at least 0 and below 1, got 1\.0"),
        (lambda: Reinforce(learning_rate=0), r"strategy\.learning_rate must be a number above 0, got 0"),
        (lambda: Reinforce(entropy=math.nan), r"strategy\.entropy must be a number of at least 0, got nan"),
        (lambda: NSGA2(population=True), r"strategy\.population must be a whole number of at least 2, got True"),
        (lambda: GP(most=5), r"strategy\.most must be a whole number of at least 10, got 5"),
        (lambda: TPEStrategy(startup=2.5), r"strategy\.startup must be a whole number of at least 1, got 2\.5"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Any], words: str) -> None:
    """In one sentence with the key, the rule and the value."""
    with pytest.raises(UsageError, match=words):
        make()


def test_keys_follow_the_trials() -> None:
    """The set kept between suggestions is that of the trials shown now, whatever was shown before."""
    problem, rng = Problem(points=Points(word)), Random(0)
    rows = [row(n, problem.points.draw(rng), 1.0) for n in range(12)]
    for shown in (rows[:4], rows[:8], rows[2:6], [*rows[:3], rows[9], *rows[4:8]], rows, rows[:1], []):
        assert keys_of(problem, shown) == {key_of_params(t.point) for t in shown}


def test_a_space_is_recalled_from_its_trials() -> None:
    """Without a problem: which parameters come together is learned, also where a whole number says how many there are, and
    the same whether trials are met one by one or all at once."""

    def program(suggest: Any) -> None:
        if suggest.suggest_categorical("kind", ["a", "b"]) == "a":
            suggest.suggest_float("x", 0.0, 1.0)
        for place in range(suggest.suggest_int("depth", 1, 3)):
            suggest.suggest_categorical(f"op{place}", ["p", "q"])

    points, rng = Points(program), Random(0)
    trials = [create_trial(value=0.0, params=p.params, distributions=p.distributions) for p in (points.draw(rng) for _ in range(60))]
    one_by_one, at_once = Recollection(), Recollection()
    for count in range(len(trials) + 1):
        one_by_one.follow(trials[:count])
    at_once.follow(trials)
    for seed in range(50):
        drawn = at_once.points.draw(Random(seed))
        assert drawn == one_by_one.points.draw(Random(seed))
        assert points.draw(Random(0), drawn.params).params == drawn.params
    at_once.follow(trials[:1])
    assert set(at_once.points.draw(Random(0)).params) == set(trials[0].params)
