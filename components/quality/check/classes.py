"""Is there something to tell apart, and enough of each class to learn it?"""

from __future__ import annotations

from components.artifacts import CheckResult, DatasetVersion
from components.data.arrays import load_target
from components.quality.interface import ANY, Arrays


class Classes:
    """Fails with one class, or a class with fewer than `fail` training rows; warns below `warn` rows."""

    name = "classes"
    modalities = ANY
    tasks = ("classification",)

    def __init__(self, warn: int = 10, fail: int = 2) -> None:
        self.warn, self.fail = warn, fail

    def check(self, dataset: DatasetVersion) -> CheckResult:
        import numpy as np

        counts = np.bincount(load_target(dataset, "train"), minlength=len(dataset.classes))
        by_class = {label: int(count) for label, count in zip(dataset.classes, counts, strict=True)}
        present = [label for label, count in by_class.items() if count]
        if len(present) < 2:
            held = repr(present[0]) if present else "none"
            return self._result("fail", f"target {dataset.target!r} has one class only ({held}): there is nothing to tell apart", by_class)
        rarest = min(by_class, key=lambda label: by_class[label])
        if by_class[rarest] < self.fail:
            reason = f"class {rarest!r} has {by_class[rarest]} training rows, at least {self.fail} are needed; add rows or remove the class"
            return self._result("fail", reason, by_class)
        if by_class[rarest] < self.warn:
            return self._result("warn", f"class {rarest!r} has only {by_class[rarest]} training rows; add rows of it", by_class)
        return self._result("pass", f"{len(by_class)} classes, the rarest ({rarest!r}) with {by_class[rarest]:,} training rows", by_class)

    def _result(self, status: str, reason: str, by_class: dict[str, int]) -> CheckResult:
        return CheckResult(name=self.name, status=status, reason=reason, figures={"training_rows": by_class})

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays:
        return {name: array * 0 if name.endswith("/target") else array for name, array in arrays.items()}
