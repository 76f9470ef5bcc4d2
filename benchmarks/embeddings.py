"""How `space=mlp` embeds numbers: what each embedding reaches on validation, all else being equal.

    ATHANOR_DATA=../shared/data python benchmarks/embeddings.py --tables phoneme segmentation vehicle --seeds 3

Every network has the same hidden layers, optimizer, epochs and seeds; they differ in `space.numeric_embeddings` alone.
The test split is not read.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import ROOT, machine

WAVES = {"numbers": "periodic", "frequencies": 16, "number_width": 8}
EMBEDDINGS: dict[str, dict[str, Any]] = {
    "none": {"numbers": "none"},
    "piecewise": {"numbers": "piecewise"},
    **{f"periodic {scale}": {**WAVES, "frequency_scale": scale} for scale in (0.1, 0.3, 1.0, 3.0)},
}
HIDDEN = {"width": 128, "depth": 2, "activation": "relu", "residual": True, "categories": "learned", "embedding": 8}
HOW = {
    "optimizer": "adamw", "learning_rate": 4e-3, "weight_decay": 0.01, "batch_size": 64, "dropout": 0.1, "label_smoothing": 0.0,
    "augmentation_strength": 0.0,
}  # fmt: skip


def main() -> None:
    """Prints one line for each table and embedding: mean validation accuracy and log-loss, their range, n, seconds of a training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=["phoneme", "segmentation", "vehicle", "car"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--members", type=int, default=8)
    options = parser.parse_args()
    folder = Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data") / "pmlb"
    for table in options.tables:
        with tempfile.TemporaryDirectory() as out:
            dataset = read(folder / f"{table}.tsv.gz", Path(out))
            for name, architecture in EMBEDDINGS.items():
                report(table, name, {**HIDDEN, **architecture, "members": options.members}, dataset, options)
    print(machine())


def read(path: Path, out: Path) -> Any:
    from components.data.version import version
    from components.workspace import Workspace

    node = {"_target_": "components.data.dataset.csv.Csv", "path": str(path), "target": "target"}
    return version({"dataset": node, "split": {"validation": 0.2, "test": 0.2}}, Workspace(out=out))


def report(table: str, name: str, architecture: dict[str, Any], dataset: Any, options: argparse.Namespace) -> None:
    started = time.process_time()
    found = [train(dataset, architecture, seed, options.epochs) for seed in range(options.seeds)]
    seconds = (time.process_time() - started) / options.seeds
    figures = "  ".join(f"{metric} {spread_of([values[metric] for values in found])}" for metric in ("accuracy", "log_loss"))
    print(f"{table:14}{name:14}{figures}  {seconds:.1f} s of processor time", flush=True)


def train(dataset: Any, architecture: dict[str, Any], seed: int, epochs: int) -> dict[str, float]:
    """Validation metrics of one training."""
    from components.artifacts import Candidate
    from components.augmentation.policy.none import Unchanged
    from components.models.network import build_network
    from components.training.fit import fit

    candidate = Candidate(space="mlp", architecture=architecture, hyperparameters=HOW)
    network = build_network({"_target_": "components.models.space.mlp.MLP"}, candidate, dataset, seed)
    optimizers = {"adamw": {"_target_": "torch.optim.AdamW", "betas": [0.9, 0.98], "fused": True}}
    return fit(network, dataset, HOW, policy=Unchanged(), optimizers=optimizers, seed=seed, epochs=epochs, objective="log_loss").metrics


def spread_of(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f}, n={len(values)})"


if __name__ == "__main__":
    main()
