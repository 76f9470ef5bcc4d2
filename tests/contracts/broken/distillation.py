"""Distillations that look right and are not: each must fail the family's contract."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


class PushesAway:
    """Rewards being unlike the teacher."""

    makes_student = True

    def __call__(self, student: Tensor, teacher: Tensor, hard_loss: Tensor, task: str) -> Tensor:
        return hard_loss - F.mse_loss(student, teacher)


class DeafToLabels:
    """Ignores what the labels say."""

    makes_student = True

    def __call__(self, student: Tensor, teacher: Tensor, hard_loss: Tensor, task: str) -> Tensor:
        return F.mse_loss(student, teacher)


class NeverSatisfied:
    """Cross-entropy with the teacher's distribution, whose least value is the teacher's entropy and not zero."""

    makes_student = True

    def __call__(self, student: Tensor, teacher: Tensor, hard_loss: Tensor, task: str) -> Tensor:
        return hard_loss + F.cross_entropy(student / 4, (teacher / 4).softmax(dim=1))
