"""A space of one architecture, a parent's: what is left to search is how to train it.

`space` is the parent's own space, `architecture` the parent's. An architecture may have `adapters`, the width of small
layers put after each block (components/models/adapters.py); the rest of it is the inner space's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from components.artifacts import JSON, DatasetVersion, InputField
from components.models import adapters
from components.models.conditional import ConditionalSpace
from components.models.interface import Space, Suggest

ADAPTERS = "adapters"


class Adopted(ConditionalSpace):
    """The space; flows make it of a parent's record, it has no yaml of its own."""

    def __init__(self, *, space: Space, architecture: JSON) -> None:
        self.space, self.architecture, self.modality = space, architecture, space.modality

    def sample(self, trial: Suggest, dataset: DatasetVersion) -> JSON:
        """The parent's architecture; nothing is drawn."""
        return dict(self.architecture)

    def parameters(self, architecture: JSON) -> dict[str, Any]:
        return {}

    def hyperparameters(self, trial: Suggest, dataset: DatasetVersion, optimizers: Any) -> JSON:
        return self.space.hyperparameters(trial, dataset, optimizers)

    def build(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        """The inner space's network, with adapters if the architecture has them."""
        network = self.space.build(without_adapters(architecture), inputs, num_outputs, dropout)
        if architecture.get(ADAPTERS):
            adapters.insert(network, inputs, int(architecture[ADAPTERS]))
        return network

    def shrink(self, architecture: JSON) -> JSON:
        return self.space.shrink(without_adapters(architecture))


def without_adapters(architecture: JSON) -> JSON:
    """What the inner space knows of an architecture."""
    return {name: value for name, value in architecture.items() if name != ADAPTERS}
