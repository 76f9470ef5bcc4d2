"""The next candidate of a study: a pure function of the trials so far, the configuration and the seed.

Building a space imports torch, so proposals are made in a worker forked from the preloaded server, and the parent of a
search stays light. Nothing is written here: a proposal becomes part of the study when the parent stores it whole.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import pkgutil
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from components.artifacts import JSON, Candidate, DatasetVersion, digest_of
from components.build import allow, build
from components.errors import UsageError
from components.search.compatibility import check

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

    from components.models.interface import Suggest
    from components.models.points import Point
    from components.search.problem import Problem

CANDIDATE = "candidate"  # the user attribute of an Optuna trial that holds its candidate
IDENTITY = "identity"  # the user attribute that holds what is equal for candidates that are one and the same
ORIGIN = "origin"  # the user attribute that says where an enqueued candidate comes from
ATTEMPTS = 50  # suggestions tried before a space is taken to hold nothing new


class Drawn(NamedTuple):
    """What a space's program returns."""

    architecture: JSON
    hyperparameters: JSON


class Proposer:
    """Makes the suggestions of one study. What it keeps between two of them only saves time."""

    def __init__(self, dataset: DatasetVersion, config: JSON, directions: Sequence[str], seed: int, supernet: Path | None = None) -> None:
        import optuna

        from components.search.shown import Shown

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for package in config.get("plugins") or ():
            allow(package)
        self.dataset, self.config, self.seed, self.directions = dataset, config, seed, list(directions)
        self.space = space_of(dataset, config)
        self.strategy = build(config["strategy"])
        if not hasattr(self.strategy, "sampler"):
            raise UsageError(f"strategy {config['strategy']['_target_']} has no method `sampler`; see components/search/interface.py")
        check(config, self.space, len(self.directions))
        self.problem = problem_of(self.space, dataset, config, supernet)
        self.storage = Shown()
        self.study = optuna.create_study(storage=self.storage, directions=self.directions)

    def show(self, trials: Sequence[FrozenTrial]) -> None:
        """Trials that are new or have changed since they were last shown."""
        self.storage.show(self.study._study_id, trials)

    def propose(self, given: Mapping[str, Any] | None = None, origin: str = "") -> FrozenTrial | None:
        """A running trial with all of its parameters and, as a user attribute, its candidate; None if nothing new is found.

        With `given` parameters these are taken where they fit and the rest is drawn. The randomness comes from (seed,
        number of trials so far, attempt), so that asking again gives the same answer and a candidate that was tried
        before is drawn anew.
        """
        from components.search.problem import Enqueued

        history = self.study.get_trials(deepcopy=False)
        tried = {digest for trial in history if (digest := self._identity_of(trial))}
        for attempt in range(ATTEMPTS):
            seed = seed_of(self.seed, len(history), attempt)
            sampler = self.strategy.sampler(seed, self.problem) if given is None else Enqueued(seed, self.problem, given)
            self.study.sampler = sampler
            trial = self.study.ask()
            candidate, identity = self._suggest(trial)
            if identity not in tried:
                trial.set_user_attr(CANDIDATE, candidate.to_json())
                trial.set_user_attr(IDENTITY, identity)
                if origin:
                    trial.set_user_attr(ORIGIN, origin)
            found = self.study.get_trials(deepcopy=False)[-1]
            self.storage.take_back(self.study._study_id)
            if identity not in tried:
                return found
            if given is not None:
                return None
        return None

    def recommend(self) -> int | None:
        """The number of the trial that the strategy believes to be the best; None where it leaves that to the values."""
        if len(self.directions) > 1 or not hasattr(self.strategy, "recommend"):
            return None
        from components.search.problem import told_of

        told = told_of(self.study.get_trials(deepcopy=False), [way == "maximize" for way in self.directions], self.problem)
        number: int | None = self.strategy.recommend(self.problem, told)
        return number

    def _suggest(self, trial: Trial) -> tuple[Candidate, str]:
        candidate = Candidate(space=space_name(self.config["space"]), **self.problem.points.program(trial)._asdict())
        return candidate, identity_of(self.space, candidate)

    def _identity_of(self, trial: FrozenTrial) -> str | None:
        if IDENTITY in trial.user_attrs:
            return str(trial.user_attrs[IDENTITY])
        return identity_of(self.space, candidate_of(trial)) if CANDIDATE in trial.user_attrs else None


def identity_of(space: Any, candidate: Candidate) -> str:
    """Equal for candidates that are one and the same network (isomorphic cells) trained in the same way."""
    key = space.key(candidate.architecture) if hasattr(space, "key") else candidate.architecture
    return digest_of([candidate.space, key, candidate.hyperparameters])


def problem_of(space: Any, dataset: DatasetVersion, config: JSON, supernet: Path | None = None) -> Problem:
    """What strategies may know of this study."""
    from components.models.points import Points
    from components.search.problem import Problem, key_of_params
    from components.training.searched import training_program

    of_training = training_program(dataset, config)

    def program(suggest: Suggest) -> Drawn:
        architecture = space.sample(suggest, dataset)
        return Drawn(architecture, {**space.hyperparameters(suggest, dataset, config["optimizer"]), **of_training(suggest)})

    def key(point: Point) -> Hashable:
        hyper = tuple(item for item in point.params.items() if not item[0].startswith("arch."))
        return space.key(point.value.architecture), hyper

    points = Points(program)
    problem = Problem(points=points, key=key if hasattr(space, "key") else key_of_params, proxies=_proxies(space, dataset, config))
    if hasattr(space, "fold"):
        problem.fold = _folding(points, space, dataset)
    problem.supernet = supernet
    return problem


def _folding(points: Any, space: Any, dataset: DatasetVersion) -> Callable[[Point], Point]:
    """Sees a point through the architecture that stands for all that are the same network, where a space names its parameters."""
    from components.models.points import Point

    if not hasattr(space, "parameters"):
        return lambda point: point

    def fold(point: Point) -> Point:
        folded = space.fold(point.value.architecture)
        if folded == point.value.architecture:
            return point
        params = {**point.params, **space.parameters(folded)}
        if space.parameters(point.value.architecture).keys() == space.parameters(folded).keys():  # the program would ask for the same
            asked = {name: params[name] for name in point.params}
            return Point(asked, point.distributions, Drawn(folded, point.value.hyperparameters))
        found: Point = points.draw(Random(0), params)
        return found

    return fold


def _proxies(space: Any, dataset: DatasetVersion, config: JSON) -> Callable[[Point], dict[str, float]] | None:
    """Scores without training, for strategies that take them as a prior: the number of parameters where it is cheap to know."""
    if not (config.get("search") or {}).get("proxies") or not hasattr(space, "num_parameters"):
        return None
    known: dict[str, float] = {}

    def scores(point: Point) -> dict[str, float]:
        architecture = point.value.architecture
        name = digest_of(architecture)
        if name not in known:
            known[name] = float(space.num_parameters(architecture, dataset.inputs, dataset.num_outputs))
        return {"num_parameters": known[name]}

    return scores


# ---- what the worker is called with: one proposer at a time is kept in its process ----

_open: dict[str, Proposer] = {}


def open_study(
    name: str,
    dataset: DatasetVersion,
    config: JSON,
    directions: Sequence[str],
    seed: int,
    supernet: Path | None = None,
    *,
    emit: Any = None,
) -> None:
    """Loads what suggestions need, and checks that space, strategy and dataset fit. Raises `UsageError`."""
    _open.clear()
    _open[name] = Proposer(dataset, config, directions, seed, supernet)


def next_suggestion(
    name: str, news: Sequence[FrozenTrial], given: Mapping[str, Any] | None = None, origin: str = "", *, emit: Any = None
) -> FrozenTrial | None:  # fmt: skip
    """The next suggestion of the study that was opened, once it has been shown the news."""
    proposer = _open[name]
    proposer.show(news)
    return proposer.propose(given, origin)


def recommended(name: str, news: Sequence[FrozenTrial], *, emit: Any = None) -> int | None:
    """The strategy's own choice among the trials of the study that was opened."""
    proposer = _open[name]
    proposer.show(news)
    return proposer.recommend()


def propose(
    history: Sequence[FrozenTrial], dataset: DatasetVersion, config: JSON, *, direction: str | Sequence[str], seed: int
) -> FrozenTrial | None:  # fmt: skip
    """One suggestion, from nothing but its arguments."""
    proposer = Proposer(dataset, config, [direction] if isinstance(direction, str) else direction, seed)
    proposer.show([_numbered(trial, number) for number, trial in enumerate(history)])
    return proposer.propose()


def _numbered(trial: FrozenTrial, number: int) -> FrozenTrial:
    found = copy.copy(trial)
    found.number = number
    return found


def space_of(dataset: DatasetVersion, config: JSON) -> Any:
    """The space, if it fits the dataset. Raises `UsageError`."""
    space = build(config["space"])
    _check_modality(space, config["space"], dataset)
    return space


def seed_of(seed: int, number: int, attempt: int = 0) -> int:
    """32 bits that depend on every argument."""
    text = f"{seed}/{number}/{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def candidate_of(trial: FrozenTrial) -> Candidate:
    """The candidate that a stored trial was made for."""
    return Candidate.from_json(trial.user_attrs[CANDIDATE])


def decision_of(candidate: Candidate) -> str:
    """Digest of what was suggested: two candidates with the same one are duplicates, whatever was measured later."""
    return digest_of([candidate.space, candidate.architecture, candidate.hyperparameters])


def space_name(space: JSON) -> str:
    """The name a user types for a space: the stem of the module that holds it."""
    return str(space["_target_"]).rpartition(".")[0].rpartition(".")[2]


def _check_modality(space: Any, config: JSON, dataset: DatasetVersion) -> None:
    if space.modality == dataset.modality:
        return
    fitting = " or ".join(f"space={name}" for name in sorted(_spaces_for(dataset.modality))) or "a space of your own"
    raise UsageError(
        f"space={space_name(config)} is for {space.modality} data, dataset {dataset.name!r} is {dataset.modality}; use {fitting}"
    )


def _spaces_for(modality: str) -> Iterator[str]:
    import components.models.space as family

    for module in pkgutil.iter_modules(family.__path__):
        members = vars(importlib.import_module(f"{family.__name__}.{module.name}")).values()
        if any(isinstance(m, type) and getattr(m, "modality", None) == modality for m in members):
            yield module.name
