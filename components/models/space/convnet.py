"""A macro space of convolutional networks for images from 8x8 grey to a few hundred pixels of RGB.

A stem, then stages of equal blocks; each stage after the first halves the side and widens. The stem strides until the
side is at most `largest_side`, because that first stage is where the time of a small network goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from components.artifacts import JSON, DatasetVersion, InputField
from components.errors import UnknownNameError, UsageError
from components.models.blocks import Plain, Residual, Separable
from components.models.hyperparameters import sample_hyperparameters
from components.models.interface import Suggest, choose
from components.models.preprocessing import ScaleImage

BLOCKS: dict[str, type[nn.Module]] = {"plain": Plain, "residual": Residual, "separable": Separable}
DOWNSAMPLES = ("max", "stride")
POOLINGS = ("average", "max", "flatten")


class ConvNet:
    """The space; see `conf/space/convnet.yaml` for its choices."""

    modality = "image"

    def __init__(
        self,
        *,
        stages: Sequence[int] = (2, 3),
        widths: Sequence[int] = (24, 32, 48),
        growths: Sequence[float] = (1.5, 2.0),
        depths: Sequence[int] = (1, 2),
        blocks: Sequence[str] = ("plain", "residual", "separable"),
        kernels: Sequence[int] = (3,),
        separable_kernels: Sequence[int] = (3, 5),
        expansions: Sequence[int] = (2,),
        downsamples: Sequence[str] = ("max",),
        poolings: Sequence[str] = POOLINGS,
        activations: Sequence[str] = ("relu",),
        norms: Sequence[str] = ("batch",),
        largest_side: int = 16,
        dropout: float = 0.3,
        label_smoothing: float = 0.1,
    ) -> None:
        self.stages, self.widths, self.growths, self.depths = list(stages), list(widths), list(growths), list(depths)
        self.blocks, self.expansions = list(blocks), list(expansions)
        self.kernels, self.separable_kernels = list(kernels), list(separable_kernels)
        self.downsamples, self.poolings = list(downsamples), list(poolings)
        self.activations, self.norms = list(activations), list(norms)
        self.largest_side, self.dropout, self.label_smoothing = largest_side, dropout, label_smoothing
        for kind, names, known in (("block", blocks, BLOCKS), ("downsample", downsamples, DOWNSAMPLES), ("pooling", poolings, POOLINGS)):
            _check(kind, names, known)

    def sample(self, trial: Suggest, dataset: DatasetVersion) -> JSON:
        """Draws stages, depth of each, width, block (and what only that block has), pooling and activation."""
        stages = choose(trial, "arch.stages", self._fitting_stages(_image(dataset.inputs)))
        block = choose(trial, "arch.block", self.blocks)
        architecture: JSON = {
            "block": block,
            "width": choose(trial, "arch.width", self.widths),
            "growth": choose(trial, "arch.growth", self.growths),
            "depths": [choose(trial, f"arch.depth{stage}", self.depths) for stage in range(stages)],
            "downsample": choose(trial, "arch.downsample", self.downsamples),
            "pooling": choose(trial, "arch.pooling", self.poolings),
            "activation": choose(trial, "arch.activation", self.activations),
            "norm": choose(trial, "arch.norm", self.norms),
            "largest_side": self.largest_side,
        }
        return architecture | self._of_block(trial, block)

    def _of_block(self, trial: Suggest, block: str) -> JSON:
        if block != "separable":
            return {"kernel": choose(trial, "arch.kernel", self.kernels)}
        return {
            "kernel": choose(trial, "arch.separable_kernel", self.separable_kernels),
            "expansion": choose(trial, "arch.expansion", self.expansions),
        }

    def hyperparameters(self, trial: Suggest, dataset: DatasetVersion, optimizers: Any) -> JSON:
        return sample_hyperparameters(trial, dataset, optimizers, dropout=self.dropout, label_smoothing=self.label_smoothing)

    def build(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        """The network; takes the image uint8 or float [B, C, H, W]."""
        return ConvNetwork(architecture, _image(inputs), num_outputs, dropout)

    def shrink(self, architecture: JSON) -> JSON:
        """About 0.7 of the width, so half the parameters, and one block less in each stage that has more than one."""
        width = max(4, _round_to(architecture["width"] * 0.7, 4))
        return {**architecture, "width": width, "depths": [max(1, depth - 1) for depth in architecture["depths"]]}

    def _fitting_stages(self, image: InputField) -> list[int]:
        side = min(image.shape[1:])
        while side > self.largest_side:
            side = (side + 1) // 2
        fitting = [count for count in self.stages if side >> (count - 1) >= 2]
        return fitting or [1]


class ConvNetwork(nn.Module):
    """Scale, stem, stages, pooling, linear head."""

    def __init__(self, architecture: JSON, image: InputField, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.scale = ScaleImage(image)
        self.features = nn.Sequential(*_layers(architecture, image))
        self.pool = _pooling(architecture["pooling"])
        with torch.no_grad():
            width = self.pool(self.features.eval()(torch.zeros(1, *image.shape))).shape[1]
        self.features.train()
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_outputs))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.pool(self.features(self.scale(image))))


def _layers(architecture: JSON, image: InputField) -> list[nn.Module]:
    common = {"norm_name": architecture["norm"], "activation_name": architecture["activation"]}
    channels, side = architecture["width"], min(image.shape[1:])
    layers: list[nn.Module] = []
    in_channels = image.shape[0]
    while True:
        stride = 2 if side > architecture["largest_side"] else 1
        layers.append(Plain(in_channels, channels, kernel=3, stride=stride, **common))
        in_channels, side = channels, (side + 1) // 2 if stride == 2 else side
        if side <= architecture["largest_side"]:
            break
    for stage, depth in enumerate(architecture["depths"]):
        channels = _round_to(architecture["width"] * architecture["growth"] ** stage, 4)
        layers += _stage(architecture, in_channels, channels, depth, halve=stage > 0)
        in_channels = channels
    return layers


def _stage(architecture: JSON, in_channels: int, channels: int, depth: int, *, halve: bool) -> list[nn.Module]:
    options = {"norm_name": architecture["norm"], "activation_name": architecture["activation"], "kernel": architecture["kernel"]}
    if architecture["block"] == "separable":
        options["expansion"] = architecture["expansion"]
    block = BLOCKS[architecture["block"]]
    pools = halve and architecture["downsample"] == "max"
    layers: list[nn.Module] = [nn.MaxPool2d(2)] if pools else []
    for index in range(depth):
        stride = 2 if halve and not pools and index == 0 else 1
        layers.append(block(in_channels if index == 0 else channels, channels, stride=stride, **options))
    return layers


def _pooling(name: str) -> nn.Module:
    if name == "flatten":
        return nn.Flatten()
    return nn.Sequential(nn.AdaptiveAvgPool2d(1) if name == "average" else nn.AdaptiveMaxPool2d(1), nn.Flatten())


def _image(inputs: Sequence[InputField]) -> InputField:
    if len(inputs) != 1 or len(inputs[0].shape) != 3:
        shapes = ", ".join(f"{field.name} {list(field.shape)}" for field in inputs)
        raise UsageError(f"space=convnet takes one image [C, H, W], this dataset has {shapes}; choose space=mlp for a table")
    return inputs[0]


def _check(kind: str, names: Sequence[str], known: Any) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError(kind, str(name), known)


def _round_to(value: float, step: int) -> int:
    return max(step, round(value / step) * step)
