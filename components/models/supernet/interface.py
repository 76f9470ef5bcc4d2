"""What a supernet can do, and what is the same in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from components.artifacts import JSON


class Supernet(Protocol):
    """A module whose `forward` runs one candidate: the raw inputs through the shared weights that its architecture names.

    Normalisation takes the statistics of the batch at hand, in training and after: those of one candidate would not
    do for another. So a row's output depends on the rows beside it.
    """

    def __call__(self, architecture: JSON, *inputs: Tensor) -> Tensor:
        """Logits [B, K]."""
        ...


class MixtureSupernet(Supernet, Protocol):
    """A supernet whose choices are all between the same operations, and which can run them weighted against each other.

    `choices` are the parameters' names as the space draws them, one for each edge; `operations` are the values that
    each of them may take.
    """

    choices: tuple[str, ...]
    operations: tuple[str, ...]

    def mixture(self, weights_EO: Tensor, *inputs: Tensor) -> Tensor:
        """Logits [B, K] with each edge E the sum of its operations O by their weights; a weight of exactly 0 costs nothing."""
        ...


def use_batch_statistics(network: nn.Module) -> None:
    """Makes every batch normalisation take the statistics of the batch at hand, in eval mode too."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None


def as_tensors(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The inputs as a tuple, for calls that unpack them."""
    return tuple(inputs)
