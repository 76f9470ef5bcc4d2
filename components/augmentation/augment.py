"""The augment verb: the policy that fits the dataset, with a picture of what it does.

    augment(dataset, config, Workspace(out=folder)) -> AugmentationPolicy
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts import JSON, AugmentationPolicy, DatasetVersion, StoredFile
from components.build import build
from components.errors import UsageError
from components.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

# Nearest policy for a modality, said when another does not fit.
FITTING = {"image": "affine", "table": "noise"}
STRENGTHS = (0.0, 0.25, 0.5, 1.0)
PREVIEW_ROWS, PREVIEW_SIDE = 8, 64


def augment(dataset: DatasetVersion, config: JSON, work: Workspace) -> AugmentationPolicy:
    """The policy's record; for images with a preview below `work.out`: one column per training row, one line per strength.

    `config` holds augmentation. Raises `UsageError` when the policy is for another modality.
    """
    node = config["augmentation"]
    policy = build(node)
    name = str(node["_target_"]).split(".")[-2]
    if policy.modality not in ("any", dataset.modality):
        nearest = FITTING.get(dataset.modality, "none")
        said = f"augmentation={name} varies {policy.modality} data, dataset {dataset.name} is {dataset.modality}"
        raise UsageError(f"{said}; choose augmentation={nearest}")
    preview = draw_preview(dataset, policy, work.out / "augmentation.png", work.seed) if dataset.modality == "image" else None
    return AugmentationPolicy(name=name, modality=policy.modality, config=dict(node), preview=preview)


def draw_preview(dataset: DatasetVersion, policy: object, path: Path, seed: int) -> StoredFile:
    """A grid of training images as they are and as the policy varies them at each strength."""
    import numpy as np
    import torch

    from components.data.arrays import load_inputs

    arrays = load_inputs(dataset, "train")
    chosen = np.sort(np.random.default_rng(seed).permutation(dataset.splits["train"])[:PREVIEW_ROWS])
    images = {name: torch.from_numpy(np.array(values[chosen])).to(torch.float32) for name, values in arrays.items()}
    lines = []
    for strength in STRENGTHS:
        varied, _ = policy(images, torch.zeros(len(chosen), dtype=torch.int64), torch.Generator().manual_seed(seed), strength)  # type: ignore[operator]
        lines.append(next(iter(varied.values())).numpy())
    _save_grid(np.stack(lines), path)
    return StoredFile.of(path)


def _save_grid(images_LNCHW: np.ndarray, path: Path) -> None:
    """Lines of images as one PNG, brightness stretched over the grid, small images enlarged by whole factors."""
    import numpy as np
    from PIL import Image

    low, high = float(images_LNCHW[0].min()), float(images_LNCHW[0].max())
    stretched = np.clip((images_LNCHW - low) / max(high - low, 1e-6), 0, 1) * 255
    lines, columns, channels, height, width = stretched.shape
    factor = max(1, PREVIEW_SIDE // max(height, width))
    large = stretched.repeat(factor, axis=3).repeat(factor, axis=4)
    framed = np.pad(large, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)), constant_values=128)
    grid = framed.transpose(0, 3, 1, 4, 2).reshape(lines * framed.shape[3], columns * framed.shape[4], channels).astype(np.uint8)
    Image.fromarray(grid[..., 0] if channels == 1 else grid[..., :3]).save(path, optimize=False)
