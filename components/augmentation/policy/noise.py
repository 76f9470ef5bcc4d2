"""Noise for tables: values swapped with another row's and values hidden, numbers and categories alike."""

from __future__ import annotations

import torch
from torch import Tensor

from components.augmentation.interface import Batch
from components.errors import UsageError


class Noise:
    """Each value is replaced by another row's with probability `swap`, and hidden (NaN, or the code for unseen) with `mask`.

    Swapping keeps each column's own distribution; hiding teaches the network what to do without a value.
    """

    modality = "table"

    def __init__(self, *, swap: float = 0.15, mask: float = 0.1) -> None:
        for name, value in (("swap", swap), ("mask", mask)):
            if not 0 <= value <= 1:
                raise UsageError(f"augmentation.{name} is a probability, got {value}")
        self.swap, self.mask = swap, mask

    def __call__(self, batch: Batch, targets: Tensor, generator: torch.Generator, strength: float) -> tuple[Batch, Tensor]:
        if strength <= 0:
            return batch, targets
        return {name: self._vary(values, generator, strength) for name, values in batch.items()}, targets

    def _vary(self, values: Tensor, generator: torch.Generator, strength: float) -> Tensor:
        others = values[torch.randperm(len(values), generator=generator).to(values.device)]
        swapped = torch.rand(values.shape, generator=generator).to(values.device) < self.swap * strength
        hidden = torch.rand(values.shape, generator=generator).to(values.device) < self.mask * strength
        nothing = 0 if values.dtype == torch.int64 else float("nan")
        return torch.where(swapped, others, values).masked_fill(hidden, nothing)
