"""The blocks nearest to the input stay as the parent's; the others are trained, all at once or one after another.

`gradual` is "gradual unfreezing" from the head down (Howard and Ruder, ACL 2018). Normalisation in a block that rests
keeps the parent's statistics.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from components.artifacts import Candidate, DatasetVersion
from components.models.adoption import Adoption
from components.models.order import parts_of
from components.settings import number
from components.training.tuning import NEVER


class Frozen:
    """`share` of the blocks stay for good; the others join over the first `gradual` of the training, the last one first."""

    keeps = True

    def __init__(self, share: float = 0.5, gradual: float = 0.0, rate: float = 1.0) -> None:
        self.share = number("finetune.frozen.share", share, 0.0, 1.0)
        self.gradual = number("finetune.frozen.gradual", gradual, 0.0, 1.0)
        self.rate = number("finetune.frozen.rate", rate, 0.0, 1.0, above=True)
        self._new: frozenset[str] = frozenset()
        self._joins: dict[str, float] = {}

    def changed(self, candidate: Candidate) -> Candidate:
        return candidate

    def prepare(self, network: nn.Module, adoption: Adoption, dataset: DatasetVersion) -> nn.Module:
        """What is new is trained from the beginning wherever it is."""
        self._new = adoption.fresh
        trained = adoption.fresh | adoption.head
        blocks = {name: part for name, part in parts_of(network).items() if not _names(name, part) & trained}
        stay = round(self.share * len(blocks))
        for name, part in list(blocks.items())[:stay]:
            part.requires_grad_(False)
            self._joins[name] = NEVER
        others = list(blocks)[stay:]
        if self.gradual:
            self._joins |= {name: self.gradual * (place + 1) / len(others) for place, name in enumerate(reversed(others))}
        return network

    def joins(self, network: nn.Module) -> Mapping[str, float]:
        return self._joins

    def rates(self, network: nn.Module) -> Mapping[str, float]:
        return {name: self.rate for name, _ in network.named_parameters() if name not in self._new and self.rate != 1.0}

    def finish(self, network: nn.Module) -> nn.Module:
        return network


def _names(prefix: str, module: nn.Module) -> frozenset[str]:
    return frozenset(f"{prefix}.{name}" for name, _ in module.named_parameters())
