"""The greedy soup: an ingredient stays in if the soup is no worse with it (Wortsman et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.artifacts import TrainedModel
from components.settings import texts, whole

if TYPE_CHECKING:
    from components.fusion.pool import Pool


class GreedySoup:
    """Begins with the best ingredient; `finetunes` are trained on from the teacher, `epochs` each, if there is time.

    `members` are names of networks that join in; flows look them up and put their records into the pool.
    """

    def __init__(self, *, finetunes: int = 3, epochs: int = 5, members: Sequence[str] = ()) -> None:
        self.finetunes, self.epochs = whole("fusion.finetunes", finetunes, 0), whole("fusion.epochs", epochs, 1)
        self.members = texts("fusion.members", members)

    def fuse(self, pool: Pool) -> TrainedModel:
        """Never worse than the best ingredient on validation."""
        from components.fusion.soup import cooked, ingredients, served  # imports torch, which reading the settings does without

        first, *others = ingredients(pool, self.finetunes, self.epochs, self.members)
        chosen, (network, found) = [first], cooked(pool, [first])
        for other in others:
            tried, reached = cooked(pool, [*chosen, other])
            if not pool.prefers(found, reached):
                chosen, network, found = [*chosen, other], tried, reached
        return served(pool, chosen, network, found)
