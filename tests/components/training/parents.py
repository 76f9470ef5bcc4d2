"""A small parent, trained for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from components.artifacts import AugmentationPolicy, Candidate, DatasetVersion
from components.models.parent import Parent
from components.training.train import train
from components.workspace import Workspace
from tests.components.training.test_fit import CONVNET, HOW, MLP, OPTIMIZERS, SMALL_CONVNET, SMALL_MLP
from tests.conftest import ROOT

PLAIN = {"epochs": 2, "memory_format": "contiguous"}
UNCHANGED = AugmentationPolicy(name="none", modality="any", config={"_target_": "components.augmentation.policy.none.Unchanged"})


def methods() -> dict[str, Any]:
    """Every member of the family with the arguments of its yaml."""
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "conf" / "finetune").glob("*.yaml"))}


def parent_of(dataset: DatasetVersion, folder: Path, *, epochs: int = 2, seed: int = 0, **architecture: Any) -> Parent:
    """A parent that was trained on the dataset for a few epochs, its files below `folder`."""
    image = dataset.modality == "image"
    config = {"space": CONVNET if image else MLP, "optimizer": OPTIMIZERS, "training": {**PLAIN, "epochs": epochs}, "metrics": {}}
    candidate = Candidate(space="it", architecture={**(SMALL_CONVNET if image else SMALL_MLP), **architecture}, hyperparameters=HOW)
    return Parent.of(train(dataset, UNCHANGED, candidate, config, Workspace(out=folder, seed=seed)), dataset)
