"""Supernets in a search: one network that holds every candidate of a space, trained once, before the first suggestion.

A strategy with `train_supernet` is asked for it by the search, in a worker process. What it leaves is one safetensors
file: the shared weights, and in its header as JSON what the strategy derived from them. Suggestions and the evaluator
`supernet` read that file (`Problem.supernet`, `Assignment.supernet`) and nothing else of the strategy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from components.artifacts import JSON, AugmentationPolicy, DatasetVersion
from components.errors import CorruptArtifactError
from components.search.interface import Strategy
from components.settings import number, whole
from components.store import fsync

if TYPE_CHECKING:
    from torch import Tensor

SUPERNET = "supernet"  # what a space offers that can build one; strategies that train one need it
MIXTURE = "mixture supernet"  # what a space offers whose supernet can weigh operations against each other, as gradients ask
TRAINED = "trained supernet"  # what such a strategy offers; the evaluator `supernet` needs it
FILE = "supernet.safetensors"


@dataclass(frozen=True, kw_only=True)
class SupernetTask:
    """What a supernet is trained for, where (`scratch`), and for how long (None: the strategy's own number of epochs).

    `config` holds the search's sections. Without `seconds` the result is a function of the rest, bit for bit.
    """

    dataset: DatasetVersion
    policy: AugmentationPolicy
    config: JSON
    scratch: Path
    seed: int
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How shared weights are trained: passes over the rows, and SGD with a cosine schedule. `holdout` is the share of the
    training rows that judge candidates, beside the validation rows, and train nothing; each of them is seen by `views`
    candidates, and the best `candidates` are derived. Raises `UsageError` for a number out of its range."""

    epochs: int
    batch_size: int
    learning_rate: float
    holdout: float
    views: int
    candidates: int
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("views", 2), ("candidates", 1)):
            whole(f"strategy.{name}", getattr(self, name), least)
        number("strategy.learning_rate", self.learning_rate, 0, above=True)
        number("strategy.holdout", self.holdout, 0, 1, above=True, below=True)


class SupernetStrategy(Strategy, Protocol):
    """A strategy that trains a supernet and derives its first candidates from it. `needs` holds `supernet` (of the space)
    and `offers` holds `trained supernet` (to the evaluator)."""

    offers: frozenset[str]

    def train_supernet(self, task: SupernetTask, *, emit: Callable[..., Any]) -> Path:
        """The supernet's file, below `scratch`; at once if it is there, from the last checkpoint if training was killed."""
        ...


@dataclass(frozen=True)
class Derived:
    """What a strategy derived from its supernet.

    `effects` says by how much a value of a parameter changes the expected held-out accuracy, by `name=value`; all are 0
    where the supernet cannot tell candidates apart. `candidates` are parameters, the best first. `evidence` is what
    the report shows: how long was trained, how sure the effects are, architecture weights.
    """

    effects: dict[str, float]
    candidates: tuple[dict[str, Any], ...]
    evidence: JSON = field(default_factory=dict)

    def score(self, params: Mapping[str, Any]) -> float:
        """The expected held-out accuracy of a candidate, less that of an average one; parameters without effects add 0."""
        return sum(self.effects.get(effect_name(name, value), 0.0) for name, value in params.items())

    def with_evidence(self, figures: JSON) -> Derived:
        """The same with more to show."""
        return replace(self, evidence={**figures, **self.evidence})


def effect_name(name: str, value: Any) -> str:
    """How an effect is called.

    >>> effect_name("arch.edge0", "none")
    'arch.edge0=none'
    """
    return f"{name}={value}"


def save_supernet(path: Path, weights: Mapping[str, Tensor], derived: Derived) -> None:
    """Writes the file whole or not at all."""
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, temporary, metadata={"derived": json.dumps(asdict(derived))})
    fsync(temporary)
    temporary.replace(path)
    fsync(path.parent)


def derived_of(path: Path) -> Derived:
    """What was derived, without the weights. Raises `CorruptArtifactError` for a file that is no supernet of ours."""
    return _derived_at(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _derived_at(path: Path, mtime_ns: int) -> Derived:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            found = json.loads((file.metadata() or {})["derived"])
        return Derived(found["effects"], tuple(found["candidates"]), found["evidence"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptArtifactError(f"{path} is not a supernet of ours: {error}") from error


def is_supernet(path: Path) -> bool:
    """Whether a whole file is there."""
    try:
        derived_of(path)
    except (OSError, CorruptArtifactError):
        return False
    return True
