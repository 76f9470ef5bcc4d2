"""The fuse verb: one model out of the teacher and the search's trials, which teaches the student in the teacher's place.

    fuse(dataset, policy, result, teacher, config, Workspace(out=folder)) -> TrainedModel
"""

from __future__ import annotations

import shutil

from components.artifacts import JSON, AugmentationPolicy, DatasetVersion, SearchResult, StoredFile, TrainedModel
from components.build import build
from components.fusion.interface import Method
from components.fusion.pool import Pool, trials_of
from components.workspace import Workspace


def fuse(
    dataset: DatasetVersion, policy: AugmentationPolicy, result: SearchResult, teacher: TrainedModel, config: JSON, work: Workspace
) -> TrainedModel:
    """What `fusion` makes of them, or the best single model where that brings nothing; with `fusion=none`, the teacher itself.

    `config` holds fusion, space, optimizer, schedule, loss, training, metrics. Ends within `work.seconds` if they are
    given; trainings resume from `work.scratch`. Raises `UsageError` for models that cannot be fused.
    """
    method: Method = build(config["fusion"])
    pool = Pool(dataset, policy, teacher, trials_of(result, dataset, config, work.seed), config, work)
    found = method.fuse(pool)
    work.emit(
        "fused", role=found.role, members=[row["role"] for row in found.members],
        models=len(pool.models) + len(pool.joining), objective=pool.objective,
        value=found.metrics.get(pool.objective), teacher=teacher.metrics.get(pool.objective),
    )  # fmt: skip
    return found if found.weights.path.is_relative_to(work.out) else _passed_on(found, work)


def _passed_on(model: TrainedModel, work: Workspace) -> TrainedModel:
    copy = work.out / "weights.safetensors"
    shutil.copyfile(model.weights.path, copy)
    return model.replace(weights=StoredFile.of(copy))
