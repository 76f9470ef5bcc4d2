"""The arrays behind a dataset version, read from disk: what every later stage reads.

>>> inputs = load_inputs(dataset, "train")          # doctest: +SKIP
>>> inputs["image"].shape, load_target(dataset, "train").shape          # doctest: +SKIP
((1221, 1, 8, 8), (1221,))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from components.artifacts import DatasetVersion
from components.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    import numpy as np

    from components.data.mapped import Mapped
    from components.data.packed import Packed


def load_inputs(dataset: DatasetVersion, split: str) -> dict[str, np.ndarray]:
    """One read-only array per input field, in the order of `dataset.inputs`, first axis the rows.

    Arrays are memory-mapped. Images kept as files are decoded when they are indexed, so take the rows you need and no
    more; what is indexed is an ordinary array."""
    return {field.name: _load(dataset, split, field.name) for field in dataset.inputs}


def load_target(dataset: DatasetVersion, split: str) -> np.ndarray:
    """int64 class indices [N] or float32 values [N], read-only."""
    return _load(dataset, split, "target")


def stored(dataset: DatasetVersion, splits: Sequence[str], name: str) -> Mapped | Packed:
    """The rows of one field over some splits, one split after another, to be read a few at a time."""
    from components.data.mapped import Mapped
    from components.data.packed import BYTES, ENDS, Packed

    for split in splits:
        _known(dataset, split)
    try:
        if is_packed(dataset, splits[0], name):
            files = [(_path(dataset, split, f"{name}.{BYTES}"), _path(dataset, split, f"{name}.{ENDS}")) for split in splits]
            shape = next(field.shape for field in dataset.inputs if field.name == name)
            return Packed(files, shape, f"the {' and '.join(splits)} images of dataset {dataset.name}")
        return Mapped([_path(dataset, split, name) for split in splits])
    except (OSError, ValueError) as error:
        raise _unreadable(dataset, f"{'+'.join(splits)}/{name}", error) from error


def is_packed(dataset: DatasetVersion, split: str, name: str) -> bool:
    """Whether a field's rows are kept as encoded files rather than as arrays."""
    return f"{split}/{name}" not in dataset.files and f"{split}/{name}.bytes" in dataset.files


def _load(dataset: DatasetVersion, split: str, name: str) -> np.ndarray:
    import numpy as np

    _known(dataset, split)
    if is_packed(dataset, split, name):
        return cast("np.ndarray", stored(dataset, [split], name))
    path = _path(dataset, split, name)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _unreadable(dataset, str(path), error) from error


def _known(dataset: DatasetVersion, split: str) -> None:
    if split not in dataset.splits:
        raise UnknownNameError("split", split, dataset.splits)


def _path(dataset: DatasetVersion, split: str, name: str) -> Path:
    return dataset.files[f"{split}/{name}"].path


def _unreadable(dataset: DatasetVersion, what: str, error: Exception) -> DataError:
    return DataError(f"array {what} of dataset {dataset.name} cannot be read ({error}); run the version stage again")
