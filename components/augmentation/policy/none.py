"""No augmentation: the row to compare every policy with."""

from __future__ import annotations

import torch
from torch import Tensor

from components.augmentation.interface import Batch


class Unchanged:
    """Returns what it is given."""

    modality = "any"

    def __call__(self, batch: Batch, targets: Tensor, generator: torch.Generator, strength: float) -> tuple[Batch, Tensor]:
        return batch, targets
