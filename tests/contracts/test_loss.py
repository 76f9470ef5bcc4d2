"""What every loss choice must keep, whichever yaml names it; and that choices which do not keep it are found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from components import build
from components.training.interface import Loss

CONF = Path(__file__).resolve().parents[2] / "conf" / "loss"
MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
BROKEN = "tests.contracts.broken.loss"
ROWS, CLASSES = 24, 3


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


def case(task: str) -> tuple[Tensor, Tensor]:
    """Outputs and targets, drawn."""
    generator = torch.Generator().manual_seed(0)
    if task == "classification":
        return torch.randn(ROWS, CLASSES, generator=generator), torch.randint(CLASSES, (ROWS,), generator=generator)
    return torch.randn(ROWS, 1, generator=generator), torch.randn(ROWS, generator=generator)


def perfect(targets: Tensor, task: str) -> Tensor:
    return 20.0 * F.one_hot(targets, CLASSES).float() if task == "classification" else targets[:, None].clone()


def value(loss: Loss, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    return loss(outputs, targets, weights_K=weights, label_smoothing=smoothing)


def check(config: dict[str, Any]) -> None:
    """The contract."""
    loss: Loss = build.build(config)
    outputs, targets = case(loss.task)
    usual = value(loss, outputs, targets)
    assert usual.shape == (), "a loss is one number"
    assert value(loss, perfect(targets, loss.task), targets) < 0.01 * usual, "right answers must cost next to nothing"
    twice = value(loss, torch.cat([outputs, outputs]), torch.cat([targets, targets]))
    assert torch.isclose(twice, usual), "a mean over rows does not change when every row comes twice"
    assert descends(loss, outputs, targets), "its gradient must lead down"
    if loss.task == "classification":
        check_classes(loss, outputs, targets)


def descends(loss: Loss, outputs: Tensor, targets: Tensor) -> bool:
    moved = outputs.clone().requires_grad_()
    before = value(loss, moved, targets)
    (gradient,) = torch.autograd.grad(before, moved)
    return bool(value(loss, outputs - 0.1 * gradient, targets) < before) and bool(torch.isfinite(gradient).all())


def check_classes(loss: Loss, outputs: Tensor, targets: Tensor) -> None:
    """Weights of classes and label smoothing are heard."""
    only = torch.tensor([1.0, 1e-9, 1e-9])
    first = targets == 0
    weighted = value(loss, outputs, targets, only)
    assert torch.isclose(weighted, value(loss, outputs[first], targets[first]), rtol=1e-4), "a class of no weight must not count"
    sure = perfect(targets, "classification")
    assert value(loss, sure, targets, smoothing=0.2) > 2 * value(loss, sure, targets), "smoothed labels punish who is too sure"
    weights = loss.class_weights(torch.tensor([90.0, 9.0, 1.0]))
    assert weights is None or (weights.shape == (CLASSES,) and bool((weights > 0).all()))


def test_there_are_members_for_both_tasks() -> None:
    tasks = [build.build(yaml.safe_load((CONF / f"{name}.yaml").read_text())).task for name in MEMBERS]
    assert tasks.count("classification") >= 3
    assert tasks.count("regression") >= 2


@pytest.mark.parametrize("name", MEMBERS)
def test_loss_keeps_its_contract(name: str) -> None:
    check(yaml.safe_load((CONF / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("name", ["Summed", "Deaf", "Unsqueezed"])
def test_broken_loss_fails(name: str) -> None:
    with pytest.raises(AssertionError):
        check({"_target_": f"{BROKEN}.{name}"})


def test_focal_without_focus_is_cross_entropy() -> None:
    outputs, targets = case("classification")
    weights = torch.tensor([1.0, 2.0, 0.5])
    focal = build.build({"_target_": "components.training.loss.focal.Focal", "gamma": 0})
    found = value(focal, outputs, targets, weights, 0.1)
    assert torch.isclose(found, F.cross_entropy(outputs, targets, weight=weights, label_smoothing=0.1), rtol=1e-2)
    assert torch.isclose(value(focal, outputs, targets), F.cross_entropy(outputs, targets))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    targets = torch.tensor([0] * 90 + [1] * 9 + [2])
    balanced = build.build({"_target_": "components.training.loss.class_weighted.ClassWeighted"})
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets.numpy())
    assert balanced.class_weights(torch.bincount(targets).float()).numpy() == pytest.approx(expected)


def test_huber_pulls_no_harder_at_an_outlier() -> None:
    huber = build.build({"_target_": "components.training.loss.huber.Huber", "delta": 1.0})
    pulls = []
    for far in (0.5, 3.0, 300.0):
        outputs = torch.zeros(1, 1, requires_grad=True)
        (pull,) = torch.autograd.grad(value(huber, outputs, torch.tensor([far])), outputs)
        pulls.append(-float(pull))
    assert pulls == pytest.approx([0.5, 1.0, 1.0])
