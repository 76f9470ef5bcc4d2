"""How much rarer is the rarest class than the most frequent one?"""

from __future__ import annotations

from components.artifacts import CheckResult, DatasetVersion
from components.data.arrays import load_target
from components.errors import UsageError
from components.quality.interface import ANY, Arrays


class Imbalance:
    """Warns when the rarest class has less than `warn` of the most frequent one's rows, fails below `fail`."""

    name = "imbalance"
    modalities = ANY
    tasks = ("classification",)

    def __init__(self, warn: float = 0.1, fail: float = 0.0005) -> None:
        if not 0 <= fail <= warn <= 1:
            raise UsageError(f"check.imbalance needs 0 <= fail <= warn <= 1, got fail {fail!r} and warn {warn!r}")
        self.warn, self.fail = warn, fail

    def check(self, dataset: DatasetVersion) -> CheckResult:
        import numpy as np

        counts = np.bincount(load_target(dataset, "train"), minlength=len(dataset.classes))
        rare, frequent = int(counts.argmin()), int(counts.argmax())
        ratio = float(counts[rare] / max(1, counts[frequent]))
        status = "fail" if ratio < self.fail else "warn" if ratio < self.warn else "pass"
        reason = f"{dataset.classes[rare]!r} has {ratio:.3g} times the rows of {dataset.classes[frequent]!r}"
        if status != "pass":
            reason += "; accuracy will say little: prefer metrics.objective=auc or f1, or add rows"
        return CheckResult(name=self.name, status=status, reason=reason, figures={"ratio": ratio})

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays:
        """All rows but the first three of each split become class 0."""
        flawed = dict(arrays)
        for name in arrays:
            if name.endswith("/target"):
                flawed[name] = arrays[name].copy()
                flawed[name][3:] = 0
                flawed[name][:3] = 1
        return flawed
