"""The next candidate of a study: a pure function of the trials so far, the configuration and the seed.

Building a space imports torch, so `propose` runs in a worker forked from the preloaded server, and the parent of a
search stays light. Nothing is written here: a proposal becomes part of the study when the parent stores it whole.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from components.artifacts import JSON, Candidate, DatasetVersion, digest_of
from components.build import allow, build
from components.errors import UsageError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

CANDIDATE = "candidate"  # the user attribute of an Optuna trial that holds its candidate
ATTEMPTS = 50  # suggestions tried before a space is taken to hold nothing new


def propose(
    history: Sequence[FrozenTrial],
    dataset: DatasetVersion,
    config: JSON,
    *,
    direction: str,
    seed: int,
    emit: Any = None,
) -> FrozenTrial | None:
    """A running trial with all of its parameters and, as a user attribute, its candidate; None if nothing new is found.

    The randomness comes from (seed, number of trials so far, attempt), so that asking again gives the same answer and
    a candidate that was tried before is drawn anew. Raises `UsageError` for a space that does not fit the dataset.
    """
    space = _space_for(dataset, config)
    tried = {decision_of(candidate_of(trial)) for trial in history}
    for attempt in range(ATTEMPTS):
        trial = _ask(history, direction, build(config["strategy"]).sampler(seed_of(seed, len(history), attempt)))
        candidate = _suggest(space, trial, dataset, config)
        if decision_of(candidate) not in tried:
            trial.set_user_attr(CANDIDATE, candidate.to_json())
            return trial.study.get_trials(deepcopy=False)[-1]
    return None


def prepare(dataset: DatasetVersion, config: JSON, *, emit: Any = None) -> None:
    """Loads what suggestions need, and checks that space, strategy and dataset fit. Raises `UsageError`."""
    _space_for(dataset, config)


def _space_for(dataset: DatasetVersion, config: JSON) -> Any:
    for package in config.get("plugins") or ():
        allow(package)
    space = build(config["space"])
    _check_modality(space, config["space"], dataset)
    if not hasattr(build(config["strategy"]), "sampler"):
        raise UsageError(f"strategy {config['strategy']['_target_']} has no method `sampler`; see components/search/interface.py")
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


def _ask(history: Sequence[FrozenTrial], direction: str, sampler: Any) -> Trial:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.add_trials(history)
    return study.ask()


def _suggest(space: Any, trial: Trial, dataset: DatasetVersion, config: JSON) -> Candidate:
    architecture = space.sample(trial, dataset)
    hyperparameters = space.hyperparameters(trial, dataset, config["optimizer"])
    return Candidate(space=space_name(config["space"]), architecture=architecture, hyperparameters=hyperparameters)


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
