"""NAS-Bench-201's cells: their text, which of them are the same, and what they compute, against the published table and formulas."""

from __future__ import annotations

import csv
import gzip
import math
from collections import defaultdict
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.artifacts import InputField
from components.errors import UsageError
from components.models.cells import (
    EDGES,
    OPERATIONS,
    Cell,
    CellNetwork,
    Closing,
    Operations,
    Reduction,
    key_of,
    last_channels,
    live_edges,
    macro,
    operation,
    operations_of,
    representative,
    string_of,
)
from components.models.layers import Layer, num_parameters_of
from components.models.space.cell import CellSpace

ALL = list(product(OPERATIONS, repeat=6))
CIFAR = InputField(name="image", dtype="uint8", shape=(3, 32, 32))
EXAMPLE = ("nor_conv_3x3", "skip_connect", "nor_conv_1x1", "avg_pool_3x3", "none", "nor_conv_3x3")


@pytest.fixture(scope="module")
def table(shared_data: Path) -> list[dict[str, str]]:
    with gzip.open(shared_data / "nas-bench-201" / "cifar10.csv.gz", "rt") as file:
        return list(csv.DictReader(file))


def test_every_cell_survives_being_written_and_read() -> None:
    assert len({string_of(cell) for cell in ALL}) == 15_625
    assert all(operations_of(string_of(cell)) == cell for cell in ALL)


def test_the_tables_strings_are_ours(table: list[dict[str, str]]) -> None:
    """All 15,625 of them, to the letter, and nothing else."""
    assert {row["arch"] for row in table} == {string_of(cell) for cell in ALL}


@pytest.mark.parametrize("text", ["", "|none~0|", string_of(["zero"] * 6), string_of(["none"] * 6).replace("~0", "~1")])
def test_what_is_no_cell_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a cell is written like"):
        operations_of(text)


def test_keys_are_the_tables_unique_strings(table: list[dict[str, str]]) -> None:
    """15,625 cells in 6,466 classes; an isomorphic twin is never trained twice."""
    assert all(key_of(operations_of(row["arch"])) == row["unique_string"] for row in table)
    assert len({row["unique_string"] for row in table}) == 6_466


def test_equal_keys_compute_the_same() -> None:
    """Each operation played by a function of numbers, over every cell: one output for each key."""
    played = {"nor_conv_1x1": math.sin, "nor_conv_3x3": lambda x: math.tanh(1.7 * x + 0.3), "avg_pool_3x3": lambda x: 0.37 * x}
    outputs = defaultdict(list)
    for cell in ALL:
        nodes = [0.9, 0.0, 0.0, 0.0]
        for op, (origin, end) in zip(cell, EDGES):
            if op != "none" and _carries(cell, origin):
                nodes[end] += nodes[origin] if op == "skip_connect" else played[op](nodes[origin])
        outputs[key_of(cell)].append(nodes[3])
    assert max(max(values) - min(values) for values in outputs.values()) < 1e-12
    assert len({round(values[0], 9) for values in outputs.values()}) > 4_000, "different keys hardly ever compute the same"


def _carries(cell: Operations, node: int) -> bool:
    """Whether anything of the input arrives at a node."""
    return node == 0 or any(op != "none" and _carries(cell, a) for op, (a, b) in zip(cell, EDGES) if b == node)


def test_one_cell_stands_for_its_class() -> None:
    """It belongs to the class, to the operations that are allowed, and is the same for all."""
    among = ("none", "skip_connect", "nor_conv_3x3")
    chosen = defaultdict(set)
    for cell in product(among, repeat=6):
        found = representative(cell, among)
        assert key_of(found) == key_of(cell)
        assert set(found) <= set(among)
        chosen[key_of(cell)].add(found)
    assert all(len(found) == 1 for found in chosen.values())


def test_a_cell_computes_its_graph() -> None:
    """Against the plain sum over all edges with the same weights; none and dead ones are there and add nothing."""
    for cell in (EXAMPLE, ("nor_conv_3x3",) * 6, ("none", "avg_pool_3x3", "nor_conv_1x1", "none", "skip_connect", "nor_conv_3x3")):
        torch.manual_seed(0)
        module = Cell(cell, 4).eval()
        live = dict(module.edges.items())
        nodes: list[Tensor] = [torch.randn(2, 4, 6, 6), *(torch.zeros(2, 4, 6, 6) for _ in range(3))]
        for index, (origin, end) in enumerate(EDGES):
            edge = live.get(str(index)) or operation(cell[index], 4).eval()
            nodes[end] = nodes[end] + edge(nodes[origin])
        assert torch.allclose(module(nodes[0]), nodes[3], atol=1e-6)


def test_only_edges_between_input_and_output_are_live() -> None:
    assert live_edges(("none",) * 6) == ()
    assert live_edges(("nor_conv_3x3",) * 6) == (0, 1, 2, 3, 4, 5)
    assert live_edges(("nor_conv_3x3", "skip_connect", "none", "none", "none", "avg_pool_3x3")) == (1, 5)


def test_operations_are_what_they_are_called() -> None:
    """Pooling counts no padding; convolution is ReLU, convolution, normalisation; none is zero."""
    ones = torch.ones(1, 2, 4, 4)
    assert torch.equal(operation("avg_pool_3x3", 2)(ones), ones)
    assert torch.equal(operation("skip_connect", 2)(ones), ones)
    assert operation("none", 2)(ones).abs().sum() == 0
    assert operation("nor_conv_3x3", 2).eval()(-ones).abs().sum() == 0, "a ReLU comes first"
    assert [tuple(p.shape) for p in operation("nor_conv_1x1", 2).parameters()] == [(2, 2, 1, 1), (2,), (2,)]


@pytest.mark.parametrize(("cell", "published"), [(("none",) * 6, 73_306), (("nor_conv_3x3",) * 6, 1_531_546)])
def test_the_skeleton_has_the_published_number_of_parameters(cell: Operations, published: int) -> None:
    """0.073306 and 1.531546 million, the table's least and most, counted without and with a network."""
    layers = macro(CIFAR, lambda channels: Layer.of(Cell, cell, channels), channels=16, cells=5)
    assert num_parameters_of([*layers, Layer.of(Closing, 64, 10)]) == published
    network = CellNetwork(CIFAR, layers, last_channels(layers, 16), 10)
    assert sum(p.numel() for p in network.parameters()) == published


@pytest.mark.parametrize("sides", [(8, 8), (9, 12), (11, 11)])
def test_a_reduction_halves_any_side(sides: tuple[int, int]) -> None:
    features = torch.randn(2, 4, *sides)
    assert Reduction(4, 6, sides)(features).shape == (2, 6, *(-(-side // 2) for side in sides))


def test_a_cell_that_connects_nothing_says_the_same_of_every_image() -> None:
    """It is in the table too, at one in ten; it is built, trained and judged like any other."""
    space = CellSpace(cells=[1], channels=[16])
    architecture = {"cell": string_of(("none",) * 6), "channels": 16, "cells": 1, "stacks": 3, "largest_side": 16}
    network = space.build(architecture, [CIFAR], 10)
    outputs = network.eval()(torch.randint(0, 255, (3, 3, 32, 32), dtype=torch.uint8))
    assert torch.equal(outputs[0].expand(3, 10), outputs)


def test_only_none_is_no_space() -> None:
    with pytest.raises(UsageError, match=r"space\.operations must list an operation other than none"):
        CellSpace(operations=["none"])
