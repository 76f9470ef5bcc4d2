"""Only the head is trained, and what else did not come from the parent: a linear classifier of the parent's features.

The rest needs no gradients, so a step costs a forward pass (Alain and Bengio, "Understanding intermediate layers using
linear classifier probes", 2016).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from components.artifacts import Candidate, DatasetVersion
from components.models.adoption import Adoption
from components.models.order import train_only
from components.settings import number
from components.training.tuning import NEVER


class LinearProbe:
    """Everything but the head rests; the head learns at `rate` times the learning rate."""

    keeps = True

    def __init__(self, rate: float = 10.0) -> None:
        self.rate = number("finetune.linear_probe.rate", rate, 0.0, 100.0, above=True)
        self._joins: dict[str, float] = {}

    def changed(self, candidate: Candidate) -> Candidate:
        return candidate

    def prepare(self, network: nn.Module, adoption: Adoption, dataset: DatasetVersion) -> nn.Module:
        self._joins = dict.fromkeys(train_only(network, adoption.head | adoption.fresh), NEVER)
        return network

    def joins(self, network: nn.Module) -> Mapping[str, float]:
        return self._joins

    def rates(self, network: nn.Module) -> Mapping[str, float]:
        return {name: self.rate for name, parameter in network.named_parameters() if parameter.requires_grad and self.rate != 1.0}

    def finish(self, network: nn.Module) -> nn.Module:
        return network
