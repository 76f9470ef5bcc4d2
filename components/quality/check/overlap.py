"""Does the test split hold rows that the model is trained or chosen on?"""

from __future__ import annotations

from components.artifacts import CheckResult, DatasetVersion
from components.data.arrays import load_inputs
from components.quality.interface import ANY, Arrays, grade, limits, row_keys


class Overlap:
    """Warns when `warn` of the test rows have inputs equal to a training or validation row's, fails from `fail`."""

    name = "overlap"
    modalities = ANY
    tasks = ANY

    def __init__(self, warn: float = 0.005, fail: float = 0.5) -> None:
        self.warn, self.fail = limits(self.name, warn, fail)

    def check(self, dataset: DatasetVersion) -> CheckResult:
        import numpy as np

        train, validation, test = (row_keys(load_inputs(dataset, split)) for split in ("train", "validation", "test"))
        shared = np.flatnonzero(np.isin(test, np.concatenate([train, validation]))).tolist()
        share = len(shared) / len(test)
        status = grade(share, self.warn, self.fail)
        reason = f"{len(shared):,} of {len(test):,} test rows ({share:.2%}) are also in training or validation"
        if status != "pass":
            reason += f"; the first is test row {shared[0]}: take them out of one side, or the test will flatter"
        return CheckResult(name=self.name, status=status, reason=reason, figures={"share": share, "rows": shared[:20]})

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays:
        """The test split becomes the first training rows."""
        return {
            name: arrays["train/" + name.removeprefix("test/")][: len(array)] if name.startswith("test/") else array
            for name, array in arrays.items()
        }
