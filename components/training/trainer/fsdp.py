"""Several devices, each with a share of the weights, of their gradients and of the optimizer's state (Zhao et al.,
"PyTorch FSDP", VLDB 2023), by Lightning's `ModelParallelStrategy`; its `fsdp` refuses CPUs."""

from __future__ import annotations

from typing import Any

from components.training.devices import accelerator_for, accumulated, compiles, several


class Fsdp:
    """`devices` processes, a device each: `accelerator` cpu, gpu or auto. Raises `UsageError`."""

    def __init__(self, *, devices: int = 2, accelerator: str = "auto", accumulate: int = 1, compile: bool = False) -> None:
        self.devices = several(devices)
        self.accelerator = accelerator_for(accelerator, self.devices)
        self.accumulate, self.compile = accumulated(accumulate), compiles(compile)

    def strategy(self) -> Any:
        from components.training.sharding import Sharded

        return Sharded(self.devices)
