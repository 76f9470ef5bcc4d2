"""What every search space must keep, whichever yaml names it; and that spaces which do not keep it are found out."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import optuna
import pytest
import torch
import yaml

from components import build
from components.artifacts import DatasetVersion
from components.compression.quantization.static import StaticQuantization
from components.compression.validation import Validation
from components.errors import UsageError
from components.export.export import as_origin
from components.export.exporter.onnx import OnnxExporter
from components.export.parity import parity, require_parity
from components.export.runtime import Session
from components.models.points import Point, Points, values_of
from components.training.batches import load_rows
from tests.components.models import tiny
from tests.contracts.broken import space as broken

CONF = Path(__file__).resolve().parents[2] / "conf"
MEMBERS = sorted(path.stem for path in (CONF / "space").glob("*.yaml"))
BROKEN = "tests.contracts.broken.space"
BROKEN_MEMBERS = [n for n, m in vars(broken).items() if isinstance(m, type) and m.__module__ == BROKEN and hasattr(m, "sample")]
OPTIMIZERS = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / "optimizer").glob("*.yaml")}
# What the yamls' comments offer beside their defaults.
OFFERED: dict[str, dict[str, Any]] = {
    "convnet": {
        "stages": [1, 2, 3], "kernels": [3, 5], "expansions": [2, 4], "squeeze_excites": [False, True], "squeeze_ratios": [2, 4],
        "downsamples": ["max", "average", "stride"], "activations": ["relu", "silu", "gelu", "hardswish"],
        "norms": ["batch", "group", "layer"],
    },
    "mlp": {
        "numeric_embeddings": ["none", "piecewise", "periodic"], "categorical_embeddings": ["learned", "one_hot"],
        "activations": ["relu", "silu", "gelu", "hardswish"], "number_widths": [4, 8],
    },
    "cell": {"stacks": [1, 2, 3]},
}  # fmt: skip
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


def check(config: dict[str, Any], folder: Path, seeds: int = 8) -> None:
    """The contract, over eight sampled architectures for each dataset."""
    space = build.build(config)
    for dataset in datasets(space.modality, folder):
        check_description(space, build.build(config), dataset)
        check_size(build.build(thinned(config)), dataset)
        for seed in range(seeds):
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


# ---- what a space tells of its architectures ----


def check_description(space: Any, twin: Any, dataset: DatasetVersion) -> None:
    """What is told without building anything is true; `twin` is the same space built once more."""
    points = Points(lambda trial: space.sample(trial, dataset))
    drawn = [points.draw(Random(seed)) for seed in range(12)]
    for point in drawn:
        assert space.key(point.value) == twin.key(point.value), "a key must be a function of the architecture"
        check_every_draw_matters(points, point)
        check_fold(space, points, point)
        counted = space.num_parameters(point.value, dataset.inputs, dataset.num_outputs)
        built = sum(p.numel() for p in build_seeded(space, dataset, point.value).parameters())
        assert counted == built, f"counted {counted} parameters, the network has {built}"
    for point in drawn[:4]:
        check_neighbours(space, dataset, points, point)
    near = [value for point in drawn[:2] for value in space.neighbours(point.value, dataset)]
    check_encoding(space, dataset, [point.value for point in drawn] + near)


def check_every_draw_matters(points: Points, point: Point) -> None:
    """What is drawn is drawn because it makes a difference, so that no sampler learns from noise."""
    for name, distribution in point.distributions.items():
        for value in values_of(distribution) or ():
            changed = points.draw(Random(0), {**point.params, name: value})
            assert value == point.params[name] or changed.value != point.value, f"{name} was drawn and changes nothing"


def check_fold(space: Any, points: Points, point: Point) -> None:
    redrawn = points.draw(Random(1), space.parameters(point.value))
    assert redrawn == point, "`parameters` must be the inverse of `sample`"
    folded = space.fold(point.value)
    assert points.draw(Random(1), space.parameters(folded)).value == folded, "what stands for others must be drawable itself"
    assert space.key(folded) == space.key(point.value)
    assert space.fold(folded) == folded


def check_neighbours(space: Any, dataset: DatasetVersion, points: Points, point: Point) -> None:
    found = space.neighbours(point.value, dataset)
    assert found, "no architecture is near"
    assert found == space.neighbours(point.value, dataset)
    keys = [space.key(value) for value in found]
    assert len({*keys, space.key(point.value)}) == len(keys) + 1, "a neighbour has a key of its own"
    for value in found:
        params = points.draw(Random(1), space.parameters(value)).params
        changed = [name for name in params.keys() & point.params.keys() if params[name] != point.params[name]]
        assert len(changed) == 1, f"a neighbour differs in one draw, this one in {changed}"


def check_encoding(space: Any, dataset: DatasetVersion, architectures: list[dict[str, Any]]) -> None:
    codes = [space.encode(architecture, dataset) for architecture in architectures]
    assert {len(code) for code in codes} == {len(codes[0])}, "all encodings must have one length"
    assert all(0.0 <= x <= 1.0 for code in codes for x in code)
    for (one, code), (other, another) in combinations(zip(architectures, codes), 2):
        assert (space.key(one) == space.key(other)) == (code == another), "equal keys and equal encodings go together"


def thinned(config: dict[str, Any]) -> dict[str, Any]:
    """The space with no more than two choices of a kind, so that it can be counted one by one."""
    return {key: value[-2:] if isinstance(value, list) else value for key, value in config.items()}


def check_size(space: Any, dataset: DatasetVersion) -> None:
    listed = [json.dumps(p.value) for p in Points(lambda trial: space.sample(trial, dataset)).all(most=20_000)]
    assert len(set(listed)) == len(listed), "two draws give one architecture"
    assert space.size(dataset) == len(listed)


def build_seeded(space: Any, dataset: DatasetVersion, architecture: dict[str, Any], dropout: float = 0.0) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return space.build(architecture, dataset.inputs, dataset.num_outputs, dropout=dropout)


def test_there_are_members() -> None:
    assert len(MEMBERS) >= 2


@pytest.mark.parametrize("name", MEMBERS)
def test_space_keeps_its_contract(name: str, tmp_path: Path) -> None:
    check(config_of(name), tmp_path)


@pytest.mark.parametrize("name", sorted(OFFERED))
def test_every_choice_on_offer_keeps_the_contract(name: str, tmp_path: Path) -> None:
    """Also those that a yaml leaves off."""
    check(config_of(name) | OFFERED[name], tmp_path, seeds=4)


def test_broken_members_are_found() -> None:
    assert len(BROKEN_MEMBERS) >= 10


@pytest.mark.parametrize("name", BROKEN_MEMBERS)
def test_broken_space_fails(name: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check({"_target_": f"{BROKEN}.{name}"}, tmp_path)


@pytest.mark.parametrize("name", MEMBERS)
def test_an_architecture_off_the_space_has_no_place_in_it(name: str, tmp_path: Path) -> None:
    """A student is smaller than anything that can be drawn; the message shows the nearest that can."""
    space = build.build(config_of(name))
    dataset = datasets(space.modality, tmp_path)[0]
    student = space.shrink(space.shrink(space.shrink(space.sample(trial(0), dataset))))
    with pytest.raises(UsageError, match="cannot be drawn from the space"):
        space.encode(student, dataset)


@pytest.mark.parametrize("name", MEMBERS)
def test_an_empty_or_impossible_list_is_one_line(name: str) -> None:
    """Every list of the yaml: empty, no list, a choice twice, a choice of another kind; the key and the value are named."""
    config = config_of(name)
    lists = [key for key, value in config.items() if isinstance(value, list)]
    assert lists
    for key in lists:
        for wrong in ([], config[key][0], [config[key][0]] * 2, ["?"], [-1]):
            with pytest.raises(UsageError, match=f"space.{key}") as caught:
                build.build(config | {key: wrong})
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MEMBERS)
def test_space_refuses_inputs_of_another_modality(name: str, tmp_path: Path) -> None:
    """The message names the space that would fit."""
    space = build.build(config_of(name))
    other = tiny.table(tmp_path) if space.modality == "image" else tiny.stripes(tmp_path)
    with pytest.raises(UsageError, match="choose space="):
        space.sample(trial(0), other)


@pytest.mark.parametrize("name", sorted(OFFERED))
def test_networks_survive_export_and_quantisation(name: str, tmp_path: Path) -> None:
    """With the last of each choice on offer: same answers at batch sizes 1, 2 and 7, and a graph in integers that runs."""
    config = config_of(name) | OFFERED[name]
    space = build.build(config | {key: value[-1:] for key, value in config.items() if isinstance(value, list) and key != "operations"})
    dataset = datasets(space.modality, tmp_path)[0]
    network, path, smaller = build_seeded(space, dataset, space.sample(trial(1), dataset)).eval(), tmp_path / "a.onnx", tmp_path / "b.onnx"
    exporter = OnnxExporter()
    exporter.export(network, dataset, path)
    require_parity(name, parity(Session(path), as_origin(network, dataset), dataset), exporter.tolerance, dataset)
    validation = Validation(dataset, "accuracy", seed=0)
    StaticQuantization(rows=64).quantize(path, smaller, "int8", validation)
    assert smaller.stat().st_size < path.stat().st_size
    assert np.isfinite(validation.score(smaller))


@pytest.mark.parametrize("name", MEMBERS)
def test_what_grows_makes_networks_larger(name: str, tmp_path: Path) -> None:
    """A round of a search that is aimed at larger or smaller networks gets them: the settings that a space says make it grow do."""
    from components.search.target import sized

    config = config_of(name)
    dataset = datasets(build.build(config).modality, tmp_path)[0]
    means = []
    for factor in (1 / 1.5, 1.0, 1.5):
        space = build.build(sized({"space": config}, factor)["space"])
        drawn = [space.sample(trial(seed), dataset) for seed in range(16)]
        means.append(sum(space.num_parameters(a, dataset.inputs, dataset.num_outputs) for a in drawn) / len(drawn))
    assert means[0] < means[1] < means[2]
