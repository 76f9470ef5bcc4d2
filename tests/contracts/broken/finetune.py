"""Ways of fine-tuning that look right and are not: each must fail the family's contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from components.models import adapters
from components.training.finetune.adapter import AdapterTuning
from components.training.finetune.frozen import Frozen
from components.training.finetune.linear_probe import LinearProbe
from components.training.finetune.lora import LoRA


class Unmerged(LoRA):
    """Leaves its change beside the weights: a network that nobody can build again."""

    def finish(self, network: nn.Module) -> nn.Module:
        return network


class Dropped(LoRA):
    """Merges to the parent's weights: what was learned is lost."""

    def finish(self, network: nn.Module) -> nn.Module:
        for module in list(network.modules()):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        return network


class Thawed(Frozen):
    """Says that blocks stay and trains them all."""

    def prepare(self, network: nn.Module, *given: Any) -> nn.Module:
        return super().prepare(network, *given).requires_grad_(True)

    def joins(self, network: nn.Module) -> Mapping[str, float]:
        return {}


class Drifting(LinearProbe):
    """Lets the statistics of normalisation go on changing under a head that was made for them."""

    def joins(self, network: nn.Module) -> Mapping[str, float]:
        return {}


class Headless(LinearProbe):
    """Trains everything but what is new."""

    def prepare(self, network: nn.Module, adoption: Any, dataset: Any) -> nn.Module:
        super().prepare(network, adoption, dataset)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in adoption.head)
        return network


class Jolting(AdapterTuning):
    """Its layers change the features before they have learned anything."""

    def prepare(self, network: nn.Module, *given: Any) -> nn.Module:
        found = super().prepare(network, *given)
        for module in found.modules():
            if isinstance(module, adapters.Adapter):
                nn.init.normal_(module.up.weight)  # type: ignore[arg-type]
        return found


class Whimsical(LoRA):
    """Draws from a generator of its own: a resumed training would begin elsewhere."""

    def prepare(self, network: nn.Module, *given: Any) -> nn.Module:
        found = super().prepare(network, *given)
        generator = torch.Generator()
        generator.seed()
        with torch.no_grad():
            for name, parameter in found.named_parameters():
                if name.endswith(".down"):
                    parameter.normal_(generator=generator)
        return found
