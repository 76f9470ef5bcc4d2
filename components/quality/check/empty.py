"""Are there rows that say nothing: blank images, recordings of silence, lines without a value?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.artifacts import CheckResult, DatasetVersion, InputField
from components.data.arrays import load_inputs
from components.quality.interface import ANY, Arrays, blocks, grade, limits

if TYPE_CHECKING:
    import numpy as np


class Empty:
    """Warns when `warn` of the training rows hold one constant value or nothing at all, fails from `fail`."""

    name = "empty"
    modalities = ANY
    tasks = ANY

    def __init__(self, warn: float = 0.001, fail: float = 0.5) -> None:
        self.warn, self.fail = limits(self.name, warn, fail)

    def check(self, dataset: DatasetVersion) -> CheckResult:
        import numpy as np

        parts = blocks(load_inputs(dataset, "train"))
        blank = np.concatenate([np.logical_and.reduce([is_blank(field, part[field.name]) for field in dataset.inputs]) for part in parts])
        share = float(blank.mean())
        status = grade(share, self.warn, self.fail)
        reason = f"{int(blank.sum()):,} of {len(blank):,} training rows are blank or constant ({share:.2%})"
        if status != "pass":
            reason += f"; the first is training row {int(blank.argmax())}: remove or mend them"
        return CheckResult(
            name=self.name, status=status, reason=reason, figures={"share": share, "rows": np.flatnonzero(blank)[:20].tolist()}
        )

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays:
        import numpy as np

        empty = {"f": np.nan, "u": 0, "i": 0}
        return {name: array if name.endswith("/target") else np.full_like(array, empty[array.dtype.kind]) for name, array in arrays.items()}


def is_blank(field: InputField, array: np.ndarray) -> np.ndarray:
    """bool [N]: every column missing, or, for a field without columns, every value the same."""
    import numpy as np

    flat = np.asarray(array).reshape(len(array), -1)
    if not field.columns:
        return flat.min(axis=1) == flat.max(axis=1)
    if field.columns[0].kind == "number":
        return np.isnan(flat).all(axis=1)
    missing = [column.vocabulary.index("") + 1 if "" in column.vocabulary else 0 for column in field.columns]
    return (flat == np.array(missing)).all(axis=1)
