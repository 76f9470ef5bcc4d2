"""What an augmentation policy is: a batch in, a varied batch of the same kind out.

A member lives in `components/augmentation/policy/<name>.py` beside `conf/augmentation/<name>.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

Batch = dict[str, Tensor]


class Policy(Protocol):
    """How a batch of training rows is varied.

    `modality` is the one it accepts (`any` for all). Called with the fields of a batch (images as float32 [B, C, H, W]
    in the data's own unit, numbers with NaN for missing, category codes), the targets, a generator that all
    randomness comes from, and a strength in 0..1, where 0 changes nothing. Shapes and types stay; inputs are not
    written to.
    """

    modality: str

    def __call__(self, batch: Batch, targets: Tensor, generator: torch.Generator, strength: float) -> tuple[Batch, Tensor]: ...


@contextmanager
def global_seed_from(generator: torch.Generator) -> Iterator[None]:
    """Lets a library that only knows torch's global generator (kornia) draw from ours; the global one is put back."""
    seed = int(torch.randint(0, 2**62, (), generator=generator))
    # Not torch.manual_seed: without a GPU in use it stores a formatted stack trace per call, a tenth of a small step.
    kept = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(kept)
