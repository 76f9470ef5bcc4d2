"""What every augmentation policy must keep, whichever yaml names it; and that policies which do not keep it are found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from components import build
from components.training.batches import load_rows
from tests.components.models import tiny

CONF = Path(__file__).resolve().parents[2] / "conf" / "augmentation"
MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
BROKEN = "tests.contracts.broken.augmentation"


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


def batches(modality: str, folder: Path) -> list[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """A batch of every modality that the policy accepts."""
    kinds = {"image": tiny.stripes(folder / "i", side=12, channels=3), "table": tiny.table(folder / "t")}
    chosen = [kinds[modality]] if modality in kinds else list(kinds.values())
    found = []
    for dataset in chosen:
        fields, targets = load_rows(dataset, "train").at(slice(0, 16))
        found.append(({k: v.float() if v.dtype == torch.uint8 else v for k, v in fields.items()}, targets))
    return found


def check(config: dict[str, Any], folder: Path) -> None:
    """The contract, on one batch of each modality."""
    policy = build.build(config)
    for batch, targets in batches(policy.modality, folder):
        kept = {name: values.clone() for name, values in batch.items()}
        for strength in (0.0, 0.3, 1.0):
            check_kinds(policy, batch, targets, strength)
        assert all(same(batch[name], kept[name]) for name in batch), "inputs must not be written to"
        check_nothing_at_zero(policy, batch, targets)
        check_generator(policy, batch, targets, varies=policy.modality != "any")


def check_kinds(policy: Any, batch: dict[str, torch.Tensor], targets: torch.Tensor, strength: float) -> None:
    varied, labels = policy(batch, targets, torch.Generator().manual_seed(0), strength)
    assert labels.shape == targets.shape
    assert list(varied) == list(batch)
    for name, values in varied.items():
        assert (values.shape, values.dtype) == (batch[name].shape, batch[name].dtype)
        if batch[name].ndim == 4:
            assert values.min() >= batch[name].min().clamp_max(0) - 0.01, "an image must stay in its own unit"
            assert values.max() <= batch[name].max() + 0.01, "an image must stay in its own unit"


def check_nothing_at_zero(policy: Any, batch: dict[str, torch.Tensor], targets: torch.Tensor) -> None:
    varied, labels = policy(batch, targets, torch.Generator().manual_seed(0), 0.0)
    assert torch.equal(labels, targets)
    assert all(same(varied[name], batch[name]) for name in batch), "strength 0 must change nothing"


def check_generator(policy: Any, batch: dict[str, torch.Tensor], targets: torch.Tensor, *, varies: bool) -> None:
    before = torch.get_rng_state()
    first, _ = policy(batch, targets, torch.Generator().manual_seed(1), 1.0)
    assert torch.equal(torch.get_rng_state(), before), "the global generator must be left as it was"
    torch.rand(3)
    again, _ = policy(batch, targets, torch.Generator().manual_seed(1), 1.0)
    assert all(same(first[name], again[name]) for name in first), "all randomness must come from the generator"
    if varies:
        other, _ = policy(batch, targets, torch.Generator().manual_seed(2), 1.0)
        assert any(not same(first[name], other[name]) for name in first), "another generator must give another batch"
        assert any(not same(first[name], batch[name]) for name in first), "strength 1 must change something"


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal, with missing values equal to themselves."""
    return torch.equal(torch.nan_to_num(one.double(), nan=-1e9), torch.nan_to_num(other.double(), nan=-1e9))


def test_there_are_members() -> None:
    assert len(MEMBERS) >= 4


@pytest.mark.parametrize("name", MEMBERS)
def test_policy_keeps_its_contract(name: str, tmp_path: Path) -> None:
    check(yaml.safe_load((CONF / f"{name}.yaml").read_text()), tmp_path)


@pytest.mark.parametrize("name", ["GlobalDice", "WritesInPlace", "StrongAtZero", "LeavesTheRange"])
def test_broken_policy_fails(name: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check({"_target_": f"{BROKEN}.{name}"}, tmp_path)
