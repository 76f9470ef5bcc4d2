"""Several devices, each with the whole network and a share of every batch (Li et al., "PyTorch Distributed", VLDB 2020)."""

from __future__ import annotations

from typing import Any

from components.training.devices import accelerator_for, accumulated, compiles, several


class Ddp:
    """`devices` processes, a device each: `accelerator` cpu, gpu or auto. Raises `UsageError`.

    Gradients are averaged over the processes while they are computed. Statistics of batch normalisation are those of
    the first process's share.
    """

    def __init__(self, *, devices: int = 2, accelerator: str = "auto", accumulate: int = 1, compile: bool = False) -> None:
        self.devices = several(devices)
        self.accelerator = accelerator_for(accelerator, self.devices)
        self.accumulate, self.compile = accumulated(accumulate), compiles(compile)

    def strategy(self) -> Any:
        from lightning.pytorch.strategies import DDPStrategy

        return DDPStrategy()
