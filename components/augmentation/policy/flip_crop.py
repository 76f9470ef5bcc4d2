"""Mirror images left to right and shift them by a few pixels: the standard policy for photographs of things."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from components.augmentation.interface import Batch, global_seed_from
from components.errors import UsageError


class FlipCrop:
    """A horizontal flip with probability `flip`, and a crop from an image padded by reflection with `padding` of its side.

    Strength scales the padding and, below 0.5, the flip's probability.
    """

    modality = "image"

    def __init__(self, *, flip: float = 0.5, padding: float = 0.125) -> None:
        if not 0 <= flip <= 1:
            raise UsageError(f"augmentation.flip is a probability, got {flip}")
        if not 0 <= padding < 0.5:
            raise UsageError(f"augmentation.padding is a share of the side below 0.5, got {padding}")
        self.flip, self.padding = flip, padding

    def __call__(self, batch: Batch, targets: Tensor, generator: torch.Generator, strength: float) -> tuple[Batch, Tensor]:
        if strength <= 0:
            return batch, targets
        flip = _random_flip(self.flip * min(1.0, 2 * strength))
        varied = {}
        with global_seed_from(generator):
            for name, image in batch.items():
                margins = [round(side * self.padding * strength) for side in image.shape[-2:]]
                varied[name] = _random_crop(flip(image), *margins)
        return varied, targets


@functools.lru_cache(maxsize=8)
def _random_flip(probability: float) -> torch.nn.Module:
    from kornia.augmentation import RandomHorizontalFlip

    return RandomHorizontalFlip(p=probability)


def _random_crop(image: Tensor, vertical: int, horizontal: int) -> Tensor:
    """A window of the image's own size at a random place of the padded image, by indexing: whole pixels stay exact."""
    rows, channels, height, width = image.shape
    if not vertical and not horizontal:
        return image
    padded = torch.nn.functional.pad(image, (horizontal, horizontal, vertical, vertical), mode="reflect")
    tops = torch.randint(0, 2 * vertical + 1, (rows, 1, 1, 1)).to(image.device)
    lefts = torch.randint(0, 2 * horizontal + 1, (rows, 1, 1, 1)).to(image.device)
    row_index = tops + torch.arange(height, device=image.device).view(1, 1, -1, 1)
    column_index = lefts + torch.arange(width, device=image.device).view(1, 1, 1, -1)
    which = torch.arange(rows, device=image.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=image.device).view(1, -1, 1, 1)
    return padded[which, channel, row_index, column_index]
