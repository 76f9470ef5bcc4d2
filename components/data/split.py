"""Which split a row belongs to: the one its data set brings, else the one that follows from the row's own content.

A row's digest decides alone, so rows that arrive later never move a row that was there before, equal rows land in the
same split, and every machine agrees. The price is that the parts hit their fractions only on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from components.artifacts import SPLITS
from components.data.reader import RowDigests
from components.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np


def fractions(config: Mapping[str, float]) -> tuple[float, float]:
    """The validation and test fractions of a `split` section. Raises `UsageError` unless both lie between 0 and 1."""
    for name in ("validation", "test"):
        value = config.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise UsageError(f"split.{name} must be a fraction between 0 and 1 (both excluded), got {value!r}; 0.15 is usual")
    return float(config["validation"]), float(config["test"])


def assign(digests: Sequence[bytes], given: Sequence[str], config: Mapping[str, float]) -> np.ndarray:
    """Each row's split name. A given test or validation split is kept and then not drawn; validation is a fraction
    of what the test split leaves. Raises `DataError` when a split ends up empty."""
    import numpy as np

    validation, test = fractions(config)
    splits = np.array(given, dtype="<U10")
    content = digests.content if isinstance(digests, RowDigests) else b"".join(digests)
    draws = np.frombuffer(content, dtype=">u8").reshape(-1, 2) / 2.0**64
    open_rows = ~np.isin(splits, ("validation", "test"))
    has_test, has_validation = "test" in given, "validation" in given
    to_test = open_rows & (draws[:, 0] < test) & (not has_test)
    to_validation = open_rows & ~to_test & (draws[:, 1] < validation) & (not has_validation)
    splits[open_rows] = "train"
    splits[to_validation] = "validation"
    splits[to_test] = "test"
    _refuse_empty(splits, validation, test)
    return splits


def _refuse_empty(splits: np.ndarray, validation: float, test: float) -> None:
    counts = {name: int((splits == name).sum()) for name in SPLITS}
    for name, count in counts.items():
        if not count:
            raise DataError(
                f"the {name} split has no rows: {len(splits)} distinct enough rows are too few for split.validation={validation:g} "
                f"and split.test={test:g}; bring more rows or change these fractions"
            )
