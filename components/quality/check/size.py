"""Are there enough rows to learn from, to choose by and to judge by?"""

from __future__ import annotations

from components.artifacts import CheckResult, DatasetVersion
from components.quality.interface import ANY, Arrays


class Size:
    """Fails below `fail` training rows; warns when a held-out split has fewer than `warn`, too few for a narrow interval."""

    name = "size"
    modalities = ANY
    tasks = ANY

    def __init__(self, warn: int = 50, fail: int = 10) -> None:
        self.warn, self.fail = warn, fail

    def check(self, dataset: DatasetVersion) -> CheckResult:
        counts = dict(dataset.splits)
        rows = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        if counts["train"] < self.fail:
            return self._result("fail", f"{rows} rows: fewer than {self.fail} to train on; bring more", counts)
        small = min((name for name in counts if name != "train"), key=lambda name: counts[name])
        if counts[small] < self.warn:
            return self._result("warn", f"{rows} rows: {small} has fewer than {self.warn}, so its figures will be rough", counts)
        return self._result("pass", f"{rows} rows", counts)

    def _result(self, status: str, reason: str, counts: dict[str, int]) -> CheckResult:
        return CheckResult(name=self.name, status=status, reason=reason, figures=counts)

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays:
        return {name: array[:4] for name, array in arrays.items()}
