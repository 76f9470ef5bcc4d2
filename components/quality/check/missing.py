"""How many cells of the training rows are missing?"""

from __future__ import annotations

from components.artifacts import CheckResult, DatasetVersion
from components.data.arrays import load_inputs
from components.quality.interface import ANY, Arrays, grade, limits


class Missing:
    """Warns when a column is missing in `warn` of the training rows, fails when `fail` of all cells are."""

    name = "missing"
    modalities = ("table",)
    tasks = ANY

    def __init__(self, warn: float = 0.5, fail: float = 0.9) -> None:
        self.warn, self.fail = limits(self.name, warn, fail)

    def check(self, dataset: DatasetVersion) -> CheckResult:
        shares = missing_shares(dataset)
        worst = max(shares, key=lambda name: shares[name])
        overall = sum(shares.values()) / len(shares)
        status = "fail" if overall >= self.fail else grade(shares[worst], self.warn, float("inf"))
        reason = f"{overall:.1%} of all cells are missing, most in column {worst!r} ({shares[worst]:.1%})"
        if status != "pass":
            reason += f"; fill it in or leave it out with dataset.drop=[{worst}]"
        figures = {"overall": overall, "by_column": {name: share for name, share in shares.items() if share}}
        return CheckResult(name=self.name, status=status, reason=reason, figures=figures)

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays:
        import numpy as np

        return {name: np.full_like(array, np.nan) if name.endswith("/numbers") else array for name, array in arrays.items()}


def missing_shares(dataset: DatasetVersion) -> dict[str, float]:
    """The share of training rows in which each column is missing."""
    import numpy as np

    shares: dict[str, float] = {}
    arrays = load_inputs(dataset, "train")
    for field in dataset.inputs:
        for place, column in enumerate(field.columns):
            values = arrays[field.name][:, place]
            if column.kind == "number":
                shares[column.name] = float(np.isnan(values).mean())
            else:
                shares[column.name] = float((values == column.vocabulary.index("") + 1).mean()) if "" in column.vocabulary else 0.0
    return shares
