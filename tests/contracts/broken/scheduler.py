"""Schedulers that look right and are not: each must fail the family's contract."""

from __future__ import annotations

import random
from collections.abc import Sequence

from components.search.interface import Standing
from components.search.promotion import ladder, promoted


class _Halving:
    """What they have in common is right."""

    needs = frozenset({"epochs"})

    def rungs(self, full: int) -> tuple[int, ...]:
        return ladder(full, 3, 1)

    def first_rung(self, number: int, rungs: Sequence[int]) -> int:
        return 0

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        return promoted(standings, len(rungs), 3)


def _resting(standings: Sequence[Standing], rungs: Sequence[int]) -> list[Standing]:
    return [s for s in standings if s.costs and not s.is_running and not s.is_over and max(s.costs) < len(rungs) - 1]


class StopsShort(_Halving):
    """Leaves out the last rung."""

    def rungs(self, full: int) -> tuple[int, ...]:
        return ladder(full, 3, 1)[:-1] or (full,)


class CarriesOnTheRunning(_Halving):
    """Does not look who is running."""

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        return promoted([Standing(number=s.number, costs=s.costs, is_over=s.is_over) for s in standings], len(rungs), 3)


class CarriesOnTheFailed(_Halving):
    """Does not look who has failed."""

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        return promoted([Standing(number=s.number, costs=s.costs, is_running=s.is_running) for s in standings], len(rungs), 3)


class WaitsForThree(_Halving):
    """Carries nobody on before three have ended a rung, so that a short study ends with nothing."""

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        number = super().next(rungs, standings)
        rung = next((max(s.costs) for s in standings if s.number == number), None)
        return number if rung is not None and sum(rung in s.costs for s in standings) >= 3 else None


class DrawsLots(_Halving):
    """Carries a trial on or not by a generator of its own."""

    def __init__(self) -> None:
        self.generator = random.Random()

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        return super().next(rungs, standings) if self.generator.random() < 0.5 else None


class Remembers(_Halving):
    """Counts how often it was asked: after a resume it would decide otherwise."""

    def __init__(self) -> None:
        self.asked = 0

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        self.asked += 1
        return super().next(rungs, standings) if self.asked % 2 else None


class FirstComeFirstServed(_Halving):
    """Carries on a third, the ones that came first."""

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        ranked = [
            Standing(number=s.number, costs={r: float(s.number) for r in s.costs}, is_running=s.is_running, is_over=s.is_over)
            for s in standings
        ]
        return promoted(ranked, len(rungs), 3)


class CarriesOnAll(_Halving):
    """Never says no."""

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        resting = _resting(standings, rungs)
        return min(resting, key=lambda s: s.costs[max(s.costs)]).number if resting else None


class TrustsInfinity(_Halving):
    """Takes an infinite cost for a figure like any other."""

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        finite = [
            Standing(number=s.number, costs={r: min(c, 1e9) for r, c in s.costs.items()}, is_running=s.is_running, is_over=s.is_over)
            for s in standings
        ]
        return promoted(finite, len(rungs), 3)
