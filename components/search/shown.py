"""Optuna's storage in memory, made to show a sampler the trials that somebody else keeps.

A study's one writer is its parent process; suggestions are made in another, from what it is shown. Optuna can only add
trials to a storage and copies each of them; here they are shown as they are, exchanged when they end, and a suggestion
that is not wanted is taken back. It leans on the private fields of `InMemoryStorage` of the pinned Optuna.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial


class Shown(InMemoryStorage):
    """Shows the trials of one study; their numbers are their ids."""

    def show(self, study_id: int, trials: Sequence[FrozenTrial]) -> None:
        """Adds trials or puts them in the place of those with the same numbers. Numbers must leave no gap."""
        held = self._held(study_id)
        for trial in trials:
            shown = copy.copy(trial)
            shown._trial_id = trial.number
            if trial.number < len(held):
                held[trial.number] = shown
                continue
            assert trial.number == len(held), f"trial {trial.number} is shown before {len(held)}"
            held.append(shown)
            self._trial_id_to_study_id_and_number[trial.number] = (study_id, trial.number)
            self._max_trial_id = trial.number

    def count(self, study_id: int) -> int:
        return len(self._held(study_id))

    def take_back(self, study_id: int) -> None:
        """Forgets the trial with the highest number."""
        last = self._held(study_id).pop()
        del self._trial_id_to_study_id_and_number[last.number]
        self._max_trial_id = last.number - 1

    def _held(self, study_id: int) -> list[Any]:
        return self._studies[study_id].trials
