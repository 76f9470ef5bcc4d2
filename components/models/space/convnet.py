"""A macro space of convolutional networks for images from 8x8 grey to a few hundred pixels of RGB.

A stem, then stages of equal blocks; each stage after the first halves the side and widens. The stem strides until the
side is at most `largest_side`, because that first stage is where the time of a small network goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from torch import Tensor, nn

from components.artifacts import JSON, DatasetVersion, InputField
from components.errors import UsageError
from components.models.blocks import ACTIVATIONS, NORMS, Plain, Residual, Separable
from components.models.choices import names, numbers, share, switches, whole_numbers
from components.models.conditional import ConditionalSpace
from components.models.hyperparameters import sample_hyperparameters
from components.models.interface import Suggest, choose
from components.models.layers import Layer, num_parameters_of
from components.models.preprocessing import ScaleImage

BLOCKS: dict[str, type[nn.Module]] = {"plain": Plain, "residual": Residual, "separable": Separable}
DOWNSAMPLES: dict[str, type[nn.Module] | None] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d, "stride": None}
POOLINGS = ("average", "max", "flatten")


class ConvNet(ConditionalSpace):
    """The space; see `conf/space/convnet.yaml` for its choices."""

    modality = "image"
    grows = ("widths", "depths")  # settings that make networks larger
    offers = frozenset({"supernet"})

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
        squeeze_excites: Sequence[bool] = (False,),
        squeeze_ratios: Sequence[int] = (4,),
        downsamples: Sequence[str] = ("max",),
        poolings: Sequence[str] = POOLINGS,
        activations: Sequence[str] = ("relu",),
        norms: Sequence[str] = ("batch",),
        largest_side: int = 16,
        dropout: float = 0.3,
        label_smoothing: float = 0.1,
    ) -> None:
        self.stages, self.depths = whole_numbers("space.stages", stages), whole_numbers("space.depths", depths)
        self.widths, self.growths = whole_numbers("space.widths", widths), numbers("space.growths", growths)
        self.blocks, self.expansions = names("space.blocks", blocks, BLOCKS), whole_numbers("space.expansions", expansions)
        self.kernels = whole_numbers("space.kernels", kernels, odd=True)
        self.separable_kernels = whole_numbers("space.separable_kernels", separable_kernels, odd=True)
        self.squeeze_excites = switches("space.squeeze_excites", squeeze_excites)
        self.squeeze_ratios = whole_numbers("space.squeeze_ratios", squeeze_ratios)
        self.downsamples, self.poolings = names("space.downsamples", downsamples, DOWNSAMPLES), names("space.poolings", poolings, POOLINGS)
        self.activations, self.norms = names("space.activations", activations, ACTIVATIONS), names("space.norms", norms, NORMS)
        self.largest_side = whole_numbers("space.largest_side", [largest_side], 4)[0]
        self.dropout, self.label_smoothing = share("space.dropout", dropout), share("space.label_smoothing", label_smoothing)

    def sample(self, trial: Suggest, dataset: DatasetVersion) -> JSON:
        """Draws stages, depth of each, width, block (and what only that block has), squeeze-and-excite, pooling and activation."""
        stages = choose(trial, "arch.stages", self._fitting_stages(_image(dataset.inputs)))
        block = choose(trial, "arch.block", self.blocks)
        architecture: JSON = {
            "block": block,
            "width": choose(trial, "arch.width", self.widths),
            "growth": choose(trial, "arch.growth", self.growths if stages > 1 else self.growths[:1]),
            "depths": [choose(trial, f"arch.depth{stage}", self.depths) for stage in range(stages)],
            "downsample": choose(trial, "arch.downsample", self.downsamples if stages > 1 else self.downsamples[:1]),
            "pooling": choose(trial, "arch.pooling", self.poolings),
            "activation": choose(trial, "arch.activation", self.activations),
            "norm": choose(trial, "arch.norm", self.norms),
            "largest_side": self.largest_side,
        }
        return architecture | self._of_block(trial, block) | self._of_squeeze(trial)

    def _of_block(self, trial: Suggest, block: str) -> JSON:
        if block != "separable":
            return {"kernel": choose(trial, "arch.kernel", self.kernels)}
        return {
            "kernel": choose(trial, "arch.separable_kernel", self.separable_kernels),
            "expansion": choose(trial, "arch.expansion", self.expansions),
        }

    def _of_squeeze(self, trial: Suggest) -> JSON:
        if not choose(trial, "arch.squeeze_excite", self.squeeze_excites):
            return {}
        return {"squeeze": choose(trial, "arch.squeeze_ratio", self.squeeze_ratios)}

    def parameters(self, architecture: JSON) -> dict[str, Any]:
        alike = ("block", "width", "growth", "downsample", "pooling", "activation", "norm", "expansion")
        kernel = "separable_kernel" if architecture["block"] == "separable" else "kernel"
        found = {f"arch.{name}": architecture[name] for name in alike if name in architecture}
        found |= {f"arch.depth{stage}": depth for stage, depth in enumerate(architecture["depths"])}
        found |= {"arch.stages": len(architecture["depths"]), f"arch.{kernel}": architecture["kernel"]}
        squeeze = {"arch.squeeze_ratio": architecture["squeeze"]} if "squeeze" in architecture else {}
        return {**found, "arch.squeeze_excite": bool(squeeze), **squeeze}

    def size(self, dataset: DatasetVersion) -> int:
        of_block = {"separable": len(self.separable_kernels) * len(self.expansions)}
        blocks = sum(of_block.get(block, len(self.kernels)) for block in self.blocks)
        squeezes = sum(len(self.squeeze_ratios) if on else 1 for on in self.squeeze_excites)
        anywhere = len(self.widths) * len(self.poolings) * len(self.activations) * len(self.norms) * blocks * squeezes
        between = len(self.growths) * len(self.downsamples)
        stages = self._fitting_stages(_image(dataset.inputs))
        return anywhere * sum(len(self.depths) ** count * (between if count > 1 else 1) for count in stages)

    def hyperparameters(self, trial: Suggest, dataset: DatasetVersion, optimizers: Any) -> JSON:
        return sample_hyperparameters(trial, dataset, optimizers, dropout=self.dropout, label_smoothing=self.label_smoothing)

    def build(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        """The network; takes the image uint8 or float [B, C, H, W]."""
        return ConvNetwork(architecture, _image(inputs), num_outputs, dropout)

    def supernet(self, dataset: DatasetVersion, trained: Mapping[str, Tensor] | None = None) -> nn.Module:
        """All networks at once, for the shapes that are `trained` already; see `components/models/supernet/shared.py`."""
        from components.models.supernet.shared import EXAMPLES, SharedSupernet, shapes_of, trained_shapes

        def build(architecture: JSON) -> nn.Module:
            return self.build(architecture, dataset.inputs, dataset.num_outputs)

        points, rng, image = self.points(dataset), Random(0), _image(dataset.inputs)
        examples = (points.draw(rng).value for _ in range(EXAMPLES))
        return SharedSupernet(build, image, shapes_of(build, image, examples) if trained is None else trained_shapes(trained))

    def num_parameters(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int) -> int:
        trunk = Trunk.of(architecture, _image(inputs))
        return num_parameters_of([*trunk.layers, Layer.of(nn.Linear, trunk.num_features(architecture["pooling"]), num_outputs)])

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
        trunk = Trunk.of(architecture, image)
        self.scale = ScaleImage(image)
        self.features = nn.Sequential(*(layer.build() for layer in trunk.layers))
        self.pool = _pooling(architecture["pooling"])
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(trunk.num_features(architecture["pooling"]), num_outputs))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.pool(self.features(self.scale(image))))


@dataclass
class Trunk:
    """The layers before the pooling, and the shape [channels, height, width] of what comes out of them."""

    layers: list[Layer]
    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, architecture: JSON, image: InputField) -> Trunk:
        trunk = cls([], *image.shape)
        trunk._add_stem(architecture)
        for stage, depth in enumerate(architecture["depths"]):
            channels = _round_to(architecture["width"] * architecture["growth"] ** stage, 4)
            trunk._add_stage(architecture, channels, depth, halve=stage > 0)
        return trunk

    def num_features(self, pooling: str) -> int:
        return self.channels * self.height * self.width if pooling == "flatten" else self.channels

    def _add_stem(self, architecture: JSON) -> None:
        common = {"norm_name": architecture["norm"], "activation_name": architecture["activation"]}
        is_first = True
        while is_first or min(self.height, self.width) > architecture["largest_side"]:
            stride = 2 if min(self.height, self.width) > architecture["largest_side"] else 1
            self._add(Plain, architecture["width"], stride, kernel=3, **common)
            is_first = False

    def _add_stage(self, architecture: JSON, channels: int, depth: int, *, halve: bool) -> None:
        options = {"norm_name": architecture["norm"], "activation_name": architecture["activation"], "kernel": architecture["kernel"]}
        options |= {name: architecture[name] for name in ("expansion", "squeeze") if name in architecture}
        pool = DOWNSAMPLES[architecture["downsample"]] if halve else None
        if pool:
            self.layers.append(Layer.of(pool, 2))
            self.height, self.width = self.height // 2, self.width // 2
        for index in range(depth):
            self._add(BLOCKS[architecture["block"]], channels, 2 if halve and not pool and index == 0 else 1, **options)

    def _add(self, block: type[nn.Module], channels: int, stride: int, **options: Any) -> None:
        self.layers.append(Layer.of(block, self.channels, channels, stride=stride, **options))
        self.channels, self.height, self.width = channels, -(-self.height // stride), -(-self.width // stride)


def _pooling(name: str) -> nn.Module:
    if name == "flatten":
        return nn.Flatten()
    return nn.Sequential(nn.AdaptiveAvgPool2d(1) if name == "average" else nn.AdaptiveMaxPool2d(1), nn.Flatten())


def _image(inputs: Sequence[InputField]) -> InputField:
    if len(inputs) != 1 or len(inputs[0].shape) != 3:
        shapes = ", ".join(f"{field.name} {list(field.shape)}" for field in inputs)
        raise UsageError(f"space=convnet takes one image [C, H, W], this dataset has {shapes}; choose space=mlp for a table")
    return inputs[0]


def _round_to(value: float, step: int) -> int:
    return max(step, round(value / step) * step)
