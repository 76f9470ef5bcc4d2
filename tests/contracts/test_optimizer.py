"""What every optimizer choice must keep, whichever yaml names it; and that choices which do not keep it are found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from components import build
from components.models.hyperparameters import DEFAULT_RANGES
from components.training.checkpoint import SafeCheckpointIO
from components.training.fit import optimizer_of
from components.training.learner import parameter_groups

CONF = Path(__file__).resolve().parents[2] / "conf" / "optimizer"
MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
BROKEN = "tests.contracts.broken.optimizer"


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


def check(config: dict[str, Any], folder: Path) -> None:
    """The contract, on a small regression."""
    ranges = {**DEFAULT_RANGES, **config.get("search", {})}
    for name in ("learning_rate", "weight_decay"):
        low, high = ranges[name]
        assert 0 < low < high, f"search.{name} must be a range"
    middle = (ranges["learning_rate"][0] * ranges["learning_rate"][1]) ** 0.5
    hyperparameters = {"optimizer": "it", "learning_rate": middle, "weight_decay": ranges["weight_decay"][0]}
    assert learns(config, hyperparameters), "forty steps in the middle of its range must halve a quadratic loss"
    assert decays(config, {**hyperparameters, "weight_decay": ranges["weight_decay"][1]}), "weight decay must shrink weights"
    assert resumes(config, hyperparameters, folder), "saved and loaded, it must take the same next steps"


def regression() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, inputs = torch.nn.Linear(8, 1), torch.randn(64, 8)
        return network, inputs, inputs @ (0.1 * torch.randn(8, 1)) + network(inputs).detach()


def step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    optimizer.zero_grad()
    loss = (network(inputs) - targets).square().mean()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def learns(config: dict[str, Any], hyperparameters: dict[str, Any]) -> bool:
    network, inputs, targets = regression()
    optimizer = optimizer_of(hyperparameters, {"it": config})(parameter_groups(network))
    losses = [step(network, optimizer, inputs, targets) for _ in range(40)]
    return losses[-1] < 0.5 * losses[0]


def decays(config: dict[str, Any], hyperparameters: dict[str, Any]) -> bool:
    network = torch.nn.Linear(8, 8)
    torch.nn.init.constant_(network.weight, 1.0)
    torch.nn.init.constant_(network.bias, 1.0)
    optimizer = optimizer_of(hyperparameters, {"it": config})(parameter_groups(network))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return bool((network.weight < 1).all()) and bool((network.bias == 1).all())


def resumes(config: dict[str, Any], hyperparameters: dict[str, Any], folder: Path) -> bool:
    network, inputs, targets = regression()
    optimizer = optimizer_of(hyperparameters, {"it": config})(parameter_groups(network))
    step(network, optimizer, inputs, targets)
    SafeCheckpointIO().save_checkpoint({"network": network.state_dict(), "optimizer": optimizer.state_dict()}, folder / "o.ckpt")
    kept = SafeCheckpointIO().load_checkpoint(folder / "o.ckpt")
    twin = torch.nn.Linear(8, 1)
    twin.load_state_dict(kept["network"])
    other = optimizer_of(hyperparameters, {"it": config})(parameter_groups(twin))
    other.load_state_dict(kept["optimizer"])
    for _ in range(3):
        step(network, optimizer, inputs, targets)
        step(twin, other, inputs, targets)
    return torch.equal(network.weight, twin.weight) and torch.equal(network.bias, twin.bias)


def test_there_are_members() -> None:
    assert len(MEMBERS) >= 2


@pytest.mark.parametrize("name", MEMBERS)
def test_optimizer_keeps_its_contract(name: str, tmp_path: Path) -> None:
    check(yaml.safe_load((CONF / f"{name}.yaml").read_text()), tmp_path)


@pytest.mark.parametrize("name", ["Uphill", "ForgetsItsMomentum", "NeverDecays"])
def test_broken_optimizer_fails(name: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check({"_target_": f"{BROKEN}.{name}"}, tmp_path)
