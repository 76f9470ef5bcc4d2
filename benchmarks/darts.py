"""`strategy=darts` really trained on 3,000 small photographs, and what NAS-Bench-201 says of the cell it derives.

The table knows all 15,625 cells, each trained for 200 epochs on 25,000 images. The derived cell is the strategy's first
candidate; its cell score is compared with the table over 1,000 random cells. With --shuffled the labels are permuted
before anything is trained: then nothing can be learned, and a score that still ranks cells would be a prejudice.

.venv/bin/python benchmarks/darts.py --seeds 3                       about 6 minutes a seed on one free core
.venv/bin/python benchmarks/darts.py --seeds 3 --shuffled
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import yaml
from measure import ROOT, machine, spread
from tables import EDGES, Cell, CellTable

from components.artifacts import AugmentationPolicy, DatasetVersion, StoredFile
from components.build import build
from components.data.version import version
from components.models.cells import string_of
from components.search.supernet import Derived, SupernetTask, derived_of
from components.workspace import Workspace

REPORT = "c10_test_200ep"
CELLS = 1000  # drawn for the rank correlation
ALL_CONVOLUTION: Cell = ("nor_conv_3x3",) * 6
FREE = ("none", "skip_connect", "avg_pool_3x3")  # operations without weights: a cell of them alone is a collapse


def main() -> None:
    options = arguments()
    table = CellTable(options.data / "nas-bench-201")
    strategy = node("strategy", "darts") | options.set
    print(f"darts on CIFAR-10 JPEG (3,000 images), labels {'shuffled' if options.shuffled else 'true'}, {strategy}\n{machine()}")
    print(f"no search, six 3x3 convolutions: {table.value(REPORT, ALL_CONVOLUTION):.2f}; reference DARTS 54.30 (its paper)", flush=True)
    rows = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="athanor-benchmark-") as folder:
            rows.append(measured(table, Path(folder), strategy, seed, options))
    for column, digits in (("derived", 2), ("spearman", 3), ("wall_seconds", 0), ("cpu_seconds", 0)):
        print(f"{column:<14} {spread([row[column] for row in rows], digits)}", flush=True)
    print(f"{'collapsed':<14} {sum(row['collapsed'] for row in rows)} of {len(rows)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data"))
    parser.add_argument("--seeds", type=lambda text: range(int(text)), default=range(3), help="so many, from 0")
    parser.add_argument("--only", type=int, help="this seed alone")
    parser.add_argument("--shuffled", action="store_true", help="permute the labels first")
    parser.add_argument("--set", type=yaml.safe_load, default={}, help="arguments of the strategy, as {epochs: 20}")
    options = parser.parse_args()
    options.seeds = options.seeds if options.only is None else [options.only]
    if not options.data.is_dir():
        raise SystemExit(f"no folder {options.data}; name it with --data or set ATHANOR_DATA")
    return options


def measured(table: CellTable, folder: Path, strategy: dict[str, Any], seed: int, options: argparse.Namespace) -> dict[str, float]:
    """One training: what the table says of the derived cell and of the scores."""
    dataset = read(options.data, folder)
    dataset = with_shuffled_labels(dataset, folder, seed) if options.shuffled else dataset
    policy = AugmentationPolicy(name="flip_crop", modality="image", config=node("augmentation", "flip_crop"))
    config = {"space": node("space", "cell"), "strategy": strategy, "search": {"rows": None}}
    wall, cpu = time.monotonic(), time.process_time()
    path = build(strategy).train_supernet(
        SupernetTask(dataset=dataset, policy=policy, config=config, scratch=folder, seed=seed), emit=quiet
    )
    seconds = {"wall_seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu}
    row = judged(table, derived_of(path), seed) | seconds
    print(f"seed {seed}: {row}", flush=True)
    return row


def judged(table: CellTable, derived: Derived, seed: int) -> dict[str, Any]:
    """What the derived cells have in the table, and how well the score ranks random cells (0 where all score the same)."""
    cells = [tuple(found[edge] for edge in EDGES) for found in derived.candidates]
    sample = Random(seed).sample(table.cells, CELLS)
    return {
        "derived": table.value(REPORT, cells[0]),
        "cell": string_of(cells[0]),
        "others": [table.value(REPORT, cell) for cell in cells[1:]],
        "collapsed": all(op in FREE for op in cells[0]),
        "spearman": correlation([score(derived, cell) for cell in sample], [table.value(REPORT, cell) for cell in sample]),
        "evidence": derived.evidence,
    }


def score(derived: Derived, cell: Cell) -> float:
    return derived.score(dict(zip(EDGES, cell)))


def correlation(scores: Sequence[float], values: Sequence[float]) -> float:
    """Spearman's; scores that are all the same rank nothing, which is 0."""
    from scipy.stats import spearmanr

    return 0.0 if len(set(scores)) == 1 else float(spearmanr(scores, values)[0])


def read(data: Path, folder: Path) -> DatasetVersion:
    """The data set as `athanor run dataset=image_folder` reads it."""
    source = {"_target_": "components.data.dataset.image_folder.ImageFolder", "path": str(data / "cifar-10-jpeg" / "images.zip")}
    config = {"dataset": source, "split": {"validation": 0.15, "test": 0.2}}
    return version(config, Workspace(out=folder / "data"))


def with_shuffled_labels(dataset: DatasetVersion, folder: Path, seed: int) -> DatasetVersion:
    """The same images, the labels of each split permuted among them."""
    files = dict(dataset.files)
    for split in ("train", "validation"):
        target = np.load(files[f"{split}/target"].path)
        path = folder / f"{split}-shuffled.npy"
        np.save(path, np.random.default_rng(seed).permutation(target))
        files[f"{split}/target"] = StoredFile.of(path)
    return dataset.replace(files=files, digest="shuffled")


def node(family: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "conf" / family / f"{name}.yaml").read_text())
    return {key: value for key, value in found.items() if key != "defaults"}


def quiet(event: str, **fields: Any) -> None:
    return None


if __name__ == "__main__":
    main()
