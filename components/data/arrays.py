"""The arrays behind a dataset version, memory-mapped: what every later stage reads.

>>> inputs = load_inputs(dataset, "train")          # doctest: +SKIP
>>> inputs["image"].shape, load_target(dataset, "train").shape          # doctest: +SKIP
((1221, 1, 8, 8), (1221,))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.artifacts import DatasetVersion
from components.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    import numpy as np


def load_inputs(dataset: DatasetVersion, split: str) -> dict[str, np.ndarray]:
    """One read-only array per input field, in the order of `dataset.inputs`, first axis the rows."""
    return {field.name: _load(dataset, split, field.name) for field in dataset.inputs}


def load_target(dataset: DatasetVersion, split: str) -> np.ndarray:
    """int64 class indices [N] or float32 values [N], read-only."""
    return _load(dataset, split, "target")


def _load(dataset: DatasetVersion, split: str, name: str) -> np.ndarray:
    import numpy as np

    if split not in dataset.splits:
        raise UnknownNameError("split", split, dataset.splits)
    file = dataset.files[f"{split}/{name}"]
    try:
        return np.load(file.path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"array {file.path} of dataset {dataset.name} cannot be read ({error}); run the version stage again") from error
