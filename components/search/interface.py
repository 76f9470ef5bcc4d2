"""What the search asks of the families it is put together from: strategy, scheduler, evaluator and runner.

Each member is a class with keyword arguments in components/search/<family>/<name>.py, named by
conf/<family>/<name>.yaml; tests/contracts/test_<family>.py finds it there and says what it must keep. What a member
needs of the others and what it offers them are class attributes, so that an impossible combination is refused before
anything runs (components/search/compatibility.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from components.artifacts import JSON, AugmentationPolicy, Candidate, DatasetVersion, Trial

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from components.search.problem import Problem


WEIGHTS = "weights.safetensors"  # what an evaluator leaves in its scratch folder for later trials to start from
CONSTRAINTS = "constraints"  # the system attribute under which samplers of Optuna look for constraint values; <= 0 is feasible


class Strategy(Protocol):
    """Proposes the next candidate of a study.

    `learns` says whether suggestions depend on the trials so far, `objectives` whether `one` or `many` can be pursued.
    `needs` names what it asks of the space and the evaluator: `supernet`, `epochs`. `sampler` is called once per
    suggestion with a seed made from the study's seed and the trial's number, and must take all of its randomness from
    it: what it knows of the study it replays from the trials it is shown, so a study goes on after a kill as if
    nothing had happened.
    """

    learns: bool
    objectives: str
    needs: frozenset[str]

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        """A fresh Optuna sampler. `seed` is in 0..2**32-1; `problem` is the same object for all suggestions of a session."""
        ...


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a trial has come: the rungs it has ended, by their places 0, 1, ..., each with the trial's cost there
    (lower is better; several objectives come ranked by dominance among those at the same rung)."""

    number: int
    costs: dict[int, float]
    is_running: bool = False
    is_over: bool = False  # failed, or killed: never carried on


class Scheduler(Protocol):
    """Decides how long to keep trying a candidate.

    A trial is trained to one rung after another and rests in between, with its checkpoint: it is carried on only if
    the scheduler says so. `needs` names what it asks of the evaluator: `epochs`.
    """

    needs: frozenset[str]

    def rungs(self, full: int) -> tuple[int, ...]:
        """Epochs at which trials are compared, ascending; the last is `full`."""
        ...

    def first_rung(self, number: int, rungs: Sequence[int]) -> int:
        """The place of the rung that trial `number` is trained to before it first rests."""
        ...

    def next(self, rungs: Sequence[int], standings: Sequence[Standing]) -> int | None:
        """The number of the resting trial to carry on now, or None to start a new one. A pure function."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """A finished trial whose weights a candidate may start from."""

    number: int
    candidate: Candidate
    weights: Path


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that a process needs to evaluate one trial.

    `folder` is the study's; `seconds` bounds the trial (None: no limit); `epochs` is the rung to train to, of
    `full_epochs` (None: what the configuration says). `objectives` are to be among the values of the trial,
    `constraints` are upper bounds on further values by name. `ancestor` is the nearest finished trial, for evaluators
    that inherit; `supernet` the file that a one-shot strategy trained.
    """

    dataset: DatasetVersion
    policy: AugmentationPolicy
    candidate: Candidate
    config: JSON
    study: str
    number: int
    objective: str
    folder: Path
    seconds: float | None = None
    epochs: int | None = None
    full_epochs: int | None = None
    objectives: tuple[str, ...] = ()
    constraints: dict[str, float] = field(default_factory=dict)
    ancestor: Ancestor | None = None
    supernet: Path | None = None


class Evaluator(Protocol):
    """Gives a candidate its value, in a process of its own.

    `offers` names what schedulers and strategies may ask for (`epochs`: can train to a rung and be carried on),
    `needs` what it asks of the strategy and the space (`supernet`, `weights`). `keeps_weights` says that the trial's
    folder is to keep `weights.safetensors` (left in `scratch`), for later trials to start from and for fusion. One that
    does not train names in `scores` what it gives instead of validation metrics, the usual one first, with the direction
    of each: the objective of its studies is one of these. It may be left out, as if empty. `judges_on_folds` says whether
    `search.folds` is heeded; it may be left out, as if true.
    """

    offers: frozenset[str]
    needs: frozenset[str]
    keeps_weights: bool
    scores: Mapping[str, str]
    judges_on_folds: bool

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Callable[..., Any]) -> Trial:
        """The trial, complete or failed with its cause. `scratch` is this trial's own folder and survives a kill."""
        ...


EventListener = Callable[[int, str, dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call ended: `done` (value: what it returned), `error` (value: what it raised), `died` (value: the process's
    exit code, negative for a signal; None where the machine itself was lost), `oom` (killed by the kernel for want of
    memory; value: -9) or `timeout` (value: the limit in seconds)."""

    key: int
    kind: str
    value: Any
    seconds: float


class Runner(Protocol):
    """Runs calls side by side, each in a process of its own, on this machine or on others.

    Built with two arguments beside those of its yaml: `on_event(key, event, fields)` is told what calls report while
    they run, `folder` is what every machine must see under the same path. Nothing starts before `__enter__`; whatever
    still runs at `__exit__` is killed. A process that is killed, overruns its time or exhausts memory ends its own call
    only, and none outlives its caller. Raises `UsageError` for machines that cannot run calls and `TryAgainError` for
    those that are away.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def slots(self) -> int | None:
        """Calls that its machines take at once, now; None: this machine's, which is to be measured."""
        ...

    @property
    def running(self) -> tuple[int, ...]:
        """Keys of the calls that have not ended, oldest first."""
        ...

    def submit(self, key: int, function: Callable[..., Any], *args: Any, limit: float | None = None, **kwargs: Any) -> None:
        """Starts a call under a key of the caller's; it is killed once it has run for `limit` seconds."""
        ...

    def outcomes(self, timeout: float) -> list[Outcome]:
        """The calls that ended within `timeout` seconds, at once if one has; each is reported once."""
        ...

    def cancel(self, key: int) -> float:
        """Kills a call and returns the seconds it ran."""
        ...
