"""The augment verb refuses a policy for another modality and draws what an image policy does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.augmentation.augment import STRENGTHS, augment
from components.errors import UsageError
from components.workspace import Workspace
from tests.components.models import tiny

AFFINE = {"_target_": "components.augmentation.policy.affine.Affine", "degrees": 30.0}
NOISE = {"_target_": "components.augmentation.policy.noise.Noise"}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_preview_shows_originals_first_and_stronger_changes_below(tmp_path: Path, channels: int) -> None:
    dataset = tiny.stripes(tmp_path / "d", channels=channels)
    policy = augment(dataset, {"augmentation": AFFINE}, Workspace(out=tmp_path / "out"))
    assert (policy.name, policy.modality, policy.config) == ("affine", "image", AFFINE)
    assert policy.preview is not None
    picture = np.asarray(Image.open(policy.preview.path)).astype(float)
    lines = np.split(picture, len(STRENGTHS))
    changes = [np.abs(line - lines[0]).mean() for line in lines]
    assert changes[0] == 0
    assert 0 < changes[1] < changes[3]


def test_a_table_has_no_preview(tmp_path: Path) -> None:
    policy = augment(tiny.table(tmp_path / "d"), {"augmentation": NOISE}, Workspace(out=tmp_path / "out"))
    assert policy.preview is None
    assert list((tmp_path / "out").iterdir()) == []


def test_a_policy_of_another_modality_is_refused_with_one_that_fits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="augmentation=noise varies table data, dataset stripes is image; choose augmentation=affine"):
        augment(tiny.stripes(tmp_path / "d"), {"augmentation": NOISE}, Workspace(out=tmp_path / "out"))
    with pytest.raises(UsageError, match="choose augmentation=noise"):
        augment(tiny.table(tmp_path / "d"), {"augmentation": AFFINE}, Workspace(out=tmp_path / "out"))


def test_identity_does_not_depend_on_the_preview(tmp_path: Path) -> None:
    dataset = tiny.stripes(tmp_path / "d")
    policy = augment(dataset, {"augmentation": AFFINE}, Workspace(out=tmp_path / "out"))
    assert policy.identity == policy.replace(preview=None).identity
