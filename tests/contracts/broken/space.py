"""Spaces that look right and are not: each must fail the family's contract."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from components.artifacts import JSON, InputField
from components.models.space.convnet import ConvNet


class SameSizeStudent(ConvNet):
    """Its student is as large as the teacher."""

    def shrink(self, architecture: JSON) -> JSON:
        return architecture


class CentredOnBatch(nn.Module):
    """A network whose outputs for a row depend on the other rows of the batch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        outputs = self.network(image)
        return outputs - outputs.mean(dim=0)


class JudgesByItsNeighbours(ConvNet):
    """Builds such a network."""

    def build(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        return CentredOnBatch(super().build(architecture, inputs, num_outputs, dropout))


class OwnDice(ConvNet):
    """Draws from a generator of its own instead of the trial."""

    def sample(self, trial: Any, dataset: Any) -> JSON:
        return {**super().sample(trial, dataset), "width": random.choice(range(8, 800, 4))}
