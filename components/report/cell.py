"""A cell drawn as a picture: nodes in a row, one arc for each edge, named by its operation.

Cells are told by NAS-Bench-201's strings, `|op~0|+|op~0|op~1|+...`: between two plus signs the edges that lead to one
node, each with the node it comes from (Dong and Yang, "NAS-Bench-201", ICLR 2020).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from components.report.charts import Point, drawing, tag, written

STRING = re.compile(r"\|[\w.]+~\d+\|(\+(\|[\w.]+~\d+)+\|)+")
EDGE = re.compile(r"(?:.*\.)?edge(\d+)")
STEP, RISE, MARGIN = 132.0, 58.0, 64.0  # px between nodes, per node that an arc passes over, around the drawing
SPOKEN = {"nor_conv_3x3": "conv 3×3", "nor_conv_1x1": "conv 1×1", "avg_pool_3x3": "avg pool 3×3", "skip_connect": "skip", "none": "none"}
STYLES = {"none": "edge absent", "skip_connect": "edge skip", "avg_pool_3x3": "edge pool"}  # all others compute: drawn strong
Edge = tuple[int, int, str]


def string_of(architecture: Mapping[str, Any]) -> str:
    """The cell string among an architecture's settings; empty if it has none."""
    found = (value for value in architecture.values() if isinstance(value, str) and STRING.fullmatch(value))
    return next(found, "")


def string_of_params(params: Mapping[str, Any]) -> str:
    """The cell string of a candidate told by its parameters (`arch.edge0`, ...); empty if these are no cell's.

    >>> string_of_params({"arch.edge0": "conv", "arch.edge1": "skip", "arch.edge2": "none", "hp.rate": 0.1})
    '|conv~0|+|skip~0|none~1|'
    """
    edges = {int(found[1]): str(value) for key, value in params.items() if (found := EDGE.fullmatch(key))}
    operations, nodes = [edges[i] for i in sorted(edges)], []  # type: tuple[list[str], list[str]]
    while operations:
        node, operations = operations[: len(nodes) + 1], operations[len(nodes) + 1 :]
        nodes.append("|" + "|".join(f"{operation}~{source}" for source, operation in enumerate(node)) + "|")
    return "+".join(nodes)


def edge_name(parameter: str) -> str:
    """An edge by the nodes it joins; empty for a parameter that is no edge's.

    >>> [edge_name(name) for name in ("arch.edge0", "arch.edge2", "arch.edge3", "arch.width")]
    ['edge 0-1', 'edge 1-2', 'edge 0-3', '']
    """
    found = EDGE.fullmatch(parameter)
    if not found:
        return ""
    source, target = int(found[1]), 1
    while source >= target:
        source, target = source - target, target + 1
    return f"edge {source}-{target}"


def edges_of(string: str) -> list[Edge]:
    """(from, to, operation) of each edge.

    >>> edges_of("|conv~0|+|skip~0|none~1|")
    [(0, 1, 'conv'), (0, 2, 'skip'), (1, 2, 'none')]
    """
    nodes = string.split("+")
    named = [[edge.rpartition("~") for edge in node.strip("|").split("|")] for node in nodes]
    return [(int(source), target, operation) for target, node in enumerate(named, start=1) for operation, _, source in node]


def draw(string: str) -> Markup:
    """The cell; an edge that holds nothing is dotted, what only passes values on is thin."""
    edges = edges_of(string)
    last = max(target for _, target, _ in edges)
    reach = max(target - source for source, target, _ in edges) - 1
    middle = MARGIN * 0.6 + RISE * reach
    height = middle + RISE * max(reach - 1, 0) + MARGIN * 0.8
    parts = [part for edge in edges for part in _arc(edge, middle, last)]
    for node in range(last + 1):
        parts += _node(node, last, middle)
    return drawing(f"cell {string}", MARGIN * 2 + STEP * last, height, parts)


def _node(node: int, last: int, y: float) -> list[str]:
    name = "input" if node == 0 else "output" if node == last else f"{node}"
    x = MARGIN + STEP * node
    return [
        tag("circle", "node", name, cx=x, cy=y, r=17.0),
        written(x, y + 4, {"input": "in", "output": "out"}.get(name, name), "count", "middle"),
    ]


def _arc(edge: Edge, y: float, last: int) -> list[str]:
    """Neighbours are joined straight, others by an arc above, or below if it ends at the output and begins within."""
    source, target, operation = edge
    x1, x2 = MARGIN + STEP * source, MARGIN + STEP * target
    passes = target - source - 1
    side = 1 if passes and source > 0 and target == last else -1
    bend = y + side * RISE * passes * 2.0
    begin = (x1 + 17, y) if not passes else (x1 + 9, y + side * 15)
    end = (x2 - 19, y) if not passes else (x2 - 10, y + side * 17)
    bow = ((x1 + x2) / 2, bend)
    spoken = SPOKEN.get(operation, operation.replace("_", " "))
    css, tip = STYLES.get(operation, "edge"), f"{source} to {target}: {spoken}"
    path = f"M{begin[0]:.1f} {begin[1]:.1f}Q{bow[0]:.1f} {bow[1]:.1f} {end[0]:.1f} {end[1]:.1f}"
    peak = ((begin[1] + end[1]) / 2 + bend) / 2  # a quadratic curve reaches half way to its control point
    label = written(bow[0], peak - 8 if side < 0 else peak + 17, spoken, "note muted" if operation == "none" else "note", "middle")
    head = [] if operation == "none" else [tag("path", f"head {css.removeprefix('edge')}", "", d=_head(bow, end))]
    return [tag("path", css, tip, d=path), *head, label]


def _head(towards: Point, tip: Point, size: float = 8.0) -> str:
    """An arrow's head at the end of a curve that comes from its control point."""
    length = math.dist(towards, tip)
    dx, dy = (tip[0] - towards[0]) / length * size, (tip[1] - towards[1]) / length * size
    left, right = (tip[0] - dx - dy * 0.5, tip[1] - dy + dx * 0.5), (tip[0] - dx + dy * 0.5, tip[1] - dy - dx * 0.5)
    return f"M{tip[0]:.1f} {tip[1]:.1f}L{left[0]:.1f} {left[1]:.1f}L{right[0]:.1f} {right[1]:.1f}Z"
