"""A network's features cut into stages: maximal runs of layers at one resolution.

A stage begins with the layer that changes the resolution (a strided convolution or a pooling), so its stride is how much
of the side it takes away. It is what one architecture can lend another: whatever blocks are inside, it turns features of
so many channels at one resolution into others at the next. Shapes are found without weights and without arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from components.artifacts import JSON, InputField
from components.errors import UsageError
from components.models.interface import Space

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Stage:
    """Layers `first` up to but without `last` of a network's features, and the shapes [C, H, W] it takes and makes."""

    first: int
    last: int
    takes: Shape
    makes: Shape

    @property
    def stride(self) -> int:
        """By how much the side shrinks, rounded: 1, 2, ..."""
        return max(1, round(min(self.takes[1:]) / min(self.makes[1:])))

    def __str__(self) -> str:
        shapes = (f"{channels}×{height}×{width}" for channels, height, width in (self.takes, self.makes))
        return f"{' to '.join(shapes)} (stride {self.stride})"


def image_of(channels: int, height: int, width: int) -> InputField:
    """What a space has to know of an image to build a network for it."""
    return InputField(name="image", dtype="uint8", shape=(channels, height, width))


def features_of(network: nn.Module) -> nn.Sequential:
    """The layers between a network's scaling and its head. Raises `UsageError` for a network that has no such row of layers."""
    features = getattr(network, "features", None)
    if not isinstance(features, nn.Sequential):
        raise UsageError(f"stages can be taken from convolutional networks (space=convnet or cell), not from {type(network).__name__}")
    return features


def shapes_of(space: Space | Any, architecture: JSON, image: Sequence[int]) -> list[Shape]:
    """The shape [C, H, W] before each layer of the features, and after the last one."""
    with torch.device("meta"), torch.no_grad():
        values = torch.zeros(1, *image)
        shapes = [_shape(values)]
        for layer in features_of(space.build(architecture, [image_of(*image)], 2).eval()):
            values = layer(values)
            shapes.append(_shape(values))
    return shapes


def stages_of(space: Space | Any, architecture: JSON, image: Sequence[int]) -> list[Stage]:
    """The stages of an architecture's network for images [C, H, W], in order."""
    shapes = shapes_of(space, architecture, image)
    starts = [0, *(i for i in range(1, len(shapes) - 1) if shapes[i + 1][1:] != shapes[i][1:])]
    return [Stage(first, last, shapes[first], shapes[last]) for first, last in zip(starts, [*starts[1:], len(shapes) - 1])]


def _shape(values: torch.Tensor) -> Shape:
    channels, height, width = values.shape[1:]
    return channels, height, width
