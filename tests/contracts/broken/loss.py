"""Losses that look right and are not: each must fail the family's contract."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from components.training.loss.cross_entropy import CrossEntropy
from components.training.loss.mse import MSE


class Summed(CrossEntropy):
    """Grows with the batch: the learning rate would mean something else at every batch size."""

    def __call__(self, outputs_BK: Tensor, targets_B: Tensor, **how: Any) -> Tensor:
        return super().__call__(outputs_BK, targets_B, **how) * len(targets_B)


class Deaf(CrossEntropy):
    """Does not hear the weights of classes."""

    def __call__(self, outputs_BK: Tensor, targets_B: Tensor, *, weights_K: Tensor | None, label_smoothing: float) -> Tensor:
        return super().__call__(outputs_BK, targets_B, weights_K=None, label_smoothing=label_smoothing)


class Unsqueezed(MSE):
    """Compares every row with every other row's target."""

    def __call__(self, outputs_BK: Tensor, targets_B: Tensor, **how: Any) -> Tensor:
        return (outputs_BK - targets_B).square().mean()
