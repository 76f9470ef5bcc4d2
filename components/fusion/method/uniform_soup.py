"""The uniform soup: the mean of all ingredients (Wortsman et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.artifacts import TrainedModel
from components.settings import texts, whole

if TYPE_CHECKING:
    from components.fusion.pool import Pool


class UniformSoup:
    """`finetunes` are trained on from the teacher, `epochs` each, if there is time; `members` as in the greedy soup."""

    def __init__(self, *, finetunes: int = 3, epochs: int = 5, members: Sequence[str] = ()) -> None:
        self.finetunes, self.epochs = whole("fusion.finetunes", finetunes, 0), whole("fusion.epochs", epochs, 1)
        self.members = texts("fusion.members", members)

    def fuse(self, pool: Pool) -> TrainedModel:
        """The best ingredient where their mean is worse on validation."""
        from components.fusion.soup import cooked, ingredients, served  # imports torch, which reading the settings does without

        parts = ingredients(pool, self.finetunes, self.epochs, self.members)
        network, found = cooked(pool, parts)
        if pool.prefers(parts[0].metrics, found):
            first, best = parts[0].name, parts[0].metrics
            name = pool.objective if found[pool.objective] != best[pool.objective] else "log_loss"
            pool.leave_out(f"the mean of {len(parts)} networks", f"its {name} is {found[name]:.4f}, that of {first} {best[name]:.4f}")
            parts, (network, found) = parts[:1], cooked(pool, parts[:1])
        return served(pool, parts, network, found)
