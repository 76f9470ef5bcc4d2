"""The train verb: the best candidate of a search, trained at full length.

    train(dataset, policy, candidate, config, Workspace(out=folder)) -> TrainedModel
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from components import metrics
from components.artifacts import JSON, AugmentationPolicy, Candidate, DatasetVersion, TrainedModel
from components.build import build
from components.models.network import build_network, num_parameters, save_weights
from components.models.parent import Parent
from components.training import memory, ranks
from components.training.batches import seed_of
from components.training.extent import full_epochs
from components.training.fit import fit
from components.training.group import in_group
from components.training.stitching import begin_stitched
from components.training.trial import with_numerics
from components.training.tuning import Start, begin
from components.workspace import Workspace


def train(dataset: DatasetVersion, policy: AugmentationPolicy, candidate: Candidate, config: JSON, work: Workspace) -> TrainedModel:
    """A teacher: weights of the epoch that did best on validation, below `work.out`. `config` holds space, optimizer,
    schedule, loss, training, metrics; with parent and finetune it begins from that model's weights, with parent and
    inherit=stages as the best network of the candidate's shape with some of that model's stages.

    Ends within `work.seconds` if they are given, with its schedule completed; resumes from `work.scratch`. Raises
    `DivergedError` when the loss is not finite. A trainer of several devices is a group of processes.
    """
    if ranks.spans(config):
        return in_group("components.training.train:train", (dataset, policy, candidate), config, work)
    seed = seed_of(work.seed, "teacher")
    if config.get("inherit", "none") == "stages":
        space, start = begin_stitched(candidate, [Parent.from_json(config["parent"])], config, dataset, seed, work)
        return train_model(dataset, policy, candidate, {**config, "space": space}, work, role="teacher", start=start)
    start = begin(candidate, config, dataset, seed)
    return train_model(dataset, policy, candidate, config, work, role="teacher", start=start)


def train_model(
    dataset: DatasetVersion,
    policy: AugmentationPolicy,
    candidate: Candidate,
    config: JSON,
    work: Workspace,
    *,
    role: str,
    parents: tuple[str, ...] = (),
    teacher: nn.Module | None = None,
    distiller: Callable[..., Tensor] | None = None,
    start: Start | None = None,
) -> TrainedModel:
    """A trained model of a `role`; with `teacher` and `distiller` it learns from the teacher's outputs too. `start` is where
    it begins (None: from weights drawn by the seed)."""
    training = config.get("training") or {}
    seed = seed_of(work.seed, role)
    start = start or Start(build_network(config["space"], candidate, dataset, seed), candidate)
    network, candidate = start.network, start.candidate
    candidate = with_numerics(network, dataset, candidate, training, work.scratch, alone=True, trainer=config.get("trainer"))
    epochs = full_epochs(training.get("epochs"), dataset.splits["train"])
    fitted = fit(
        network, dataset, candidate.hyperparameters, policy=build(policy.config), optimizers=config["optimizer"], seed=seed,
        epochs=epochs, seconds=work.left(), numerics=candidate.numerics, teacher=teacher, distiller=distiller,
        objective=metrics.objective((config.get("metrics") or {}).get("objective"), dataset.task),
        training=training, schedules=config.get("schedule"), losses=config.get("loss"), scratch=work.scratch, emit=work.emit,
        joins=start.joins, rates=start.rates, trainer=config.get("trainer"), halvings=ranks.shared(lambda: memory.note_start(work.scratch)),
    )  # fmt: skip
    ranks.shared(lambda: memory.note_end(work.scratch))
    trained = start.finished(fitted.network)
    return TrainedModel(
        role=role, candidate=candidate.replace(hyperparameters={**candidate.hyperparameters, "epochs": epochs}),
        space=dict(config["space"]), dataset=dataset.identity, seed=seed, metrics=fitted.metrics, parents=(*start.parents, *parents),
        weights=save_weights(trained, work.out / "weights.safetensors"), num_parameters=num_parameters(trained), adopted=start.facts,
        epochs=fitted.epochs, truncated=fitted.truncated, history=fitted.history, seconds=fitted.seconds,
    )  # fmt: skip
