"""Soups: one network whose weights are the mean of several networks' of its architecture (Wortsman et al., "Model soups", ICML 2022).

Ingredients are the teacher, the trials with its architecture, networks that the user names, and short trainings that go on
from the teacher's weights in other ways. Networks that began from other weights are first permuted to resemble the teacher
(`components.models.permutations`).
Averaged weights make other features, so running statistics are taken anew from training rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from components.artifacts import JSON, Candidate, TrainedModel
from components.build import build
from components.errors import UsageError
from components.fusion.pool import Pool, share_of
from components.models.network import build_network, load_network, num_parameters, save_weights
from components.models.parent import Parent, own_space, require_intact, require_kin, require_same_shapes, same_answers, shapes
from components.models.permutations import Symmetry, match
from components.training import ranks
from components.training.batches import seed_of
from components.training.failure import DivergedError
from components.training.fit import fit
from components.training.learner import predict

ROLE = "soup"
MEMBER = "member"  # a network that the user named and that no mean surpassed
STATISTICS_ROWS, STATISTICS_BATCH = 2048, 128  # training rows that running statistics are taken from
TRACED_ROWS = 2
LEAST_SECONDS = 0.5  # a fine-tuning with less time is not begun


@dataclass(frozen=True)
class Ingredient:
    """A model and its weights, its units in the teacher's order; `metrics` are its own on validation. `name` is its role, or
    what the user calls it."""

    model: TrainedModel
    state: Mapping[str, Tensor]
    metrics: dict[str, float]
    name: str

    def row(self, share: float | None = None) -> JSON:
        """Of the `members` of what it is a part of."""
        return {**share_of(self.model, share), "role": self.name}


def ingredients(pool: Pool, finetunes: int, epochs: int, names: Sequence[str] = ()) -> list[Ingredient]:
    """What a soup can be made of, the best first; the teacher before what is no better. Raises `UsageError` for `names` of
    networks that nobody has looked up, and for networks that have no mean with the teacher."""
    if names:
        raise UsageError(f"fusion.members {', '.join(names)} have not been looked up: a flow does it, or give their records in `joining`")
    kin = [*_joining(pool), *(model for model in pool.able if model is not pool.teacher and _built(model) == _built(pool.teacher))]
    teacher = _ingredient(pool, pool.teacher, load_file(pool.teacher.weights.path))
    found = [teacher, *_aligned(pool, kin), *_finetuned(pool, finetunes, epochs)]
    return [found[place] for place in pool.in_order([one.metrics for one in found])]


def _ingredient(pool: Pool, model: TrainedModel, state: Mapping[str, Tensor]) -> Ingredient:
    named = {parent.model.identity: parent.name for parent in pool.joining}
    return Ingredient(model, state, pool.score(pool.outputs(model)), named.get(model.identity, model.role))


# ---- networks of the same architecture: trials, and a user's own ----


def _joining(pool: Pool) -> Iterator[TrainedModel]:
    for parent in pool.joining:
        require_intact(parent)
        require_kin(parent, pool.dataset)
        _require_mean(pool, parent)
        yield parent.model


def _require_mean(pool: Pool, parent: Parent) -> None:
    """Raises `UsageError` for a network that has no mean with the teacher: the first tensor, or what it is built with."""
    require_same_shapes(shapes(pool.teacher.weights.path), shapes(parent.model.weights.path), "the teacher", parent.name)
    if not same_answers(parent, pool.dataset):
        theirs, ours = (", ".join(data.classes) or data.target or "a number" for data in (parent.dataset, pool.dataset))
        raise UsageError(f"soup members must answer alike, {parent.name} tells {theirs}, dataset {pool.dataset.name!r} has {ours}")
    of_parent, of_teacher = ({**space, **architecture} for space, architecture in (_built(parent.model), _built(pool.teacher)))
    for name in sorted({*of_parent, *of_teacher}):
        if of_parent.get(name) != of_teacher.get(name):
            both = f"{name} is {of_teacher.get(name)} in the teacher and {of_parent.get(name)} in {parent.name}"
            raise UsageError(f"soup members must be built alike, {both}")


def _aligned(pool: Pool, kin: Sequence[TrainedModel]) -> Iterator[Ingredient]:
    if not kin:
        return
    reference, fields = pool.network(pool.teacher), pool.rows.at(slice(0, TRACED_ROWS))[0]
    try:
        symmetry = Symmetry(reference, [fields[field.name] for field in pool.dataset.inputs])
    except ValueError as error:
        pool.leave_out(", ".join(model.role for model in kin), error)
        return
    names = [name for name, _ in reference.named_parameters()]
    for model in kin:
        state = load_file(model.weights.path)
        yield _ingredient(pool, model, symmetry.permuted(state, match(symmetry, reference.state_dict(), state, names)))


def _built(model: TrainedModel) -> tuple[JSON, JSON]:
    return own_space(model), model.candidate.architecture


# ---- the teacher, trained on in other ways ----


def _finetuned(pool: Pool, count: int, epochs: int) -> Iterator[Ingredient]:
    for place in range(count):
        left = pool.work.left()
        if left is not None and left / (count - place) < LEAST_SECONDS:
            pool.leave_out(f"{count - place} of {count} fine-tunings", "there is no time for them")
            return
        try:
            model = _finetune(pool, place, epochs, None if left is None else left / (count - place))
        except DivergedError as error:
            pool.leave_out(f"fine-tuning {place}", error)
            continue
        yield _ingredient(pool, model, load_file(model.weights.path))


def _finetune(pool: Pool, place: int, epochs: int, seconds: float | None) -> TrainedModel:
    teacher, config, work, seed = pool.teacher, pool.config, pool.work, seed_of(pool.work.seed, "finetune", place)
    candidate = teacher.candidate.replace(hyperparameters=another_way(teacher.candidate.hyperparameters, seed))
    fitted = fit(
        _begun(pool, candidate), pool.dataset, candidate.hyperparameters, policy=build(pool.policy.config), optimizers=config["optimizer"],
        seed=seed, epochs=epochs, seconds=seconds, objective=pool.objective, numerics=candidate.numerics, training=config.get("training"),
        schedules=config.get("schedule"), losses=config.get("loss"), scratch=work.scratch / f"finetune{place}" if work.scratch else None,
        trainer=None if ranks.spans(config) else config.get("trainer"), emit=work.emit,
    )  # fmt: skip
    path = work.out / "ingredients" / f"finetune{place}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    return teacher.replace(
        role=f"finetuned{place}", candidate=candidate, seed=seed, metrics=fitted.metrics, parents=(teacher.identity,),
        members=(share_of(teacher),), weights=save_weights(fitted.network, path), num_parameters=num_parameters(fitted.network),
        epochs=fitted.epochs, truncated=fitted.truncated, history=fitted.history, seconds=fitted.seconds,
    )  # fmt: skip


def _begun(pool: Pool, candidate: Candidate) -> nn.Module:
    """The teacher's network, ready to be trained, with the candidate's dropout."""
    network = build_network(pool.teacher.space, candidate, pool.dataset, pool.teacher.seed)
    network.load_state_dict(load_file(pool.teacher.weights.path))
    return network.train()


def another_way(hyperparameters: JSON, seed: int) -> JSON:
    """Hyper-parameters for going on from trained weights: a smaller learning rate, another regularisation."""
    random = np.random.default_rng(seed)
    return {
        **hyperparameters,
        "learning_rate": hyperparameters["learning_rate"] * float(10 ** random.uniform(-1.5, -0.3)),
        "weight_decay": hyperparameters["weight_decay"] * float(10 ** random.uniform(-0.5, 0.5)),
        "label_smoothing": float(random.uniform(0.0, 0.1)) if "label_smoothing" in hyperparameters else 0.0,
        "dropout": float(hyperparameters.get("dropout", 0.0)) * float(random.uniform(0.5, 1.0)),
    }


# ---- cooking ----


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor; whole numbers are the first one's. Raises `UsageError` that names a tensor in which they differ."""
    first, *others = states
    for other in others:
        one, another = ({name: list(tensor.shape) for name, tensor in state.items()} for state in (first, other))
        require_same_shapes(one, another, "one", "another")
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(tensor.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def cooked(pool: Pool, parts: Sequence[Ingredient]) -> tuple[nn.Module, dict[str, float]]:
    """The network of the mean weights, in eval mode, and its validation metrics; one ingredient is itself."""
    if len(parts) == 1:
        return load_network(parts[0].model, pool.dataset), parts[0].metrics
    network = build_network(pool.teacher.space, pool.teacher.candidate, pool.dataset, pool.teacher.seed)
    network.load_state_dict(average([part.state for part in parts]))
    retake_statistics(network.eval(), pool)
    return network, pool.score(predict(network, pool.dataset, pool.rows))


@torch.no_grad()
def retake_statistics(network: nn.Module, pool: Pool) -> None:
    """Sets running means and variances to those over training rows (Izmailov et al., 2018)."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    for fields, _ in pool.load("train", STATISTICS_ROWS).in_order(STATISTICS_BATCH):
        network(*(fields[field.name] for field in pool.dataset.inputs))
    for norm, momentum in zip(norms, usual):
        norm.momentum = momentum
        norm.eval()


def _alone(pool: Pool, part: Ingredient) -> TrainedModel:
    """One ingredient; of a network that the user named, a model of this run that came from it."""
    if part.model.identity not in {parent.model.identity for parent in pool.joining}:
        return part.model
    return pool.teacher.replace(
        role=MEMBER, candidate=part.model.candidate, seed=part.model.seed, weights=part.model.weights, metrics=part.metrics,
        parents=(part.model.identity,), members=(part.row(),), history=(), seconds=0.0, epochs=0.0, truncated=False, adopted={},
    )  # fmt: skip


def served(pool: Pool, parts: Sequence[Ingredient], network: nn.Module, found: dict[str, float]) -> TrainedModel:
    """The soup as a model of the teacher's space, or the best single model if that is better on validation."""
    if pool.prefers(pool.best_metrics, found):
        return pool.best
    if len(parts) == 1:
        return _alone(pool, parts[0])
    path: Path = pool.work.out / "weights.safetensors"
    return pool.teacher.replace(
        role=ROLE, seed=seed_of(pool.work.seed, ROLE), weights=save_weights(network, path), metrics=found,
        parents=tuple(part.model.identity for part in parts), members=tuple(part.row(1 / len(parts)) for part in parts),
        truncated=any(part.model.truncated for part in parts), history=(), seconds=0.0, epochs=0.0,
    )  # fmt: skip
