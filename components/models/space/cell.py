"""NAS-Bench-201's cells for images: five operations on six edges, 15,625 cells, 6,466 of them different.

The cell is repeated through a skeleton of stacks (see `components/models/cells.py`) whose width and length are choices
too; `cells=[5] channels=[16] largest_side=32` on CIFAR-10 is the original. Cells that connect nothing belong to the
space, as they do there: their networks say the same of every image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from components.artifacts import JSON, DatasetVersion, InputField
from components.errors import UsageError
from components.models.cells import (
    EDGES,
    OPERATIONS,
    Cell,
    CellNetwork,
    Closing,
    key_of,
    last_channels,
    macro,
    most_stacks,
    operations_of,
    representative,
    string_of,
)  # fmt: skip
from components.models.choices import names, share, whole_numbers
from components.models.conditional import ConditionalSpace
from components.models.hyperparameters import sample_hyperparameters
from components.models.interface import Suggest, choose
from components.models.layers import Layer, num_parameters_of


class CellSpace(ConditionalSpace):
    """The space; see `conf/space/cell.yaml` for its choices."""

    modality = "image"
    grows = ("channels",)  # settings that make networks larger
    offers = frozenset({"supernet", "mixture supernet"})

    def __init__(
        self,
        *,
        operations: Sequence[str] = OPERATIONS,
        channels: Sequence[int] = (16, 32),
        cells: Sequence[int] = (1, 2),
        stacks: Sequence[int] = (3,),
        largest_side: int = 16,
        dropout: float = 0.3,
        label_smoothing: float = 0.1,
    ) -> None:
        self.operations = names("space.operations", operations, OPERATIONS)
        if self.operations == ["none"]:
            raise UsageError("space.operations must list an operation other than none, or no cell connects its input to its output")
        self.channels, self.cells = whole_numbers("space.channels", channels), whole_numbers("space.cells", cells)
        self.stacks, self.largest_side = whole_numbers("space.stacks", stacks), whole_numbers("space.largest_side", [largest_side], 4)[0]
        self.dropout, self.label_smoothing = share("space.dropout", dropout), share("space.label_smoothing", label_smoothing)

    def sample(self, trial: Suggest, dataset: DatasetVersion) -> JSON:
        """Draws the operation of each edge, then the skeleton's width and length."""
        operations = [choose(trial, f"arch.edge{edge}", self.operations) for edge in range(len(EDGES))]
        return {
            "cell": string_of(operations),
            "channels": choose(trial, "arch.channels", self.channels),
            "cells": choose(trial, "arch.cells", self.cells),
            "stacks": choose(trial, "arch.stacks", self._fitting_stacks(_image(dataset.inputs))),
            "largest_side": self.largest_side,
        }

    def parameters(self, architecture: JSON) -> dict[str, Any]:
        edges = {f"arch.edge{edge}": op for edge, op in enumerate(operations_of(architecture["cell"]))}
        return edges | {f"arch.{name}": architecture[name] for name in ("channels", "cells", "stacks")}

    def size(self, dataset: DatasetVersion) -> int:
        skeletons = len(self.channels) * len(self.cells) * len(self._fitting_stacks(_image(dataset.inputs)))
        return skeletons * len(self.operations) ** len(EDGES)

    def key(self, architecture: JSON) -> str:
        """The skeleton and NAS-Bench-201's unique string of the cell."""
        skeleton = [f"{name}={value}" for name, value in sorted(architecture.items()) if name != "cell"]
        return " ".join([*skeleton, key_of(operations_of(architecture["cell"]))])

    def fold(self, architecture: JSON) -> JSON:
        """The same skeleton with the plainest cell that computes the same."""
        cell = representative(operations_of(architecture["cell"]), self.operations)
        return {**architecture, "cell": string_of(cell)}

    def hyperparameters(self, trial: Suggest, dataset: DatasetVersion, optimizers: Any) -> JSON:
        return sample_hyperparameters(trial, dataset, optimizers, dropout=self.dropout, label_smoothing=self.label_smoothing)

    def build(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        """The network; takes the image uint8 or float [B, C, H, W]."""
        image = _image(inputs)
        layers = _layers(architecture, image)
        return CellNetwork(image, layers, last_channels(layers, architecture["channels"]), num_outputs, dropout)

    def supernet(self, dataset: DatasetVersion, trained: Mapping[str, Tensor] | None = None) -> nn.Module:
        """All cells at once; see `components/models/supernet/cell.py`."""
        from components.models.supernet.cell import CellSupernet

        return CellSupernet(_image(dataset.inputs), dataset.num_outputs, operations=self.operations, largest_side=self.largest_side)

    def num_parameters(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int) -> int:
        layers = _layers(architecture, _image(inputs))
        return num_parameters_of([*layers, Layer.of(Closing, last_channels(layers, architecture["channels"]), num_outputs)])

    def shrink(self, architecture: JSON) -> JSON:
        """About 0.7 of the width, so half the parameters, and one cell less in a stack that has more than one."""
        width = max(4, round(architecture["channels"] * 0.7 / 4) * 4)
        return {**architecture, "channels": width, "cells": max(1, architecture["cells"] - 1)}

    def _fitting_stacks(self, image: InputField) -> list[int]:
        most = most_stacks(image, self.largest_side)
        return [count for count in self.stacks if count <= most] or [most]


def _layers(architecture: JSON, image: InputField) -> list[Layer]:
    operations = operations_of(architecture["cell"])
    skeleton = {name: architecture[name] for name in ("channels", "cells", "stacks", "largest_side")}
    return macro(image, lambda channels: Layer.of(Cell, operations, channels), **skeleton)


def _image(inputs: Sequence[InputField]) -> InputField:
    if len(inputs) != 1 or len(inputs[0].shape) != 3:
        shapes = ", ".join(f"{field.name} {list(field.shape)}" for field in inputs)
        raise UsageError(f"space=cell takes one image [C, H, W], this dataset has {shapes}; choose space=mlp for a table")
    return inputs[0]
