"""The cells of a table's columns, block by block: the first ones in memory, those of a large table in a temporary file.

A cell of five letters takes 60 bytes as a Python string: five million rows of ten columns would take 3 GB.
"""

from __future__ import annotations

import bisect
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.data.spool import TemporaryFile

BLOCK_ROWS = 16_384
MOST_HELD = 2_000_000  # cells of one table that stay in memory, some 120 MB

Block = list[str]
Kept = Callable[[], Block]


class CellStore:
    """Where one table's blocks are kept."""

    def __init__(self) -> None:
        self._held = 0
        self._file: TemporaryFile | None = None

    def keep(self, cells: Block) -> Kept:
        """Stores a block; what is returned reads it again."""
        if self._held + len(cells) <= MOST_HELD:
            self._held += len(cells)
            return lambda: cells
        if self._file is None:
            from components.data.spool import TemporaryFile

            self._file = TemporaryFile()
        content = json.dumps(cells, ensure_ascii=False).encode("utf-8", "surrogatepass")
        start, size = self._file.seek(0, 2), len(content)
        self._file.write(content)
        return lambda: self._read(start, size)

    def _read(self, start: int, size: int) -> Block:
        assert self._file is not None
        self._file.seek(start)
        found: Block = json.loads(self._file.read(size).decode("utf-8", "surrogatepass"))
        return found


class Cells(Sequence[str]):
    """A column's cells. Iterating is cheap; a single cell costs the reading of its block, which is remembered."""

    def __init__(self, kept: Sequence[Kept], sizes: Sequence[int]) -> None:
        self._kept, self._sizes = tuple(kept), tuple(sizes)
        self._starts = [0, *itertools.accumulate(self._sizes)]
        self._last: tuple[int, Block] = (-1, [])

    def blocks(self) -> Iterator[Block]:
        """The cells in lists of at most `BLOCK_ROWS`."""
        return (kept() for kept in self._kept)

    def followed_by(self, other: Cells) -> Cells:
        """These cells, then those of another column."""
        return Cells((*self._kept, *other._kept), (*self._sizes, *other._sizes))

    def without(self, gone: frozenset[str]) -> Cells:
        """The same column, some texts of which count as missing."""

        def emptied(kept: Kept) -> Kept:
            return lambda: ["" if cell in gone else cell for cell in kept()]

        return Cells([emptied(kept) for kept in self._kept], self._sizes)

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self.blocks())

    def __contains__(self, cell: object) -> bool:
        return any(cell in block for block in self.blocks())

    def index(self, cell: str, *_: Any) -> int:
        """The first row with this cell."""
        for start, block in zip(self._starts, self.blocks()):
            if cell in block:
                return start + block.index(cell)
        raise ValueError(f"no cell is {cell!r}")

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return list(itertools.islice(self, *row.indices(len(self))))
        place = bisect.bisect_right(self._starts, row) - 1
        if self._last[0] != place:
            self._last = place, self._kept[place]()
        return self._last[1][row - self._starts[place]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))

    __hash__ = None  # type: ignore[assignment]


def blocks(cells: Sequence[str]) -> Iterator[Sequence[str]]:
    """A column in parts of at most `BLOCK_ROWS`, however it is kept."""
    if isinstance(cells, Cells):
        return cells.blocks()
    return (cells[start : start + BLOCK_ROWS] for start in range(0, len(cells), BLOCK_ROWS))


def number(text: str) -> float | None:
    """A cell as a number, None if it is none; what is not finite is none either."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if "_" in text or value in (float("inf"), float("-inf")) or value != value else value
