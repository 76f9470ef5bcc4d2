"""What the search asks of the families it is put together from.

A strategy is a class with keyword arguments and these two members, in components/search/strategy/<name>.py, named by
conf/strategy/<name>.yaml; tests/contracts/test_strategy.py finds it there and says what it must keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Strategy(Protocol):
    """Proposes the next candidate of a study.

    `learns` says whether suggestions depend on the trials so far. `sampler` is called once per suggestion with a seed
    made from the study's seed and the trial's number, and must take all of its randomness from it: what it knows of
    the study it replays from the trials it is shown, so a study goes on after a kill as if nothing had happened.
    """

    learns: bool

    def sampler(self, seed: int) -> BaseSampler:
        """A fresh Optuna sampler. `seed` is in 0..2**32-1."""
        ...
