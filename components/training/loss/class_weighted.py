"""Cross-entropy in which rare classes count more, as scikit-learn's `balanced` (King and Zeng, 2001)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from components.settings import number


class ClassWeighted:
    """Weights (rows / (classes × rows of the class)) ** `power`; a class without rows counts 1. Raises `UsageError`."""

    task = "classification"

    def __init__(self, *, power: float = 1.0) -> None:
        self.power = number("loss.class_weighted.power", power, 0, 1)

    def class_weights(self, counts_K: Tensor) -> Tensor | None:
        balanced = counts_K.sum() / (len(counts_K) * counts_K.clamp_min(1))
        return balanced.where(counts_K > 0, balanced.new_ones(())).pow(self.power)

    def __call__(self, outputs_BK: Tensor, targets_B: Tensor, *, weights_K: Tensor | None, label_smoothing: float) -> Tensor:
        return F.cross_entropy(outputs_BK, targets_B, weight=weights_K, label_smoothing=label_smoothing)
