"""Who is carried on, against the rule written down anew: the best 1/reduction of a rung, the best one always."""

from __future__ import annotations

import random

import pytest

from components.search.interface import Standing
from components.search.promotion import ladder, promoted


def test_of_nine_at_the_first_rung_the_best_three_are_carried_on() -> None:
    """And of these, once they have ended the second rung, the best one."""
    costs = [5.0, 3.0, 8.0, 1.0, 7.0, 2.0, 9.0, 4.0, 6.0]
    reached = {n: {0: c} for n, c in enumerate(costs)}
    carried = []
    while (number := promoted([Standing(number=n, costs=c) for n, c in reached.items()], 3, 3)) is not None:
        place = max(reached[number]) + 1
        reached[number][place] = costs[number] if place < 2 else 0.0
        carried.append((number, place))
    assert carried == [(3, 1), (3, 2), (5, 1), (1, 1)]


@pytest.mark.parametrize("seed", range(5))
def test_exactly_the_best_share_of_each_rung_is_carried_on(seed: int) -> None:
    """Whatever the order in which trials end: who is carried on is among the best third of its rung, and nobody of them
    rests when a new trial is started."""
    rng = random.Random(seed)
    reached: dict[int, dict[int, float]] = {}
    for _ in range(120):
        number = promoted([Standing(number=n, costs=c) for n, c in reached.items()], 4, 3)
        best = {rung: best_at(rung, reached) for rung in range(3)}
        if number is None:
            assert all(rung + 1 in reached[n] for rung, numbers in best.items() for n in numbers)
            number = len(reached)
            reached[number] = {}
        else:
            assert number in best[max(reached[number])]
        reached[number][len(reached[number])] = rng.random()
    assert sum(3 in costs for costs in reached.values()) >= 1


def best_at(rung: int, reached: dict[int, dict[int, float]]) -> list[int]:
    ended = [n for n, costs in reached.items() if rung in costs]
    return sorted(ended, key=lambda n: reached[n][rung])[: max(1, len(ended) // 3)] if ended else []


def test_rungs_are_a_reduction_apart_and_never_too_short() -> None:
    """From the full length downwards, so that the last step is as long as the others."""
    assert ladder(52, 3, 1) == (2, 6, 17, 52)
    assert ladder(52, 3, 5) == (6, 17, 52)
    assert ladder(81, 3, 1) == (1, 3, 9, 27, 81)
    assert ladder(1, 3, 1) == (1,)
    assert ladder(4, 3, 9) == (4,)
