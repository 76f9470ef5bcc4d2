"""A teacher and a search's trials to fuse: real networks, trained for a few epochs on a few rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts import JSON, AugmentationPolicy, Candidate, DatasetVersion, SearchResult, TrainedModel, Trial
from components.fusion.pool import Pool, trials_of
from components.training.train import train
from components.workspace import Workspace
from tests.components.models import tiny

ADAMW = {"_target_": "torch.optim.AdamW", "fused": True, "search": {"learning_rate": [0.001, 0.01]}}
HOW = {
    "optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.01, "batch_size": 32, "dropout": 0.1, "label_smoothing": 0.0,
    "augmentation_strength": 0.0,
}  # fmt: skip
CONVNET = {
    "block": "residual", "width": 8, "growth": 2.0, "depths": [1, 1], "kernel": 3, "downsample": "max", "pooling": "flatten",
    "activation": "relu", "norm": "batch", "largest_side": 16,
}  # fmt: skip
MLP = {"width": 16, "depth": 2, "members": 1, "activation": "relu", "residual": True, "embedding": 4}
NONE = {"_target_": "components.augmentation.policy.none.Unchanged"}
NUMERICS = {"threads": 1, "memory_format": "contiguous", "precision": "fp32"}


@dataclass(frozen=True)
class Case:
    """The arguments of the verb `fuse` but for the method and the folder."""

    dataset: DatasetVersion
    policy: AugmentationPolicy
    result: SearchResult
    teacher: TrainedModel
    config: JSON

    def work(self, folder: Path, **options: Any) -> Workspace:
        return Workspace(out=folder, **options)

    def pool(self, folder: Path, **options: Any) -> Pool:
        trials = trials_of(self.result, self.dataset, self.config, 0)
        return Pool(self.dataset, self.policy, self.teacher, trials, self.config, self.work(folder, **options))


def case(folder: Path, kind: str) -> Case:
    """`kind` image, table or values: a trained teacher, two trials of its architecture and one of another."""
    dataset = tiny.stripes(folder) if kind == "image" else tiny.table(folder, task="classification" if kind == "table" else "regression")
    space, architecture = ("convnet.ConvNet", CONVNET) if kind == "image" else ("mlp.MLP", MLP)
    config: JSON = {
        "space": {"_target_": f"components.models.space.{space}"}, "optimizer": {"adamw": ADAMW}, "metrics": {"objective": None},
        "training": {"epochs": 2 if kind == "image" else 15, **NUMERICS},
    }  # fmt: skip
    how = {**HOW, "learning_rate": 0.004} if kind == "image" else HOW
    policy = AugmentationPolicy(name="none", modality=dataset.modality, config=NONE)

    def trained(name: str, seed: int, how: JSON, **change: Any) -> TrainedModel:
        candidate = Candidate(space="it", architecture={**architecture, **change}, hyperparameters=how, numerics=NUMERICS)
        return train(dataset, policy, candidate, config, Workspace(out=folder / name, seed=seed))

    models = [trained("a", 1, how), trained("b", 2, {**how, "learning_rate": 0.003}), trained("c", 3, how, width=12)]
    trials = tuple(
        Trial(number=number, candidate=model.candidate, state="complete", values=model.metrics, weights=model.weights,
              num_parameters=model.num_parameters)
        for number, model in enumerate(models)
    )  # fmt: skip
    objective = "accuracy" if dataset.classes else "rmse"
    direction = "maximize" if dataset.classes else "minimize"
    result = SearchResult(study="s", objective=objective, direction=direction, trials=trials, best_number=0)
    return Case(dataset, policy, result, trained("teacher", 0, how), config)
