"""Gates that break the promise of the family: decide from figures alone, and say why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from components.artifacts import GateResult
from components.registry.contender import Contender
from components.registry.gate.beats_champion import BeatsChampion


def _says(passed: bool, words: str = "1 look was enough") -> GateResult:
    return GateResult(name="broken", passed=bool(passed), rule="as it pleases the gate", words=words)


class AlwaysYes:
    """Lets everything pass."""

    def judge(self, challenger: Contender, champion: Contender | None) -> GateResult:
        return _says(True)


class AlwaysNo:
    """Lets nothing pass."""

    def judge(self, challenger: Contender, champion: Contender | None) -> GateResult:
        return _says(False)


class NewestWins:
    """Looks at version numbers."""

    def judge(self, challenger: Contender, champion: Contender | None) -> GateResult:
        return _says(champion is None or challenger.version > champion.version)


class Unseeded(BeatsChampion):
    """Compares on rows of its own choice, others each time."""

    def judge(self, challenger: Contender, champion: Contender | None) -> GateResult:
        rows = np.random.default_rng().integers(0, len(challenger.targets), len(challenger.targets))

        def some(side: Contender) -> Contender:
            return replace(side, outputs=side.outputs[rows], targets=side.targets[rows])

        return super().judge(some(challenger), champion and some(champion))


class TrustsNaN:
    """Refuses only what is surely worse, and NaN never is."""

    def judge(self, challenger: Contender, champion: Contender | None) -> GateResult:
        return _says(not _share_right(challenger) < (0.5 if champion is None else _share_right(champion)))


class Meddles(BeatsChampion):
    """Rounds the answers it was shown."""

    def judge(self, challenger: Contender, champion: Contender | None) -> GateResult:
        result = super().judge(challenger, champion)
        challenger.outputs[:] = challenger.outputs.round(1)
        return result


class SaysNothing(BeatsChampion):
    """Decides well and gives no figure."""

    def judge(self, challenger: Contender, champion: Contender | None) -> GateResult:
        return _says(super().judge(challenger, champion).passed, words="because")


def _share_right(side: Contender) -> Any:
    return np.where(np.isnan(side.outputs).any(), np.nan, (side.outputs.argmax(axis=1) == side.targets).mean())
