"""What a search space is: it samples architectures, builds them as networks and makes a student of a teacher.

A member lives in `components/models/space/<name>.py` beside `conf/space/<name>.yaml`. Search, training, distillation
and export meet a space through the methods of `Space` and know nothing of images or tables. Those of `SearchSpace` are
what a search can do more with; `ConditionalSpace` gives them to a member, and a space without them is searched too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from components.artifacts import JSON, DatasetVersion, InputField

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


class Suggest(Protocol):
    """The part of an Optuna trial that a space draws from."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float: ...


class Space(Protocol):
    """A set of architectures for one modality.

    An architecture is plain JSON. `sample` draws its parameters under names that begin with `arch.`, those that only
    matter for some values of another only when they matter; `build` is pure: the same arguments and the same state of
    the global generator give the same weights.
    """

    modality: str

    def sample(self, trial: Suggest, dataset: DatasetVersion) -> JSON:
        """An architecture that fits the dataset's inputs."""
        ...

    def hyperparameters(self, trial: Suggest, dataset: DatasetVersion, optimizers: Any) -> JSON:
        """How to train it; `optimizers` maps each optimizer's name to its configuration (or is a list of names)."""
        ...

    def build(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        """A network that takes the inputs' raw tensors in order and returns logits [B, K] or a standardised value [B, 1]."""
        ...

    def shrink(self, architecture: JSON) -> JSON:
        """A distinctly smaller architecture of the same space, for a student."""
        ...


class SearchSpace(Space, Protocol):
    """A space that tells of its architectures without building them.

    All of it is a function of its arguments. Architectures with one `key` are one and the same network, whatever weights
    it has.
    """

    def parameters(self, architecture: JSON) -> dict[str, Any]:
        """The draws that make this architecture: the inverse of `sample`. May name more than `sample` would ask for."""
        ...

    def size(self, dataset: DatasetVersion) -> int | None:
        """How many architectures can be drawn, isomorphic ones counted apart; None if infinitely or too many to count."""
        ...

    def neighbours(self, architecture: JSON, dataset: DatasetVersion) -> list[JSON]:
        """The architectures one changed draw away, one of each key, none with the architecture's own."""
        ...

    def encode(self, architecture: JSON, dataset: DatasetVersion) -> list[float]:
        """Numbers in 0..1, equally many for every architecture of the space, and the same ones for the same key."""
        ...

    def key(self, architecture: JSON) -> str:
        """A text that is equal for isomorphic architectures, and for them alone as far as the space can tell."""
        ...

    def fold(self, architecture: JSON) -> JSON:
        """The one architecture of the space that stands for all with this key."""
        ...

    def num_parameters(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int) -> int:
        """How many numbers its network would train."""
        ...


def choose(trial: Suggest, name: str, choices: Sequence[T]) -> T:
    """One of `choices`; a choice of one is no parameter, so that a sampler is not asked about it."""
    return choices[0] if len(choices) == 1 else trial.suggest_categorical(name, choices)
