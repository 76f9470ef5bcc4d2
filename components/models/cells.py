"""The cells of NAS-Bench-201 and the network around them (Dong and Yang, "NAS-Bench-201", 2020).

A cell is a graph of four nodes: node 0 is the cell's input, node 3 its output, and each of the six edges between them
applies one of five operations to the node it comes from; a node is the sum of the edges that end in it. A cell is
written `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|`: the nodes from 1 on, each with its edges as operation~origin.
Legend: B rows, C channels, H and W sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import product

from torch import Tensor, nn

from components.artifacts import InputField
from components.errors import UsageError
from components.models.blocks import convolution
from components.models.layers import Layer
from components.models.preprocessing import ScaleImage

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (from, to), in the order of the string
LAST = 3  # the output's node
KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}

Operations = tuple[str, ...]


# ---- a cell as text ----


def string_of(operations: Sequence[str]) -> str:
    """A cell in NAS-Bench-201's notation.

    >>> string_of(["none", "none", "none", "nor_conv_3x3", "none", "skip_connect"])
    '|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|skip_connect~2|'
    """
    return _string_of(tuple(operations))


@lru_cache(maxsize=65536)
def _string_of(operations: Operations) -> str:
    nodes = [[f"{op}~{origin}" for op, (origin, end) in zip(operations, EDGES) if end == node] for node in range(1, LAST + 1)]
    return "+".join(f"|{'|'.join(node)}|" for node in nodes)


@lru_cache(maxsize=65536)
def operations_of(text: str) -> Operations:
    """The six operations of a cell in NAS-Bench-201's notation. Raises `UsageError`."""
    words = [word for node in text.split("+") for word in node.strip("|").split("|")]
    operations = tuple(word.partition("~")[0] for word in words)
    if len(operations) != len(EDGES) or any(op not in OPERATIONS for op in operations) or string_of(operations) != text:
        example = string_of(["nor_conv_3x3", "none", "skip_connect"] * 2)
        raise UsageError(f"a cell is written like {example} with the operations {', '.join(OPERATIONS)}, got {text!r}")
    return operations


@lru_cache(maxsize=65536)
def key_of(operations: Operations) -> str:
    """NAS-Bench-201's `unique_string`: equal for cells that compute the same, whatever their edges are called.

    A shortcut is the node that it comes from, `none` and what follows from nothing is `#`, and sums are sorted.
    """
    nodes = {0: "0"}
    for node in range(1, LAST + 1):
        terms = [_term(op, nodes[origin]) for op, (origin, end) in zip(operations, EDGES) if end == node]
        nodes[node] = "+".join(sorted(terms))
    return nodes[LAST]


def _term(op: str, origin: str) -> str:
    if op == "none" or origin == "#":
        return "#"
    return origin if op == "skip_connect" else f"({origin})@{op}"


def live_edges(operations: Sequence[str]) -> tuple[int, ...]:
    """The edges on a way from the input to the output; the others change nothing. Empty for a cell that connects nothing."""
    reached, needed = {0}, {LAST}
    for op, (origin, end) in zip(operations, EDGES):
        if op != "none" and origin in reached:
            reached.add(end)
    for op, (origin, end) in reversed(list(zip(operations, EDGES))):
        if op != "none" and end in needed:
            needed.add(origin)
    return tuple(i for i, (op, (a, b)) in enumerate(zip(operations, EDGES)) if op != "none" and a in reached and b in needed)


def representative(operations: Sequence[str], among: Sequence[str] = OPERATIONS) -> Operations:
    """The one cell that stands for all of `among` with the same key: that with the most `none`, then shortcuts, then the first."""
    return _representatives(tuple(among)).get(key_of(tuple(operations)), tuple(operations))


@lru_cache(maxsize=8)
def _representatives(among: Operations) -> dict[str, Operations]:
    found: dict[str, Operations] = {}
    for operations in sorted(product(among, repeat=len(EDGES)), key=_plainness):
        found.setdefault(key_of(operations), operations)
    return found


def _plainness(operations: Operations) -> tuple[int, int, tuple[int, ...]]:
    return -operations.count("none"), -operations.count("skip_connect"), tuple(OPERATIONS.index(op) for op in operations)


# ---- a cell as a module ----


class Nothing(nn.Module):
    """The operation `none`: zeros."""

    def forward(self, features: Tensor) -> Tensor:
        return features * 0.0


class ReLUConvNorm(nn.Sequential):
    """ReLU, convolution, batch normalisation: `[B, in, H, W] → [B, out, H/stride, W/stride]`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, affine: bool = True) -> None:
        super().__init__(nn.ReLU(), convolution(in_channels, out_channels, kernel, stride), nn.BatchNorm2d(out_channels, affine=affine))


def operation(name: str, channels: int, *, affine: bool = True) -> nn.Module:
    """One of `OPERATIONS`, `[B, C, H, W] → [B, C, H, W]`; `affine` as in batch normalisation (a supernet does without)."""
    if name in KERNELS:
        return ReLUConvNorm(channels, channels, KERNELS[name], affine=affine)
    return {"none": Nothing, "skip_connect": nn.Identity, "avg_pool_3x3": _average}[name]()


def _average() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


class Cell(nn.Module):
    """A cell of fixed operations, `[B, C, H, W] → [B, C, H, W]`; only edges that change the output have a module."""

    def __init__(self, operations: Operations, channels: int) -> None:
        super().__init__()
        self.operations = tuple(operations)
        parts = self.made_of(self.operations, channels)
        self.edges = nn.ModuleDict({str(i): part.build() for i, part in zip(live_edges(operations), parts)})

    @staticmethod
    def made_of(operations: Operations, channels: int) -> list[Layer]:
        """The operations of its live edges."""
        return [Layer.of(operation, operations[i], channels) for i in live_edges(operations)]

    def forward(self, features: Tensor) -> Tensor:
        if not self.edges:
            return features * 0.0
        nodes = {0: features}
        for name, edge in self.edges.items():  # in order of their ends: an origin is complete before it is used
            origin, end = EDGES[int(name)]
            term = edge(nodes[origin])
            nodes[end] = nodes[end] + term if end in nodes else term
        return nodes[LAST]


class Reduction(nn.Module):
    """Half the side, other channels: two convolutions beside an averaging shortcut. `sides` are H and W of the input."""

    def __init__(self, in_channels: int, out_channels: int, sides: tuple[int, int]) -> None:
        super().__init__()
        self.body = nn.Sequential(ReLUConvNorm(in_channels, out_channels, 3, stride=2), ReLUConvNorm(out_channels, out_channels, 3))
        # Two by two as in NAS-Bench-201; over an odd side three, so that it gives as many places as the convolution does.
        kernel, padding = tuple(2 + side % 2 for side in sides), tuple(side % 2 for side in sides)
        average = nn.AvgPool2d(kernel, stride=2, padding=padding, count_include_pad=False)
        self.shortcut = nn.Sequential(average, convolution(in_channels, out_channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.body(features) + self.shortcut(features)


# ---- the network around the cells ----


class Stem(nn.Sequential):
    """Convolution and batch normalisation; at stride 2 a ReLU too, for another stem follows."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        layers = [convolution(in_channels, out_channels, 3, stride), nn.BatchNorm2d(out_channels)]
        super().__init__(*layers, *([nn.ReLU()] if stride > 1 else []))


MakeCell = Callable[[int], Layer]
"""From a number of channels to the layer that is a cell of that width."""


def macro(image: InputField, make_cell: MakeCell, *, channels: int, cells: int, stacks: int = 3, largest_side: int = 32) -> list[Layer]:
    """NAS-Bench-201's skeleton: a stem, then `stacks` times `cells` cells, with half the side and twice the channels in between.

    The original has 3 stacks of 5 cells and 16 channels on sides of 32. Larger images are halved by more stems until
    their shorter side is at most `largest_side`; there are no more than `most_stacks`.
    """
    return list(_macro(image, make_cell, channels, cells, min(stacks, most_stacks(image, largest_side)), largest_side))


def _macro(image: InputField, make_cell: MakeCell, channels: int, cells: int, stacks: int, largest_side: int) -> Iterator[Layer]:
    in_channels, *sides = image.shape
    while min(sides) > largest_side:
        yield Layer.of(Stem, in_channels, channels, 2)
        in_channels, sides = channels, _halved(sides)
    yield Layer.of(Stem, in_channels, channels, 1)
    for stack in range(stacks):
        if stack:
            yield Layer.of(Reduction, channels, 2 * channels, tuple(sides))
            channels, sides = 2 * channels, _halved(sides)
        for _ in range(cells):
            yield make_cell(channels)


def most_stacks(image: InputField, largest_side: int) -> int:
    """How many stacks leave a shorter side of at least 2."""
    side, stacks = min(image.shape[1:]), 1
    while side > largest_side:
        side = (side + 1) // 2
    while side >= 4:
        side, stacks = (side + 1) // 2, stacks + 1
    return stacks


def _halved(sides: Sequence[int]) -> list[int]:
    return [(side + 1) // 2 for side in sides]


class CellNetwork(nn.Module):
    """Scale, the layers of `macro`, normalisation, global average, linear head; takes the image uint8 or float [B, C, H, W]."""

    def __init__(self, image: InputField, layers: Sequence[Layer], channels: int, num_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.scale = ScaleImage(image)
        self.features = nn.Sequential(*(layer.build() for layer in layers))
        self.last = Closing(channels, num_outputs, dropout)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.features(self.scale(image)))


class Closing(nn.Sequential):
    """From the last features [B, C, H, W] to [B, num_outputs]."""

    def __init__(self, channels: int, num_outputs: int, dropout: float = 0.0) -> None:
        pooled = (nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(*pooled, nn.Dropout(dropout), nn.Linear(channels, num_outputs))


def last_channels(layers: Sequence[Layer], channels: int) -> int:
    """The channels that come out of `macro`, given those of its stem."""
    return channels * 2 ** sum(layer.make is Reduction for layer in layers)
