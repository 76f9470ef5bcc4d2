"""NAS-Bench-201 as a table to look cells up in (Dong and Yang, "NAS-Bench-201", ICLR 2020).

A cell is six edges among four nodes, each with one of five operations; the table says what every one of the 15,625
reaches on CIFAR-10, and what it takes on four devices. Parameters are named as our own `cell` space names them.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Hashable, Sequence
from functools import cached_property
from pathlib import Path
from random import Random

from components.models.interface import Suggest
from components.models.points import Point, Points
from components.search.problem import Problem

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = tuple(f"arch.edge{place}" for place in range(6))
CHANNELS, CELLS = (16, 32, 64), 5  # channels of the three stages, cells in each: the paper's skeleton
LATENCIES = "latency_ms.csv.gz"

Cell = tuple[str, ...]


class CellTable:
    """The table: columns by name, cells as tuples of six operations in the order of the architecture string."""

    def __init__(self, folder: Path) -> None:
        rows = _rows(folder / "cifar10.csv.gz")
        self.cells: list[Cell] = [tuple(re.findall(r"(\w+)~", row["arch"])) for row in rows]
        self.place = {cell: index for index, cell in enumerate(self.cells)}
        self.classes = [row["unique_string"] for row in rows]
        self._columns = {name: [float(row[name]) for row in rows] for name in rows[0] if name.startswith("c10_")}
        latencies = sorted(_rows(folder / LATENCIES), key=lambda row: int(row["index"]))
        self._columns |= {name: [float(row[name]) for row in latencies] for name in latencies[0] if name != "index"}
        self._columns["num_parameters"] = [float(num_parameters(cell)) for cell in self.cells]

    @property
    def columns(self) -> list[str]:
        """Names of what is known of every cell."""
        return list(self._columns)

    def value(self, column: str, cell: Cell) -> float:
        """What a cell has in a column."""
        return self._columns[column][self.place[cell]]

    def column(self, name: str) -> list[float]:
        """A column, in the order of `cells`. Raises `KeyError` for a name that is not among `columns`."""
        return self._columns[name]

    @cached_property
    def representatives(self) -> dict[str, Cell]:
        """For each class of isomorphic cells the one with the most unconnected edges; of several the first in order."""
        found: dict[str, Cell] = {}
        for cell, name in sorted(zip(self.cells, self.classes), key=lambda pair: (-pair[0].count("none"), pair[0])):
            found.setdefault(name, cell)
        return found

    def problem(self, *, proxies: bool = False) -> Problem:
        """The cells as a strategy meets them: isomorphic ones have one key and are folded into one. With `proxies` also
        the number of parameters and multiply-accumulates (whose order is the same: one skeleton for all cells)."""
        points, chance = Points(program), Random(0)  # nothing is left to chance: every edge is given
        folded = {name: points.draw(chance, dict(zip(EDGES, cell))) for name, cell in self.representatives.items()}
        return Problem(
            points=points,
            key=self.key,
            fold=lambda point: folded[self.classes[self.place[cell_of(point)]]],
            proxies=(lambda point: costs_of(cell_of(point))) if proxies else None,
        )

    def key(self, point: Point) -> Hashable:
        """The same for isomorphic cells."""
        return self.classes[self.place[cell_of(point)]]


def program(suggest: Suggest) -> Cell:
    """Draws a cell."""
    return tuple(suggest.suggest_categorical(edge, OPERATIONS) for edge in EDGES)


def cell_of(point: Point) -> Cell:
    """The cell of a point."""
    return tuple(point.params[edge] for edge in EDGES)


def num_parameters(cell: Sequence[str]) -> int:
    """Weights of a cell's operations in the paper's network (stem, reductions and head are the same for all cells)."""
    large, small = cell.count("nor_conv_3x3"), cell.count("nor_conv_1x1")
    return sum(CELLS * (large * (9 * c * c + 2 * c) + small * (c * c + 2 * c)) for c in CHANNELS)


def costs_of(cell: Sequence[str]) -> dict[str, float]:
    """The zero-cost scores that need no network: more is taken to be better."""
    large, small = cell.count("nor_conv_3x3"), cell.count("nor_conv_1x1")
    macs = sum(CELLS * (9 * large + small) * c * c * (32 // 2**stage) ** 2 for stage, c in enumerate(CHANNELS))
    return {"num_parameters": float(num_parameters(cell)), "macs": float(macs)}


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as lines:
        return list(csv.DictReader(lines))
