"""What a distillation is: a loss between a student's and its teacher's outputs on the same batch.

A member lives in `components/compression/distillation/<name>.py` beside `conf/distillation/<name>.yaml`.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Distiller(Protocol):
    """Mixes what the labels say (`hard_loss`) with what the teacher says.

    Outputs are logits [B, K] for `task` classification, standardised values [B, 1] for regression. `makes_student`
    is false for a member that passes the teacher on. A teacher distilled into itself has no loss but the labels'.
    """

    makes_student: bool

    def __call__(self, student: Tensor, teacher: Tensor, hard_loss: Tensor, task: str) -> Tensor: ...
