"""Local search: a neighbour of the best candidate, again and again; a simple baseline that is hard to beat.

White et al., "Local Search is State of the Art for Neural Architecture Search Benchmarks", 2020. Once all neighbours of
the best have been tried, it starts somewhere else. A number has no end of neighbours: they are tried in steps that
become smaller, as in a pattern search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any

from optuna.samplers import BaseSampler

from components.models.points import STEP, Point, has_few, others
from components.search.problem import PointSampler, Problem, Told, assessed, keys_of, unseen
from components.settings import whole

SHRINK = 0.5  # of the step, each time that all numbers of a candidate were changed up and down in vain

Move = tuple[str, Any]


class Greedy:
    """Random for `startup` trials, then untried neighbours of the best one since; random again once it has none left.

    Each number of a candidate is changed up and down `rounds` times. Raises `UsageError` for a number below 1.
    """

    learns = True
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, startup: int = 3, rounds: int = 3) -> None:
        self.startup, self.rounds = whole("strategy.startup", startup, 1), whole("strategy.rounds", rounds, 1)

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return GreedySampler(seed, problem, self)


class GreedySampler(PointSampler):
    """Which trials belong to the current climb is seen from their points alone; the memo only saves comparing them again."""

    def __init__(self, seed: int, problem: Problem | None, settings: Greedy) -> None:
        super().__init__(seed, problem)
        self._settings = settings

    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        climb = current_climb(told, problem.memo.setdefault("greedy", {}))
        best = assessed(climb)[:1] if len(climb) >= self._settings.startup else []
        found = self._neighbour(problem, told, best[0], rng) if best else None
        if found:
            return found
        return unseen(problem, told, lambda: problem.points.draw(rng))

    def _neighbour(self, problem: Problem, told: Sequence[Told], row: Told, rng: Random) -> Point | None:
        """An untried neighbour of a trial's point, or None."""
        seen = keys_of(problem, told)
        for name, value in self._moves(row.point, told, rng):
            point = problem.points.draw(rng, {**row.point.params, name: value})
            if problem.key(point) not in seen:
                return point
        return None

    def _moves(self, point: Point, told: Sequence[Told], rng: Random) -> list[Move]:
        """The changes of one value that are left, in random order."""
        tried = list(changes_from(point, told))
        numbers = [name for name, distribution in point.distributions.items() if not has_few(distribution)]
        rounds = sum(name in numbers for name, _ in tried) // (2 * len(numbers)) if numbers else 0
        moves: list[Move] = []
        for name, distribution in point.distributions.items():
            if name not in numbers or rounds < self._settings.rounds:
                moves += [(name, value) for value in others(distribution, point.params[name], rng, STEP * SHRINK**rounds)]
        moves = [move for move in moves if move not in tried]
        rng.shuffle(moves)
        return moves


def current_climb(told: Sequence[Told], known: dict[int, tuple[Point, bool]]) -> Sequence[Told]:
    """The trials since the search last started somewhere new: since the latest run of trials with no neighbour before them.

    `known` keeps which trials these are.
    """
    last = next((place for place in range(len(told) - 1, -1, -1) if _is_start(told, place, known)), 0)
    while last > 0 and _is_start(told, last - 1, known):
        last -= 1
    return told[last:]


def _is_start(told: Sequence[Told], place: int, known: dict[int, tuple[Point, bool]]) -> bool:
    row = told[place]
    found = known.get(row.number)
    if found is None or found[0] is not row.point:
        earlier = (told[i] for i in range(place - 1, -1, -1))
        found = known[row.number] = (row.point, next(changes_from(row.point, earlier), None) is None)
    return found[1]


def changes_from(point: Point, told: Iterable[Told]) -> Iterator[Move]:
    """For each trial that differs from the point in one shared value (what hangs on it aside), its name and new value."""
    params = point.params
    for row in told:
        other, found = row.point.params, None
        for name, value in params.items():
            if name in other and other[name] != value:
                if found is not None:
                    break
                found = name
        else:
            if found is not None:
                yield found, other[found]
