"""One GPU. Rows that fit stay on it as tensors."""

from __future__ import annotations

from components.training.devices import accumulated, compiles


class Gpu:
    """`accumulate`: batches whose gradients make one step; `compile`: torch.compile. Raises `UsageError`."""

    accelerator, devices = "gpu", 1

    def __init__(self, *, accumulate: int = 1, compile: bool = False) -> None:
        self.accumulate, self.compile = accumulated(accumulate), compiles(compile)

    def strategy(self) -> str:
        return "auto"
