"""What people use today, as the tutorials have it: an Optuna study with its TPE sampler and a LightningModule, nothing of Athanor's
but the space, so that both search the same candidates.

Cross-entropy, the optimizer that the trial chose at a constant rate, as many epochs as Athanor's trials have, the last
epoch's weights. One process a core on one SQLite study, which is how Optuna says to use several; one thread each.
"""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

from components.artifacts import Candidate, DatasetVersion
from components.training.extent import trial_epochs

TITLE = "plain Optuna TPE + Lightning"


def search(
    dataset: DatasetVersion, config: dict[str, Any], folder: Path, seconds: float | None, options: Any, seed: int
) -> tuple[Candidate, Path, dict[str, Any]]:
    """The best candidate after so many seconds (None: after `options.trials`), its weights, and what is told of the search."""
    import optuna

    workers: int = options.workers
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True)
    study = optuna.create_study(study_name="plain", direction="maximize", storage=_storage(folder))
    context = multiprocessing.get_context("forkserver")
    ready, go = context.Barrier(workers + 1), context.Value("d", 0.0)
    processes = [
        context.Process(target=_work, args=(folder, dataset, config, seconds or options.trials, seconds is None, seed * 100 + i, ready, go))
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    ready.wait()  # every process has its libraries loaded: the clock starts
    for process in processes:
        process.join()
        assert process.exitcode == 0, f"a process of plain Optuna ended with {process.exitcode}"
    ended = time.time()
    done = [trial for trial in study.get_trials() if trial.state.name == "COMPLETE"]
    curve, best = [], -1.0
    for place, trial in enumerate(sorted(done, key=lambda t: t.datetime_complete), start=1):
        best = max(best, trial.value)
        curve.append((round(trial.datetime_complete.timestamp() - go.value, 2) if seconds else place, best))
    count = len(study.get_trials())
    more = {"trials": count, "not_complete": count - len(done), "seconds": round(ended - go.value, 1), "best": best, "curve": curve}
    best_trial = study.best_trial
    return Candidate.from_json(best_trial.user_attrs["candidate"]), _weights(folder, best_trial.number), more


def _storage(folder: Path) -> str:
    return f"sqlite:///{folder / 'plain.db'}"


def _weights(folder: Path, number: int) -> Path:
    return folder / f"{number}.safetensors"


def _work(
    folder: Path, dataset: DatasetVersion, config: dict[str, Any], budget: float, counts_trials: bool, seed: int, ready: Any, go: Any
) -> None:
    """One process: trials until the time is up, or there are enough."""
    import logging
    import warnings

    import lightning
    import optuna
    import torch

    from components.build import build

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, rows = build(config["space"]), min(config["search"]["rows"] or dataset.splits["train"], dataset.splits["train"])
    epochs = trial_epochs(config["search"]["epochs"], rows)
    study = optuna.load_study(study_name="plain", storage=_storage(folder), sampler=optuna.samplers.TPESampler(seed=seed))
    ready.wait()
    go.value = go.value or time.time()
    lightning.seed_everything(seed, verbose=False)
    until = {"timeout": budget} if not counts_trials else {"callbacks": [optuna.study.MaxTrialsCallback(int(budget), states=None)]}
    study.optimize(lambda trial: _objective(trial, folder, space, dataset, config, rows, epochs), catch=(RuntimeError,), **until)


def _objective(trial: Any, folder: Path, space: Any, dataset: DatasetVersion, config: dict[str, Any], rows: int, epochs: int) -> float:
    import lightning
    from safetensors.torch import save_file
    from torch.utils.data import DataLoader

    architecture, chosen = space.sample(trial, dataset), space.hyperparameters(trial, dataset, config["optimizer"])
    trial.set_user_attr("candidate", Candidate(space="convnet", architecture=architecture, hyperparameters=chosen).to_json())
    network = space.build(architecture, dataset.inputs, dataset.num_outputs, chosen["dropout"])
    model = _module(network, chosen)
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(_rows(dataset, "train", rows), batch_size=chosen["batch_size"], shuffle=True))
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, _weights(folder, trial.number))
    return float(trainer.validate(model, DataLoader(_rows(dataset, "validation"), batch_size=1024), verbose=False)[0]["accuracy"])


def _rows(dataset: DatasetVersion, split: str, most: int | None = None) -> Any:
    import numpy as np
    import torch
    from torch.utils.data import TensorDataset

    image = torch.from_numpy(np.load(dataset.files[f"{split}/{dataset.inputs[0].name}"].path))
    target = torch.from_numpy(np.load(dataset.files[f"{split}/target"].path)).long()
    index = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))[:most]
    return TensorDataset(image[index], target[index])


def _module(network: Any, chosen: dict[str, Any]) -> Any:
    import lightning
    import torch
    from torch.nn import functional

    class Module(lightning.LightningModule):
        """A classifier as in Lightning's own introduction."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch: Any, _index: int) -> Any:
            image, target = batch
            return functional.cross_entropy(self.network(image), target, label_smoothing=chosen["label_smoothing"])

        def validation_step(self, batch: Any, _index: int) -> None:
            image, target = batch
            self.log("accuracy", (self.network(image).argmax(dim=1) == target).float().mean(), on_epoch=True)

        def configure_optimizers(self) -> Any:
            rate, decay = chosen["learning_rate"], chosen["weight_decay"]
            if chosen["optimizer"] == "sgd":
                return torch.optim.SGD(self.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
            return torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=decay)

    return Module()
