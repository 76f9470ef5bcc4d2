"""Feature fusion trains a head over networks that stay as they are, until all are trained together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from components.artifacts import TrainedModel
from components.errors import UnknownNameError
from components.fusion.features import begun
from components.fusion.method.feature_fusion import FeatureFusion
from components.models.fused import Attention, Late
from components.models.network import load_network
from components.training.batches import load_rows
from tests.components.fusion.pools import Case, case


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(tmp_path_factory.mktemp("image"), "image")


def fused(found: Case, folder: Path, **options: Any) -> TrainedModel:
    model = FeatureFusion(**{"members": 2, "epochs": 4, **options}).fuse(found.pool(folder))
    assert model.role == "features"
    return model


def unchanged(found: Case, model: TrainedModel, folder: Path) -> list[bool]:
    """Of each tensor of the encoders, whether it is still its network's own."""
    network, pool = load_network(model, found.dataset), found.pool(folder)
    known = {member.identity: member for member in pool.models}
    same = []
    for encoder, parent in zip(network.encoders, model.parents):  # type: ignore[arg-type]
        theirs = load_network(known[parent], found.dataset).state_dict()
        same += [torch.equal(tensor, theirs[name]) for name, tensor in encoder.state_dict().items()]
    return same


@pytest.mark.parametrize(("head", "kind"), [("late", Late), ("attention", Attention)])
def test_only_the_head_is_trained_first(image: Case, tmp_path: Path, head: str, kind: type) -> None:
    """Every weight and statistic of the networks is what it was; the head beats the best of them on validation."""
    model = fused(image, tmp_path / "out", head=head)
    assert isinstance(load_network(model, image.dataset), kind)
    assert all(unchanged(image, model, tmp_path / "pool"))
    assert model.metrics["log_loss"] < image.pool(tmp_path / "judge").best_metrics["log_loss"]
    losses = [row["train_loss"] for row in model.history]
    assert losses[-1] < losses[0]


def test_afterwards_all_may_be_trained_together(image: Case, tmp_path: Path) -> None:
    assert not all(unchanged(image, fused(image, tmp_path / "out", together=1), tmp_path / "pool"))


def test_a_late_head_begins_as_the_mean_of_the_networks_own(image: Case, tmp_path: Path) -> None:
    pool = image.pool(tmp_path / "out")
    network = begun(pool, pool.models[:3], "late").eval()
    rows = load_rows(image.dataset, "test").fields["image"]
    with torch.no_grad():
        mean = torch.stack([pool.network(model)(rows) for model in pool.models[:3]]).mean(dim=0)
        assert torch.allclose(network(rows), mean, atol=1e-5)


def test_members_are_of_different_architectures_first(image: Case, tmp_path: Path) -> None:
    pool = image.pool(tmp_path / "out")
    chosen = FeatureFusion(members=2)._chosen(pool)
    assert chosen[0] is pool.best
    assert chosen[0].candidate.architecture != chosen[1].candidate.architecture


def test_an_unknown_head_is_named() -> None:
    with pytest.raises(UnknownNameError, match="late"):
        FeatureFusion(head="lat")
