"""All weights are trained on; those that come from the parent more slowly than what is new.

With `decay` below 1 each block learns more slowly than the one after it: "discriminative fine-tuning" of Howard and
Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from components.artifacts import Candidate, DatasetVersion
from components.models.adoption import Adoption
from components.models.order import parts_of
from components.settings import number


class Full:
    """`rate` is the factor for what comes from the parent, `decay` that from a block to the one before it."""

    keeps = False

    def __init__(self, rate: float = 1.0, decay: float = 1.0) -> None:
        self.rate = number("finetune.full.rate", rate, 0.0, 1.0, above=True)
        self.decay = number("finetune.full.decay", decay, 0.0, 1.0, above=True)
        self._new: frozenset[str] = frozenset()

    def changed(self, candidate: Candidate) -> Candidate:
        return candidate

    def prepare(self, network: nn.Module, adoption: Adoption, dataset: DatasetVersion) -> nn.Module:
        self._new = adoption.fresh
        return network

    def joins(self, network: nn.Module) -> Mapping[str, float]:
        return {}

    def rates(self, network: nn.Module) -> Mapping[str, float]:
        parts = list(parts_of(network).values())
        found = {name: self.rate for name, _ in network.named_parameters()}
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        for above, part in enumerate(reversed(parts)):
            found |= {names[id(parameter)]: self.rate * self.decay**above for parameter in part.parameters()}
        return {name: factor for name, factor in found.items() if name not in self._new and factor != 1.0}

    def finish(self, network: nn.Module) -> nn.Module:
        return network
