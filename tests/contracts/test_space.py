"""What every search space must keep, whichever yaml names it; and that spaces which do not keep it are found out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml

from components import build
from components.artifacts import DatasetVersion
from components.errors import UsageError
from components.training.batches import load_rows
from tests.components.models import tiny

CONF = Path(__file__).resolve().parents[2] / "conf"
MEMBERS = sorted(path.stem for path in (CONF / "space").glob("*.yaml"))
BROKEN = "tests.contracts.broken.space"
OPTIMIZERS = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / "optimizer").glob("*.yaml")}
NEEDED = {"optimizer", "learning_rate", "batch_size", "weight_decay", "dropout", "label_smoothing", "augmentation_strength"}


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


def config_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / "space" / f"{name}.yaml").read_text())


def datasets(modality: str, folder: Path) -> list[DatasetVersion]:
    """What a space of a modality must cope with."""
    if modality == "image":
        return [tiny.stripes(folder / "grey"), tiny.stripes(folder / "rgb", side=32, channels=3), tiny.stripes(folder / "odd", side=21)]
    return [tiny.table(folder / "classes"), tiny.table(folder / "values", task="regression")]


def trial(seed: int) -> optuna.Trial:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()


def inputs_of(dataset: DatasetVersion, rows: int) -> list[torch.Tensor]:
    fields, _ = load_rows(dataset, "train").at(slice(0, rows))
    return [fields[field.name] for field in dataset.inputs]


def check(config: dict[str, Any], folder: Path) -> None:
    """The contract, over eight sampled architectures for each dataset."""
    space = build.build(config)
    for dataset in datasets(space.modality, folder):
        for seed in range(8):
            check_sampling(space, dataset, seed)
            architecture = space.sample(trial(seed), dataset)
            check_network(space, dataset, architecture)
            check_student(space, dataset, architecture)


def check_sampling(space: Any, dataset: DatasetVersion, seed: int) -> None:
    first, again = trial(seed), trial(seed)
    drawn, repeated = space.sample(first, dataset), space.sample(again, dataset)
    assert drawn == repeated, "the same draws must give the same architecture"
    assert json.loads(json.dumps(drawn)) == drawn, "an architecture must be plain JSON"
    assert first.params, "an architecture must be drawn from the trial"
    assert all(name.startswith("arch.") for name in first.params)
    hyperparameters = space.hyperparameters(first, dataset, OPTIMIZERS)
    assert set(hyperparameters) >= NEEDED
    assert all(name.startswith(("arch.", "hp.")) for name in first.params)


def check_network(space: Any, dataset: DatasetVersion, architecture: dict[str, Any]) -> None:
    network = build_seeded(space, dataset, architecture, dropout=0.2)
    twin = build_seeded(space, dataset, architecture, dropout=0.2)
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), twin.state_dict().values())), "same seed, same weights"
    inputs = inputs_of(dataset, 7)
    outputs = network.train()(*inputs)
    assert outputs.shape == (7, dataset.num_outputs)
    assert torch.isfinite(outputs).all()
    outputs.square().mean().backward()
    idle = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not idle, f"parameters that nothing reaches: {idle}"
    with torch.no_grad():
        check_rows_are_alone(network.eval(), inputs)


def check_rows_are_alone(network: torch.nn.Module, inputs: list[torch.Tensor]) -> None:
    together = network(*inputs)
    order = torch.randperm(len(together), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(*(i[order] for i in inputs)), together[order], atol=1e-5), "permuting rows must permute outputs"
    assert torch.allclose(network(*(i[:2] for i in inputs)), together[:2], atol=1e-5), "a row's output must not depend on the others"
    assert not torch.allclose(together[0], together[1:], atol=1e-7), "outputs must depend on the inputs"


def check_student(space: Any, dataset: DatasetVersion, architecture: dict[str, Any]) -> None:
    small = space.shrink(architecture)
    sizes = [sum(p.numel() for p in build_seeded(space, dataset, a).parameters()) for a in (architecture, small)]
    assert sizes[1] < 0.9 * sizes[0], f"a student must be distinctly smaller, got {sizes[1]} of {sizes[0]} parameters"


def build_seeded(space: Any, dataset: DatasetVersion, architecture: dict[str, Any], dropout: float = 0.0) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return space.build(architecture, dataset.inputs, dataset.num_outputs, dropout=dropout)


def test_there_are_members() -> None:
    assert len(MEMBERS) >= 2


@pytest.mark.parametrize("name", MEMBERS)
def test_space_keeps_its_contract(name: str, tmp_path: Path) -> None:
    check(config_of(name), tmp_path)


@pytest.mark.parametrize("name", ["SameSizeStudent", "JudgesByItsNeighbours", "OwnDice"])
def test_broken_space_fails(name: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check({"_target_": f"{BROKEN}.{name}"}, tmp_path)


@pytest.mark.parametrize("name", MEMBERS)
def test_space_refuses_inputs_of_another_modality(name: str, tmp_path: Path) -> None:
    """The message names the space that would fit."""
    space = build.build(config_of(name))
    other = tiny.table(tmp_path) if space.modality == "image" else tiny.stripes(tmp_path)
    with pytest.raises(UsageError, match="choose space="):
        space.sample(trial(0), other)


@pytest.mark.parametrize("name", MEMBERS)
def test_networks_can_be_exported_with_a_dynamic_batch(name: str, tmp_path: Path) -> None:
    """The exporter starts from torch.export; tracing must not fix the batch size."""
    space = build.build(config_of(name))
    dataset = datasets(space.modality, tmp_path)[0]
    network = build_seeded(space, dataset, space.sample(trial(1), dataset)).eval()
    inputs = tuple(inputs_of(dataset, 4))
    batch = torch.export.Dim("batch")
    exported = torch.export.export(network, inputs, dynamic_shapes=spec(network, inputs, batch), strict=False).module()
    seven = inputs_of(dataset, 7)
    assert torch.allclose(exported(*seven), network(*seven), atol=1e-5)


def spec(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...], batch: Any) -> Any:
    """Dynamic first axis for every input; a network with `*inputs` takes them as one tuple."""
    axes = tuple({0: batch} for _ in inputs)
    return (axes,) if "inputs" in network.forward.__code__.co_varnames[:2] else axes
