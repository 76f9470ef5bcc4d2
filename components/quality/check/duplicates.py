"""How many training rows repeat another one, and do repeated rows agree on their target?"""

from __future__ import annotations

from components.artifacts import CheckResult, DatasetVersion
from components.data.arrays import load_inputs, load_target
from components.quality.interface import ANY, Arrays, grade, limits, row_keys


class Duplicates:
    """Warns when `warn` of the training rows repeat the inputs of an earlier one or contradict it, fails from `fail`."""

    name = "duplicates"
    modalities = ANY
    tasks = ANY

    def __init__(self, warn: float = 0.02, fail: float = 0.95) -> None:
        self.warn, self.fail = limits(self.name, warn, fail)

    def check(self, dataset: DatasetVersion) -> CheckResult:
        import numpy as np

        keys, target = row_keys(load_inputs(dataset, "train")), np.asarray(load_target(dataset, "train"))
        distinct, first, key_of_row = np.unique(keys, return_index=True, return_inverse=True)
        is_contradicted = np.zeros(len(distinct), dtype=bool)
        is_contradicted[key_of_row[target != target[first][key_of_row]]] = True
        repeated = 1 - len(distinct) / len(keys)
        contradicting = int(is_contradicted[key_of_row].sum()) / len(keys)
        status = grade(max(repeated, contradicting), self.warn, self.fail)
        reason = f"{repeated:.2%} of the training rows repeat an earlier one, {contradicting:.2%} have a twin with another target"
        if status != "pass":
            reason += "; remove the repetitions, or add a column that tells the rows apart"
        return CheckResult(name=self.name, status=status, reason=reason, figures={"repeated": repeated, "contradicting": contradicting})

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays:
        """Every second training row becomes a copy of the one before it."""
        flawed = dict(arrays)
        for name in arrays:
            if name.startswith("train/"):
                flawed[name] = arrays[name].copy()
                pairs = len(flawed[name]) // 2
                flawed[name][1 : 2 * pairs : 2] = flawed[name][0 : 2 * pairs : 2]
        return flawed
