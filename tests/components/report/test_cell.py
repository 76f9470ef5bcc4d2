"""Cells: read as NAS-Bench-201 writes them, and every edge in the picture."""

from __future__ import annotations

import doctest
from xml.etree import ElementTree

import pytest

from components.models.cells import EDGES, OPERATIONS, string_of
from components.report import cell

STRING = "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(cell).failed == 0


@pytest.mark.parametrize("operation", OPERATIONS)
def test_edges_are_those_of_the_cells_that_are_built(operation: str) -> None:
    """What the picture reads from a string is what the network is built from, edge by edge."""
    operations = [operation, *reversed(OPERATIONS)]
    assert cell.edges_of(string_of(operations)) == [(source, target, op) for op, (source, target) in zip(operations, EDGES)]
    assert cell.string_of_params({f"arch.edge{i}": op for i, op in enumerate(operations)}) == string_of(operations)


def test_every_edge_is_drawn_and_named() -> None:
    """Six edges between four nodes, each with its operation; what is none is dotted and has no arrow."""
    picture = ElementTree.fromstring(cell.draw(STRING))
    of = {css: [e for e in picture.iter() if css in str(e.get("class")).split()] for css in ("edge", "node", "head", "absent", "note")}
    assert {css: len(found) for css, found in of.items()} == {"edge": 6, "node": 4, "head": 5, "absent": 1, "note": 6}
    assert sorted(str(e.text) for e in of["note"]) == ["avg pool 3×3", "conv 1×1", "conv 3×3", "conv 3×3", "none", "skip"]
    assert of["absent"][0].findtext("title") == "1 to 3: none"


def test_arcs_of_a_cell_do_not_lie_on_each_other() -> None:
    """Every edge has a curve of its own."""
    picture = ElementTree.fromstring(cell.draw(STRING))
    paths = [e.get("d") for e in picture.iter() if "edge" in str(e.get("class")).split()]
    assert len(set(paths)) == 6


def test_only_cells_are_taken_for_cells() -> None:
    """Settings of other spaces hold no cell."""
    assert cell.string_of({"cell": STRING, "channels": 16}) == STRING
    assert cell.string_of({"block": "plain", "widths": [8, 16], "name": "|a|+|b~0|"}) == ""
    assert cell.string_of_params({"arch.width": 16}) == ""
