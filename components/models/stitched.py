"""Networks put together from stages of several: a space around other spaces.

    {"bases":  [{"space": 0, "architecture": {...}, "image": [1, 28, 28]}, {"space": 1, ...}],
     "pieces": [{"base": 1, "first": 0, "last": 3}, {"adapter": [24, 16], "norm": true}, {"base": 0, "first": 2, "last": 5}]}

is the network of base 0 (its scaling, pooling and head) whose features are, one after another, layers of the bases'
networks and 1x1 convolutions between them that bring one's channels to what the other reads (Lenc and Vedaldi,
"Understanding image representations by measuring their equivariance and equivalence", CVPR 2015; Pan, Cai and Zhuang,
"Stitchable Neural Networks", CVPR 2023). The architecture is plain JSON and the weights are one file, so such a
network is trained, exported, quantised, distilled and registered like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from components.artifacts import JSON, DatasetVersion, InputField
from components.errors import UsageError
from components.models.hyperparameters import sample_hyperparameters
from components.models.interface import Space, Suggest
from components.models.stages import features_of, image_of, shapes_of


class Adapter(nn.Sequential):
    """A 1x1 convolution [B, in, H, W] → [B, out, H, W] with a bias, and behind it a batch normalisation if `norm`.

    Nothing bends in it: it is the linear map that two networks need between them to understand each other.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: bool) -> None:
        layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 1)]
        super().__init__(*layers, *([nn.BatchNorm2d(out_channels)] if norm else []))


class Stitched:
    """The space; `bases` are the spaces that the pieces come from. It is not searched: what it draws is of its first base alone."""

    modality = "image"

    def __init__(self, bases: Sequence[Any]) -> None:
        if not bases:
            raise UsageError("a stitched network needs at least one space whose stages it is made of, got none")
        self.bases: list[Space] = list(bases)

    def sample(self, trial: Suggest, dataset: DatasetVersion) -> JSON:
        """A whole network of the first base."""
        return self.whole(self.bases[0].sample(trial, dataset), dataset.inputs[0].shape)

    def hyperparameters(self, trial: Suggest, dataset: DatasetVersion, optimizers: Any) -> JSON:
        return sample_hyperparameters(trial, dataset, optimizers)

    def build(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        """The network of base 0 with the pieces as its features; takes the image uint8 or float [B, C, H, W]."""
        network = self._base(architecture, 0, inputs, num_outputs, dropout)
        used = sorted({piece["base"] for piece in architecture["pieces"] if "base" in piece})
        features = {base: features_of(self._base(architecture, base, inputs, num_outputs) if base else network) for base in used}
        network.features = nn.Sequential(*_layers(architecture["pieces"], features))
        return network

    def num_parameters(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int) -> int:
        """How many numbers its network would train."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.build(architecture, inputs, num_outputs).parameters())

    def shrink(self, architecture: JSON) -> JSON:
        """A smaller architecture of base 0's own space, whose student then has all its stages."""
        base = architecture["bases"][0]
        return self.bases[base["space"]].shrink(base["architecture"])

    def whole(self, architecture: JSON, image: Sequence[int]) -> JSON:
        """An architecture of the first space, put together from its own stages alone."""
        base = {"space": 0, "architecture": architecture, "image": list(image)}
        return {"bases": [base], "pieces": [{"base": 0, "first": 0, "last": len(shapes_of(self.bases[0], architecture, image)) - 1}]}

    def _base(self, architecture: JSON, number: int, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        base = architecture["bases"][number]
        fields = inputs if number == 0 else [image_of(*base["image"])]
        return self.bases[base["space"]].build(base["architecture"], fields, num_outputs, dropout=dropout)


def places_of(architecture: JSON) -> Iterator[tuple[JSON, range]]:
    """Each piece with the numbers that its layers have in the stitched network's features."""
    start = 0
    for piece in architecture["pieces"]:
        length = 1 if "adapter" in piece else piece["last"] - piece["first"]
        yield piece, range(start, start + length)
        start += length


def _layers(pieces: Sequence[JSON], features: dict[int, nn.Sequential]) -> Iterator[nn.Module]:
    for piece in pieces:
        if "adapter" in piece:
            in_channels, out_channels = piece["adapter"]
            yield Adapter(in_channels, out_channels, piece["norm"])
        else:
            yield from features[piece["base"]][piece["first"] : piece["last"]]
