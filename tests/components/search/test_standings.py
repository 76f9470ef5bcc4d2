"""Trials are compared at equal fidelity only, whatever the number of objectives."""

from __future__ import annotations

import math
import random

from components.search.ranking import dominates
from components.search.standings import Mark, standings_of


def order_at(rung: int, marks: dict[int, dict[int, Mark]]) -> list[int]:
    """The numbers of the trials that have ended a rung, best first."""
    costs = {s.number: s.costs[rung] for s in standings_of(marks) if rung in s.costs}
    return sorted(costs, key=lambda number: (costs[number], number))


def test_one_objective_is_its_own_cost() -> None:
    """Each rung has the value that was reached there."""
    found = standings_of({3: {0: Mark((0.5,)), 1: Mark((0.2,))}, 1: {0: Mark((0.7,))}})
    assert [(s.number, s.costs) for s in found] == [(1, {0: 0.7}), (3, {0: 0.5, 1: 0.2})]


def test_a_dominated_trial_costs_more_at_its_rung() -> None:
    """Of any two trials at one rung the one that is better in all objectives costs less."""
    rng = random.Random(0)
    marks = {n: {0: Mark((rng.random(), rng.random(), rng.random()))} for n in range(60)}
    cost = {s.number: s.costs[0] for s in standings_of(marks)}
    pairs = [(a, b) for a in marks for b in marks if dominates(marks[a][0].values, marks[b][0].values)]
    assert len(pairs) > 100
    assert all(cost[a] < cost[b] for a, b in pairs)


def test_what_was_reached_with_more_epochs_does_not_count_at_a_shorter_rung() -> None:
    """A trial that is ahead only because it was trained longer keeps its place at the rung below."""
    marks = {0: {0: Mark((0.9, 0.9)), 1: Mark((0.1, 0.1))}, 1: {0: Mark((0.5, 0.5))}, 2: {0: Mark((0.6, 0.6))}}
    assert order_at(0, marks) == [1, 2, 0]
    assert order_at(1, marks) == [0]
    others = {number: {0: rungs[0]} for number, rungs in marks.items()}
    assert order_at(0, others) == order_at(0, marks), "a longer training of one changed the places at the shorter rung"


def test_the_ends_of_a_front_come_before_its_crowd() -> None:
    """Of undominated trials those in a gap are carried on first, so that the front stays wide."""
    front = {0: (0.0, 1.0), 1: (0.5, 0.5), 2: (0.52, 0.48), 3: (0.54, 0.46), 4: (1.0, 0.0)}
    assert set(order_at(0, {n: {0: Mark(v)} for n, v in front.items()})[:2]) == {0, 4}


def test_infeasible_trials_cost_more_than_all_feasible_ones() -> None:
    """By how much they miss their constraints, with one objective and with two."""
    for width in (1, 2):
        marks = {n: {0: Mark((float(n),) * width, violation)} for n, violation in enumerate((0.5, 0.1, 0.0, 0.0))}
        assert order_at(0, marks) == [2, 3, 1, 0]


def test_running_and_failed_trials_are_told_apart() -> None:
    """A trial that runs and has ended no rung yet is among the standings, without a cost."""
    found = {s.number: s for s in standings_of({0: {0: Mark((math.inf,))}, 1: {}}, running=[1, 2], over=[0])}
    assert [found[n].is_running for n in range(3)] == [False, True, True]
    assert [found[n].is_over for n in range(3)] == [True, False, False]
    assert found[2].costs == {}


def test_an_infinite_objective_is_last_and_nothing_is_undefined() -> None:
    """A latency that could not be measured does not make the order of the others undefined."""
    rows = {0: (0.1, math.inf), 1: (0.2, 3.0), 2: (0.3, 2.0), 3: (0.5, 1.0), 4: (0.6, math.inf)}
    cost = {s.number: s.costs[0] for s in standings_of({n: {0: Mark(v)} for n, v in rows.items()})}
    assert not any(map(math.isnan, cost.values()))
    assert cost[4] == max(cost.values())
