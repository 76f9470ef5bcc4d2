"""Do the held-out rows speak of categories that training never saw?"""

from __future__ import annotations

from components.artifacts import CheckResult, DatasetVersion
from components.data.arrays import load_inputs
from components.quality.interface import ANY, Arrays, grade, limits


class Unseen:
    """Warns when a category column of a held-out split has `warn` of its cells outside the vocabulary, fails from `fail`."""

    name = "unseen"
    modalities = ("table",)
    tasks = ANY

    def __init__(self, warn: float = 0.05, fail: float = 0.95) -> None:
        self.warn, self.fail = limits(self.name, warn, fail)

    def check(self, dataset: DatasetVersion) -> CheckResult:
        shares = {name: share for split in ("validation", "test") for name, share in _shares(dataset, split).items()}
        if not shares:
            return CheckResult(name=self.name, status="pass", reason="there are no category columns")
        worst = max(shares, key=lambda name: shares[name])
        status = grade(shares[worst], self.warn, self.fail)
        reason = f"at most {shares[worst]:.2%} of a held-out column's categories are outside the training vocabulary ({worst})"
        if status != "pass":
            reason += "; check that the files mean the same by it, or leave it out with dataset.drop"
        return CheckResult(name=self.name, status=status, reason=reason, figures={name: share for name, share in shares.items() if share})

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays:
        return {name: array * 0 if name == "test/categories" else array for name, array in arrays.items()}


def _shares(dataset: DatasetVersion, split: str) -> dict[str, float]:
    arrays = load_inputs(dataset, split)
    return {
        f"{split} column {column.name!r}": float((arrays[field.name][:, place] == 0).mean())
        for field in dataset.inputs
        for place, column in enumerate(field.columns)
        if column.kind == "category"
    }
