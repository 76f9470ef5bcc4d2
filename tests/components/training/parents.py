"""A small parent, trained for real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.artifacts import AugmentationPolicy, Candidate, DatasetVersion
from components.models.parent import Parent
from components.training.learner import Average
from components.training.train import train
from components.workspace import Workspace
from tests.components.training.test_fit import CONVNET, HOW, MLP, OPTIMIZERS, SMALL_CONVNET, SMALL_MLP, Killed
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


@contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A training in it that saves all the time and is killed at the step of this number."""
    monkeypatch.setattr("components.training.fit.WITHIN_SECONDS", 0.0)
    step = Average.step

    def stepped(self: Average, steps: int) -> None:
        if steps == number:
            raise Killed
        step(self, steps)

    with monkeypatch.context() as patch:
        patch.setattr(Average, "step", stepped)
        with pytest.raises(Killed):
            yield
