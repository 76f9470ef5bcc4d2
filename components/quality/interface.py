"""What a check is: the interface of the `check` family.

A check looks at one dataset version and says pass, warn or fail, with the figures, in one sentence that also says what
to do. It declares the modalities and tasks it accepts (`ANY` for all) and changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from components.artifacts import CheckResult, DatasetVersion
from components.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

ANY = ("any",)
BLOCK_ROWS = 1024
Arrays = dict[str, "np.ndarray"]


class Check(Protocol):
    """One question about the data.

    `flaw` takes the arrays of a sound data set by `<split>/<field>` and returns them with the flaw this check looks
    for: its contract suite plants it, and a check that does not see its own flaw fails.
    """

    name: str
    modalities: tuple[str, ...]
    tasks: tuple[str, ...]

    def check(self, dataset: DatasetVersion) -> CheckResult: ...

    @staticmethod
    def flaw(arrays: Arrays) -> Arrays: ...


def accepts(check: Check, dataset: DatasetVersion) -> bool:
    """Whether a check has something to say of a data set of this modality and task."""
    return all(wanted == ANY or found in wanted for wanted, found in ((check.modalities, dataset.modality), (check.tasks, dataset.task)))


def grade(figure: float, warn: float, fail: float) -> str:
    """fail from `fail` upwards, warn from `warn` upwards, else pass."""
    return "fail" if figure >= fail else "warn" if figure >= warn else "pass"


def limits(name: str, warn: float, fail: float) -> tuple[float, float]:
    """Two thresholds as floats. Raises `UsageError` unless they are numbers with warn ≤ fail."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (warn, fail))
    if not numbers or not warn <= fail:
        raise UsageError(f"check.{name}.warn must be a number no larger than check.{name}.fail, got {warn!r} and {fail!r}")
    return float(warn), float(fail)


def blocks(arrays: Arrays) -> Iterator[Arrays]:
    """Some rows of each array after another, so that what lies on disk is not read as a whole."""
    import numpy as np

    count = len(next(iter(arrays.values())))
    for start in range(0, count, BLOCK_ROWS):
        yield {name: np.ascontiguousarray(array[start : start + BLOCK_ROWS]) for name, array in arrays.items()}


def row_keys(arrays: Arrays) -> np.ndarray:
    """S16 [N]: one digest per row over all fields, equal for rows with equal inputs."""
    import numpy as np

    keys = bytearray()
    for block in blocks(arrays):
        fields = [array.reshape(len(array), -1) for array in block.values()]
        for rows in zip(*fields, strict=True):
            keys += hashlib.blake2b(b"".join(row.tobytes() for row in rows), digest_size=16).digest()
    return np.frombuffer(bytes(keys), dtype="S16")
