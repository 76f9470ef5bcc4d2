"""The inherit verb: stages of trained networks become parts of a child of another architecture.

    inherit(dataset, policy, candidate, (parent,), config, Workspace(out=folder)) -> TrainedModel

VGG stages in a MobileNet: child and parents are cut where the resolution changes (`components/models/stages.py`), every
network that can be put together from the child's stages and the parents' is judged (`components/training/stitching.py`),
and the best is trained: what is new in it first, then all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from components.artifacts import JSON, AugmentationPolicy, Candidate, DatasetVersion, TrainedModel
from components.models.parent import Parent
from components.training.batches import seed_of
from components.training.stitching import begin_stitched
from components.training.train import train_model
from components.workspace import Workspace

ROLE = "stitched"


def inherit(
    dataset: DatasetVersion, policy: AugmentationPolicy, child: Candidate, parents: Sequence[Parent], config: JSON, work: Workspace
) -> TrainedModel:
    """A trained network of the child's shape with stages of the parents', whose identities are its `parents`; `adopted`
    tells which stages. Its space is `components.models.stitched.Stitched`, its hyper-parameters are the child's.

    `config` holds space, optimizer, schedule, loss, training, metrics and perhaps constraint, whose `num_parameters` holds.
    Ends within `work.seconds` if they are given; resumes from `work.scratch`. Raises `UsageError` for parents of another
    modality and where no stage fits, `DataError` for weights that are not the parent's.
    """
    space, start = begin_stitched(child, parents, config, dataset, seed_of(work.seed, ROLE), work)
    return train_model(dataset, policy, child, {**config, "space": space}, work, role=ROLE, start=start)
