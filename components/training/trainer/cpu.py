"""One process on the CPU."""

from __future__ import annotations

from components.training.devices import accumulated, compiles


class Cpu:
    """`accumulate`: batches whose gradients make one step; `compile`: torch.compile. Raises `UsageError`."""

    accelerator, devices = "cpu", 1

    def __init__(self, *, accumulate: int = 1, compile: bool = False) -> None:
        self.accumulate, self.compile = accumulated(accumulate), compiles(compile)

    def strategy(self) -> str:
        return "auto"
