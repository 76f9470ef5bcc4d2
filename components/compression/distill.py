"""The distill verb: a smaller student that learns from the teacher's outputs on augmented batches.

    distill(dataset, policy, teacher, config, Workspace(out=folder)) -> TrainedModel
"""

from __future__ import annotations

import shutil

from components.artifacts import JSON, AugmentationPolicy, Candidate, DatasetVersion, StoredFile, TrainedModel
from components.build import build
from components.models.network import load_network
from components.training import ranks
from components.training.group import in_group
from components.training.train import train_model
from components.workspace import Workspace


def distill(dataset: DatasetVersion, policy: AugmentationPolicy, teacher: TrainedModel, config: JSON, work: Workspace) -> TrainedModel:
    """A student of the same space with the teacher's hyper-parameters; with `distillation=none`, the teacher itself.

    `config` holds distillation, space, optimizer, schedule, loss, training, metrics. Ends within `work.seconds` if they are given.
    """
    distiller = build(config["distillation"])
    if not distiller.makes_student:
        return _passed_on(teacher, work)
    if ranks.spans(config):
        return in_group("components.compression.distill:distill", (dataset, policy, teacher), config, work)
    return train_model(
        dataset, policy, student_of(teacher, config), config, work,
        role="student", parents=(teacher.identity,), teacher=load_network(teacher, dataset), distiller=distiller,
    )  # fmt: skip


def student_of(teacher: TrainedModel, config: JSON) -> Candidate:
    """The teacher's candidate with a smaller architecture, of its best member's if it is an ensemble; numerics are its own,
    to be measured anew.

    Dropout and label smoothing are left out: a small network that is taught by soft targets underfits before it overfits.
    """
    hyperparameters = {**teacher.candidate.hyperparameters, "dropout": 0.0, "label_smoothing": 0.0}
    hyperparameters.pop("epochs", None)
    architecture = build(teacher.space).shrink(teacher.candidate.architecture)
    return Candidate(space=teacher.candidate.space, architecture=architecture, hyperparameters=hyperparameters)


def _passed_on(teacher: TrainedModel, work: Workspace) -> TrainedModel:
    copy = work.out / "weights.safetensors"
    shutil.copyfile(teacher.weights.path, copy)
    return teacher.replace(weights=StoredFile.of(copy))
