"""Spaces that look right and are not: each must fail the family's contract."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from components.artifacts import JSON, DatasetVersion, InputField
from components.models.points import Point
from components.models.space.cell import CellSpace
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


class DrawsForNothing(ConvNet):
    """Draws a number that nothing is made of."""

    def sample(self, trial: Any, dataset: Any) -> JSON:
        trial.suggest_categorical("arch.spare", [2, 4])
        return super().sample(trial, dataset)


class OneKeyForAll(ConvNet):
    """Takes all architectures for the same one."""

    def key(self, architecture: JSON) -> str:
        return "network"


class KeyOfTheMoment(CellSpace):
    """Gives an architecture another key each time the space is built."""

    def __init__(self) -> None:
        super().__init__()
        self.salt = random.random()

    def key(self, architecture: JSON) -> str:
        return f"{self.salt}{super().key(architecture)}"


class FoldsNothing(CellSpace):
    """Knows isomorphic cells by their key, but encodes each as it was written."""

    def __init__(self) -> None:
        super().__init__(operations=["none", "skip_connect"], channels=[16], cells=[1])

    def fold(self, architecture: JSON) -> JSON:
        return architecture


class FoldsAway(CellSpace):
    """Folds to a cell that is another network."""

    def fold(self, architecture: JSON) -> JSON:
        return {**architecture, "cell": architecture["cell"].replace("nor_conv_1x1", "nor_conv_3x3")}


class ForgetsAChoice(ConvNet):
    """Does not tell how wide an architecture was drawn."""

    def parameters(self, architecture: JSON) -> dict[str, Any]:
        return {name: value for name, value in super().parameters(architecture).items() if name != "arch.width"}


class BlindEncoding(ConvNet):
    """Encodes without the pooling."""

    def encode(self, architecture: JSON, dataset: DatasetVersion) -> list[float]:
        return super().encode({**architecture, "pooling": "max"}, dataset)


class GrowingEncoding(ConvNet):
    """Encodes what was drawn and nothing else, so that lengths differ."""

    def encode(self, architecture: JSON, dataset: DatasetVersion) -> list[float]:
        return [x for x in super().encode(architecture, dataset) if x]


class FarNeighbours(ConvNet):
    """Takes any architecture for a neighbour."""

    def neighbours(self, architecture: JSON, dataset: DatasetVersion) -> list[JSON]:
        drawn: list[Point] = [self.points(dataset).draw(random.Random(seed)) for seed in range(9)]
        return [point.value for point in drawn if point.value != architecture]


class ItsOwnNeighbour(ConvNet):
    """Lists the architecture itself among its neighbours."""

    def neighbours(self, architecture: JSON, dataset: DatasetVersion) -> list[JSON]:
        return [architecture, *super().neighbours(architecture, dataset)]


class CountsOneOutput(ConvNet):
    """Counts a network's parameters as if it had one output."""

    def num_parameters(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int) -> int:
        return super().num_parameters(architecture, inputs, 1)


class CountsDepthsOnce(ConvNet):
    """Says its size as if all stages had one depth."""

    def size(self, dataset: DatasetVersion) -> int:
        return super().size(dataset) // 2
