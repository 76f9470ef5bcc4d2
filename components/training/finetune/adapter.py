"""Small layers after each block are trained, the parent's weights stay (components/models/adapters.py names the papers).

They begin as the identity and remain: the candidate's architecture says how wide they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from components.artifacts import Candidate, DatasetVersion
from components.models import adapters
from components.models.adopted import ADAPTERS
from components.models.adoption import Adoption
from components.models.order import NORMS
from components.settings import number, whole
from components.training.tuning import NEVER


class AdapterTuning:
    """`width` units in the middle of each small layer, which learn at `rate` times the learning rate; `norms`: whether
    normalisation is trained as well."""

    keeps = True

    def __init__(self, width: int = 8, rate: float = 4.0, norms: bool = True) -> None:
        self.width, self.norms = whole("finetune.adapter.width", width, 1), norms

        self.rate = number("finetune.adapter.rate", rate, 0.0, 100.0, above=True)

    def changed(self, candidate: Candidate) -> Candidate:
        """A parent that has adapters keeps them as they are wide."""
        return candidate.replace(architecture={ADAPTERS: self.width, **candidate.architecture})

    def prepare(self, network: nn.Module, adoption: Adoption, dataset: DatasetVersion) -> nn.Module:
        known = dict(network.named_parameters())  # by the names from before the blocks are wrapped
        trained = [known[name] for name in adoption.head | adoption.fresh if name in known]
        if not adapters.has_adapters(network):
            adapters.insert(network, dataset.inputs, self.width)
        network.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        for module in network.modules():
            if isinstance(module, adapters.Adapter) or (self.norms and isinstance(module, NORMS)):
                module.requires_grad_(True)
        return network

    def joins(self, network: nn.Module) -> Mapping[str, float]:
        return {} if self.norms else {name: NEVER for name, module in network.named_modules() if isinstance(module, NORMS)}

    def rates(self, network: nn.Module) -> Mapping[str, float]:
        return {name: self.rate for name, _ in network.named_parameters() if ".adapter." in name and self.rate != 1.0}

    def finish(self, network: nn.Module) -> nn.Module:
        return network
