"""Trainers that look right and are not: each must fail the family's contract."""

from __future__ import annotations

from typing import Any

from components.training.trainer.cpu import Cpu
from components.training.trainer.ddp import Ddp


class Forgetful(Cpu):
    """Takes steps of one batch, however many were to be accumulated."""

    def __init__(self, *, accumulate: int = 1, compile: bool = False) -> None:
        super().__init__(accumulate=accumulate, compile=compile)
        self.accumulate = 1


class Greedy(Cpu):
    """Takes all the devices there could be, unasked."""

    devices = 1_000_000


class Lenient(Cpu):
    """Takes whatever it is given for a number of batches."""

    def __init__(self, *, accumulate: Any = 1, compile: bool = False) -> None:
        super().__init__(compile=compile)
        self.accumulate = accumulate


class Eager(Cpu):
    """Imports torch to be built: every `athanor plan` would wait for it."""

    def __init__(self, *, accumulate: int = 1, compile: bool = False) -> None:
        import torch  # noqa: F401

        super().__init__(accumulate=accumulate, compile=compile)


class Apart(Ddp):
    """Each process trains by itself, on its own share of the rows."""

    def strategy(self) -> Any:
        from lightning.pytorch.strategies import DDPStrategy

        class Silent(DDPStrategy):
            def pre_backward(self, closure_loss: Any) -> None:
                self.model.require_backward_grad_sync = False
                super().pre_backward(closure_loss)

        return Silent()
