"""Distillation from a teacher's softened outputs (Hinton et al. 2015)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from components.errors import UsageError


class Logits:
    """`weight` times the divergence from the teacher's distribution at `temperature`, the rest the labels' loss.

    The divergence is multiplied by the squared temperature, so that its gradient keeps its size. For regression it is
    the mean squared difference from the teacher's value. Weight 0 learns from labels alone, weight 1 from the teacher alone.
    """

    makes_student = True

    def __init__(self, *, temperature: float = 3.0, weight: float = 0.8) -> None:
        if temperature <= 0:
            raise UsageError(f"distillation.temperature must be positive, got {temperature}")
        if not 0 <= weight <= 1:
            raise UsageError(f"distillation.weight must lie in 0..1, got {weight}")
        self.temperature, self.weight = temperature, weight

    def __call__(self, student: Tensor, teacher: Tensor, hard_loss: Tensor, task: str) -> Tensor:
        if self.weight == 0:
            return hard_loss
        return self.weight * self._soft_loss(student, teacher, task) + (1 - self.weight) * hard_loss

    def _soft_loss(self, student: Tensor, teacher: Tensor, task: str) -> Tensor:
        if task != "classification":
            return F.mse_loss(student, teacher)
        warm = F.log_softmax(student / self.temperature, dim=1)
        taught = F.log_softmax(teacher / self.temperature, dim=1)
        return F.kl_div(warm, taught, log_target=True, reduction="batchmean") * self.temperature**2
