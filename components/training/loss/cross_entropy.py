"""The log-loss of the right class, with label smoothing (Szegedy et al., CVPR 2016)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


class CrossEntropy:
    task = "classification"

    def class_weights(self, counts_K: Tensor) -> Tensor | None:
        return None

    def __call__(self, outputs_BK: Tensor, targets_B: Tensor, *, weights_K: Tensor | None, label_smoothing: float) -> Tensor:
        return F.cross_entropy(outputs_BK, targets_B, weight=weights_K, label_smoothing=label_smoothing)
