"""The supernet of NAS-Bench-201's cells: on every edge all operations, with weights of their own in every cell.

Legend: B rows, E edges of a cell, O operations, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.artifacts import JSON, InputField
from components.models.blocks import convolution
from components.models.cells import EDGES, LAST, OPERATIONS, Closing, Reduction, last_channels, live_edges, macro, operation, operations_of
from components.models.layers import Layer
from components.models.preprocessing import ScaleImage
from components.models.supernet.interface import use_batch_statistics

Terms = Sequence[Sequence[tuple[str, Tensor | None]]]
"""For each edge its operations with their weights (None: 1); an edge without any is cut."""


class CellSupernet(nn.Module):
    """All cells at once, in a skeleton small enough for minutes on one core: ranking cells needs less than training one.

    Convolutions keep the scales of their normalisation: without, none of them could outgrow a shortcut or an average.
    """

    def __init__(
        self,
        image: InputField,
        num_outputs: int,
        *,
        operations: Sequence[str] = OPERATIONS,
        channels: int = 16,
        cells: int = 1,
        largest_side: int = 16,
    ) -> None:
        super().__init__()
        self.operations = tuple(operations)
        self.choices = tuple(f"arch.edge{edge}" for edge in range(len(EDGES)))
        layers = macro(
            image, lambda width: Layer.of(MixedCell, self.operations, width), channels=channels, cells=cells, largest_side=largest_side
        )
        self.scale = ScaleImage(image)
        self.features = nn.ModuleList(lightened(layer).build() for layer in layers)
        self.last = Closing(last_channels(layers, channels), num_outputs)
        use_batch_statistics(self)
        self.to(memory_format=torch.channels_last)  # 33 ms a step of 64 images instead of 52, on one core

    def forward(self, architecture: JSON, image: Tensor) -> Tensor:
        """Logits [B, K] of one cell."""
        return self._run(_path(operations_of(architecture["cell"])), image)

    def mixture(self, weights_EO: Tensor, image: Tensor) -> Tensor:
        """Logits [B, K] of a weighted mixture; `none` adds nothing, so it only takes weight from the others."""
        if not weights_EO.requires_grad and bool(((weights_EO == 0) | (weights_EO == 1)).all()):
            return self._run(_path([self.operations[place] for place in weights_EO.argmax(dim=1).tolist()]), image)
        held = (weights_EO.detach() != 0).tolist()
        terms = [
            [(op, weights_EO[edge, place]) for place, op in enumerate(self.operations) if op != "none" and held[edge][place]]
            for edge in range(len(EDGES))
        ]
        return self._run(terms, image)

    def _run(self, terms: Terms, image: Tensor) -> Tensor:
        features = self.scale(image).contiguous(memory_format=torch.channels_last)
        for layer in self.features:
            features = layer(features, terms) if isinstance(layer, MixedCell) else layer(features)
        return self.last(features)


def _path(operations: Sequence[str]) -> Terms:
    live = live_edges(operations)
    return [[(op, None)] if edge in live else [] for edge, op in enumerate(operations)]


def lightened(layer: Layer) -> Layer:
    """The layer, or in the place of a reduction one that only halves."""
    return Layer.of(Halving, *layer.arguments[:2]) if layer.make is Reduction else layer


class Halving(nn.Sequential):
    """Half the side, other channels, and no 3x3 convolution: with those of the skeleton's own reductions, beside so few
    cells, it would hardly matter what the cells are."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        super().__init__(pool, convolution(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))


class MixedCell(nn.Module):
    """A cell with all operations on every edge, `[B, C, H, W] → [B, C, H, W]`."""

    def __init__(self, operations: Sequence[str], channels: int) -> None:
        super().__init__()
        edges = ({op: operation(op, channels) for op in operations if op != "none"} for _ in EDGES)
        self.edges = nn.ModuleList(nn.ModuleDict(edge) for edge in edges)

    def forward(self, features: Tensor, terms: Terms) -> Tensor:
        nodes: dict[int, Tensor] = {0: features}
        for edge, (origin, end), weighted in zip(self.edges, EDGES, terms):
            for op, weight in weighted if origin in nodes else ():
                term = edge[op](nodes[origin])
                term = term if weight is None else weight * term
                nodes[end] = nodes[end] + term if end in nodes else term
        return nodes.get(LAST, features * 0.0)
