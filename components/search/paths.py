"""Paths through a supernet: candidates drawn so that every value of a choice is used equally often.

Chu et al., "FairNAS", ICCV 2021: operations that are trained more often look better, whatever they are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, IntDistribution

from components.models.interface import Suggest
from components.models.points import FEW, Point, at, categorical, ranged


def fair_paths(program: Callable[[Suggest], Any], count: int, rng: Random) -> Iterator[Point]:
    """`count` points of a space. Of each parameter every value comes once before any comes again, where it has few."""
    decks: dict[str, list[Any]] = {}
    for _ in range(count):
        dealer = _Dealer(decks, rng)
        value = program(dealer)
        yield Point(dealer.params, dealer.distributions, value)


class _Dealer:
    """A `Suggest` that deals values from one shuffled deck for each parameter; numbers with many values are drawn."""

    def __init__(self, decks: dict[str, list[Any]], rng: Random) -> None:
        self._decks, self._rng = decks, rng
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._keep(name, categorical(tuple(choices)), choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        values = range(low, high + 1, step)
        found: int = self._keep(name, IntDistribution(low, high, log=log, step=step), values if len(values) <= FEW else ())
        return found

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        found: float = self._keep(name, ranged(low, high, log, step), ())
        return found

    def _keep(self, name: str, distribution: BaseDistribution, values: Sequence[Any]) -> Any:
        if name not in self.params:
            self.params[name] = self._deal(name, values) if values else at(distribution, self._rng.random())
            self.distributions[name] = distribution
        return self.params[name]

    def _deal(self, name: str, values: Sequence[Any]) -> Any:
        deck = [value for value in self._decks.get(name, ()) if value in values]
        if not deck:
            deck = self._rng.sample(list(values), len(values))
        self._decks[name] = deck[:-1]
        return deck[-1]
