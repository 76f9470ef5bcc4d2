"""Policies that look right and are not: each must fail the family's contract."""

from __future__ import annotations

from typing import Any

import torch


class GlobalDice:
    """Draws from torch's global generator."""

    modality = "image"

    def __call__(self, batch: dict[str, Any], targets: Any, generator: Any, strength: float) -> tuple[dict[str, Any], Any]:
        if strength == 0:
            return batch, targets
        return {name: values * torch.rand(len(values), 1, 1, 1) for name, values in batch.items()}, targets


class WritesInPlace:
    """Changes the batch it was handed."""

    modality = "image"

    def __call__(self, batch: dict[str, Any], targets: Any, generator: Any, strength: float) -> tuple[dict[str, Any], Any]:
        for values in batch.values():
            values.mul_(1 - strength * torch.rand(1, generator=generator))
        return batch, targets


class StrongAtZero:
    """Changes rows at strength 0 too."""

    modality = "image"

    def __call__(self, batch: dict[str, Any], targets: Any, generator: Any, strength: float) -> tuple[dict[str, Any], Any]:
        return {name: values * torch.rand(1, generator=generator) for name, values in batch.items()}, targets


class LeavesTheRange:
    """Normalises images, which is the network's own work."""

    modality = "image"

    def __call__(self, batch: dict[str, Any], targets: Any, generator: Any, strength: float) -> tuple[dict[str, Any], Any]:
        if strength == 0:
            return batch, targets
        noise = torch.rand(1, generator=generator)
        return {name: values - values.mean() - noise for name, values in batch.items()}, targets
