"""What the texts of a column say of its kind, gathered block by block: as much as is needed and not every text.

Numbers are counted and forgotten; of other texts a million different ones are remembered. Different texts are told apart
by 64 bits each, so that their number is right but for odds of one in a million at five million of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from components.data.cells import blocks, number

MOST_TEXTS = 1_000_000
FEW = 100_000  # different texts up to which they are counted as they come


@dataclass
class Tally:
    """Counts of a column's cells. `others` are the texts that are no numbers, by how often they occur; `values` are two
    different numbers at most."""

    num_missing: int = 0
    num_texts: int = 0
    num_distinct: int = 0
    num_others: int = 0
    first: str = ""
    are_whole: bool = True
    others: Counter[str] = field(default_factory=Counter)
    values: set[float] = field(default_factory=set)

    def count(self, counts: Mapping[str, int]) -> None:
        """Adds a block's texts (missing ones aside), by how often they occur in it."""
        for text, times in counts.items():
            value = number(text)
            self.num_texts += times
            if value is None:
                self.num_others += times
                if len(self.others) < MOST_TEXTS or text in self.others:
                    self.others[text] += times
            else:
                self.are_whole = self.are_whole and value.is_integer()
                if len(self.values) < 2:
                    self.values.add(value)


def tally(cells: Sequence[str]) -> Tally:
    """The counts of all cells."""
    found, hashes = Tally(), _Distinct()
    for block in blocks(cells):
        counts = Counter(block)
        found.num_missing += counts.pop("", 0)
        if counts and not found.num_texts:
            found.first = next(iter(counts))
        found.count(counts)
        hashes.add(counts)
    found.num_distinct = hashes.count()
    return found


class _Distinct:
    """Counts different texts: 8 bytes each."""

    def __init__(self) -> None:
        self._few: set[int] | None = set()
        self._many: list[object] = []

    def add(self, texts: Iterable[str]) -> None:
        import numpy as np

        hashes = list(map(hash, texts))
        if self._few is not None:
            self._few.update(hashes)
            if len(self._few) <= FEW:
                return
            hashes, self._few = list(self._few), None
        self._many.append(np.unique(np.array(hashes, dtype=np.int64)))

    def count(self) -> int:
        import numpy as np

        return len(self._few) if self._few is not None else int(np.unique(np.concatenate(self._many)).size)  # type: ignore[arg-type]
