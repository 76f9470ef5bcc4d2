"""Small rotations, shifts, scalings and shears, without flips: for digits, letters and whatever has an up and a left."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from components.augmentation.interface import Batch, global_seed_from
from components.errors import UsageError


class Affine:
    """One random affine map per image; each bound is reached at strength 1 and shrinks linearly with it."""

    modality = "image"

    def __init__(self, *, degrees: float = 15.0, translate: float = 0.1, scale: float = 0.15, shear: float = 10.0) -> None:
        for name, value, limit in (("degrees", degrees, 180), ("translate", translate, 1), ("scale", scale, 0.9), ("shear", shear, 60)):
            if not 0 <= value <= limit:
                raise UsageError(f"augmentation.{name} must lie in 0..{limit}, got {value}")
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear

    def __call__(self, batch: Batch, targets: Tensor, generator: torch.Generator, strength: float) -> tuple[Batch, Tensor]:
        if strength <= 0:
            return batch, targets
        warp = _random_affine(self.degrees * strength, self.translate * strength, self.scale * strength, self.shear * strength)
        with global_seed_from(generator):
            return {name: warp(image) for name, image in batch.items()}, targets


@functools.lru_cache(maxsize=8)
def _random_affine(degrees: float, translate: float, scale: float, shear: float) -> torch.nn.Module:
    from kornia.augmentation import RandomAffine

    return RandomAffine(
        degrees=degrees, translate=(translate, translate), scale=(1 - scale, 1 + scale), shear=shear, p=1.0, keepdim=False
    )  # fmt: skip
