"""Optimizers that look right and are not: each must fail the family's contract."""

from __future__ import annotations

from typing import Any

import torch


class Uphill(torch.optim.AdamW):
    """Climbs."""

    def __init__(self, params: Any, lr: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, maximize=True)


class ForgetsItsMomentum(torch.optim.AdamW):
    """Keeps its running means out of what is saved."""

    def __init__(self, params: Any, lr: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


class NeverDecays(torch.optim.AdamW):
    """Takes a weight decay and ignores it."""

    def __init__(self, params: Any, lr: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, weight_decay=0.0)
