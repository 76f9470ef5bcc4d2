"""Cross-entropy that turns away from rows which are already right (Lin et al., "Focal Loss", ICCV 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from components.settings import number


class Focal:
    """Each class's log-loss times (1 - its probability) ** `gamma`; 0 is cross-entropy. Raises `UsageError`."""

    task = "classification"

    def __init__(self, *, gamma: float = 2.0) -> None:
        self.gamma = number("loss.focal.gamma", gamma, 0, 10)

    def class_weights(self, counts_K: Tensor) -> Tensor | None:
        return None

    def __call__(self, outputs_BK: Tensor, targets_B: Tensor, *, weights_K: Tensor | None, label_smoothing: float) -> Tensor:
        logs_BK = outputs_BK.log_softmax(dim=1)
        wanted_BK = torch.full_like(logs_BK, label_smoothing / logs_BK.shape[1])
        wanted_BK.scatter_add_(1, targets_B[:, None], torch.full_like(logs_BK[:, :1], 1.0 - label_smoothing))
        each_BK = -wanted_BK * (1.0 - logs_BK.exp()).clamp_min(1e-12) ** self.gamma * logs_BK
        if weights_K is None:
            return each_BK.sum(dim=1).mean()
        return (each_BK * weights_K).sum() / weights_K[targets_B].sum()  # the mean as torch's cross_entropy takes it
