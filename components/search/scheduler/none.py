"""No scheduler: every trial is trained to its end."""

from __future__ import annotations

from collections.abc import Sequence

from components.search.interface import Standing


class NoScheduler:
    """One rung, the full length. Works with every evaluator."""

    needs: frozenset[str] = frozenset()

    def rungs(self, full: int) -> tuple[int, ...]:
        return (full,)

    def first_rung(self, number: int, rungs: Sequence[int]) -> int:
        return 0

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        return None
