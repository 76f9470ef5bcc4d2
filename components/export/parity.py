"""Proof that an exported graph computes what its origin computes, over real rows and several batch sizes.

An origin is anything that maps stored arrays to outputs: the network in PyTorch, or the graph before quantisation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from components.artifacts import DatasetVersion
from components.data.arrays import load_inputs
from components.errors import StageFailedError
from components.export.runtime import Session, feeds

BATCH_SIZES = (1, 2, 7)
ROUNDING = float(np.finfo(np.float32).eps)  # a value far from zero is rounded, however well it is computed
Arrays = dict[str, NDArray]
Origin = Callable[[Arrays], NDArray]


def rows_of(dataset: DatasetVersion, start: int, size: int, split: str = "validation") -> Arrays:
    """`size` rows of a split from `start` on; a split that is shorter goes round."""
    picked = np.arange(start, start + size) % dataset.splits[split]
    return {name: np.asarray(array[picked]) for name, array in load_inputs(dataset, split).items()}


def parity(session: Session, origin: Origin, dataset: DatasetVersion) -> dict[str, float]:
    """Largest absolute difference by batch size; infinite where a batch's shape or finiteness differs."""
    found, start = {}, 0
    for size in BATCH_SIZES:
        arrays = rows_of(dataset, start, size)
        found[str(size)] = difference(session.run(feeds(dataset, arrays)), origin(arrays))
        start += size
    return found


def difference(ours: NDArray, theirs: NDArray) -> float:
    """Largest absolute difference of two outputs; infinite when one has another shape or is not finite."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all() or not np.isfinite(theirs).all():
        return float("inf")
    return float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max())


def require_parity(name: str, found: dict[str, float], tolerance: float, dataset: DatasetVersion) -> None:
    """Raises `StageFailedError` when a difference exceeds `tolerance` (of 1 for probabilities, of the target's spread for values)."""
    allowed = tolerance
    if dataset.task == "regression":
        allowed = tolerance * dataset.target_std + 4 * ROUNDING * abs(dataset.target_mean)
    worst = max(found, key=lambda size: found[size])
    if not found[worst] <= allowed:
        raise StageFailedError(
            f"the exported graph {name} differs from its network by {found[worst]:.3g} at batch size {worst}, more than the {allowed:.3g} "
            "allowed; raise exporter.tolerance only if that is known to be harmless"
        )
