"""The gate for devices with little room: files above a size stay out."""

from __future__ import annotations

from components.artifacts import GateResult
from components.registry.contender import Contender


class Size:
    """Passes a challenger whose ONNX file is at most `max_kb` KiB."""

    def __init__(self, max_kb: float = 16384) -> None:
        self.max_kb = max_kb

    def judge(self, challenger: Contender, champion: Contender | None) -> GateResult:
        """The champion plays no part."""
        size_kb = challenger.report.best.size_kb
        passed = size_kb <= self.max_kb
        words = f"{size_kb:.1f} KiB is {'within' if passed else 'above'} {self.max_kb:g} KiB"
        rule = f"the ONNX file must have at most {self.max_kb:g} KiB"
        return GateResult(name="size", passed=passed, rule=rule, words=words, figures={"size_kb": size_kb, "max_kb": self.max_kb})
