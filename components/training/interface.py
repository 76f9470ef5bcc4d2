"""What the members of the families `schedule`, `loss` and `trainer` are to a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Schedule(Protocol):
    """How the learning rate goes. Both are functions of the progress alone, 0 at the first step to 1 after the last."""

    def factor(self, progress: float) -> float:
        """What the peak learning rate is multiplied by, above 0 and at most 1."""
        ...

    def momentum(self, progress: float) -> float | None:
        """The optimizer's momentum (of Adam-like ones the first beta); None: as the optimizer has it."""
        ...


class Loss(Protocol):
    """What is minimised. `task` is the one it is for: classification or regression."""

    task: str

    def class_weights(self, counts_K: Tensor) -> Tensor | None:
        """The weight of each class [K], given the training rows of each; None: all alike, or no classes."""
        ...

    def __call__(self, outputs_BK: Tensor, targets_B: Tensor, *, weights_K: Tensor | None, label_smoothing: float) -> Tensor:
        """The mean over a batch: of logits [B, K] and classes [B], or of values [B, 1] and standardised targets [B]."""
        ...


class Trainer(Protocol):
    """On which devices a training runs. Built without importing torch, whether or not the devices are there."""

    accelerator: str  # cpu or gpu
    devices: int  # processes of a full training, a device each; trials of a search are one process each
    accumulate: int  # batches whose gradients make one step
    compile: bool  # whether the network goes through torch.compile

    def strategy(self) -> Any:
        """Lightning's strategy, or its name; where it shards the network, it has a method `shard(module)`."""
        ...
