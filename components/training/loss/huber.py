"""Squared near zero and straight beyond, so that outliers pull no harder the further they are (Huber, 1964)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from components.settings import number


class Huber:
    """`delta`: where it becomes straight, in standard deviations of the target. Raises `UsageError`."""

    task = "regression"

    def __init__(self, *, delta: float = 1.0) -> None:
        self.delta = number("loss.huber.delta", delta, 0, above=True)

    def class_weights(self, counts_K: Tensor) -> Tensor | None:
        return None

    def __call__(self, outputs_BK: Tensor, targets_B: Tensor, *, weights_K: Tensor | None, label_smoothing: float) -> Tensor:
        return F.huber_loss(outputs_BK.squeeze(-1), targets_B, delta=self.delta)
