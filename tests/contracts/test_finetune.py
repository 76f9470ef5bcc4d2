"""What every way of fine-tuning must keep, whichever yaml names it; and that those which do not keep it are found out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from components import build
from components.artifacts import Candidate, DatasetVersion
from components.augmentation.policy.none import Unchanged
from components.errors import UsageError
from components.models.network import build_network
from components.models.order import head_of, input_of
from components.models.parent import Parent, adopting
from components.training.finetune.lora import LoRA
from components.training.fit import fit
from components.training.tuning import NEVER, Start, begin
from tests.components.models import tiny
from tests.components.training.parents import parent_of
from tests.components.training.test_fit import HOW, OPTIMIZERS

CONF = Path(__file__).resolve().parents[2] / "conf" / "finetune"
MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
BROKEN = "tests.contracts.broken.finetune"
Data = tuple[Parent, DatasetVersion]


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """A parent trained on stripes, and others in three channels with other names, for which it has no head."""
    folder = tmp_path_factory.mktemp("images")
    dataset = tiny.stripes(folder / "data", rows={"train": 96, "validation": 40, "test": 40})
    return parent_of(dataset, folder / "parent"), dataset.replace(classes=("wide", "tall"))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("tables")
    dataset = tiny.table(folder / "data", rows={"train": 96, "validation": 40, "test": 40})
    return parent_of(dataset, folder / "parent"), dataset.replace(classes=("never", "ever"))


def start_with(config: dict[str, Any], data: Data) -> tuple[Start, dict[str, Any]]:
    parent, dataset = data
    given = {**adopting({}, parent), "finetune": {"it": config}}
    candidate = Candidate(space="it", architecture={}, hyperparameters={**HOW, "learning_rate": 0.003})
    return begin(candidate, given, dataset, seed=3), given


def answers(network: nn.Module, dataset: DatasetVersion) -> torch.Tensor:
    torch.manual_seed(5)
    network = copy.deepcopy(network).eval()
    inputs = [zeros if zeros.dtype == torch.int64 else torch.randn_like(zeros) for zeros in input_of(dataset.inputs, rows=16)]
    with torch.no_grad():
        found: torch.Tensor = network(*inputs)
    return found


def check(config: dict[str, Any], data: Data) -> None:
    """The contract: it begins as the parent's network with a new head, trains the head, keeps what it says, and ends as a
    network of the candidate's architecture that answers as the trained one did."""
    parent, dataset = data
    start, given = start_with(config, data)
    plain = _adopted(given, parent, dataset)
    assert torch.equal(answers(start.network, dataset), answers(plain, dataset)), "fine-tuning begins with what the parent computes"
    twin, _ = start_with(config, data)
    assert _same(start.network, twin.network), "the same seed gives the same beginning"
    _check_names(start)
    head = head_of(build.build(given["space"]), parent.model.candidate.architecture, dataset.inputs, dataset.num_outputs)
    trains = {name for name, parameter in start.network.named_parameters() if parameter.requires_grad}
    assert head <= trains, "a new head is trained"
    assert start.facts["trained_parameters"] == sum(p.numel() for p in start.network.parameters() if p.requires_grad)

    before = {name: tensor.clone() for name, tensor in start.network.state_dict().items()}
    fitted = fit(
        start.network, dataset, start.candidate.hyperparameters, policy=Unchanged(), optimizers=OPTIMIZERS, seed=0, epochs=2,
        objective="accuracy", joins=start.joins, rates=start.rates,
    )  # fmt: skip
    after = fitted.network.state_dict()
    kept = {name for name in before if torch.equal(before[name], after[name]) and before[name].is_floating_point()}
    resting = [name for name, at in start.joins.items() if at >= NEVER]
    still = {name for name in before if name not in trains and name in dict(start.network.named_parameters())}
    still |= {name for name in before if any(name.startswith(f"{module}.") for module in resting)} - trains
    assert all(torch.equal(before[name], after[name]) for name in still), "what rests stays bit for bit"
    assert not trains & kept, "what is trained changes"
    _check_statistics(start, before, after, head)
    if start.method is not None and start.method.keeps:
        parents = {name for name, parameter in start.network.named_parameters() if parameter.ndim > 1} - head
        assert parents & kept, "it says that it keeps weights"

    told = answers(fitted.network, dataset)
    finished = start.finished(fitted.network)
    assert torch.allclose(answers(finished, dataset), told, atol=1e-6, rtol=0), "the finished network answers as the trained one"
    again = build_network(given["space"], start.candidate, dataset, seed=0)
    again.load_state_dict(finished.state_dict(), strict=True)
    assert torch.equal(answers(again, dataset), answers(finished, dataset)), "it is a network of the candidate's architecture"


def _adopted(given: dict[str, Any], parent: Parent, dataset: DatasetVersion) -> nn.Module:
    """The parent's network with the head that the seed draws."""
    from components.models.adoption import adopt

    candidate = Candidate(space="it", architecture=parent.model.candidate.architecture, hyperparameters=HOW)
    network = build_network(given["space"], candidate, dataset, seed=3)
    adopt(network, parent, given["space"], parent.model.candidate.architecture, dataset)
    return network


def _same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def _check_names(start: Start) -> None:
    names = dict(start.network.named_parameters())
    assert set(start.rates) <= set(names), "rates are of the network's own parameters"
    assert all(0 < factor <= 100 for factor in start.rates.values()), "a rate is a factor on the learning rate"
    for name, at in start.joins.items():
        assert at >= 0
        start.network.get_submodule(name)


def _check_statistics(start: Start, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], head: frozenset[str]) -> None:
    """Running statistics move only where something before the head is trained: a probe's features stay what they were."""
    trains = {name for name, parameter in start.network.named_parameters() if parameter.requires_grad}
    if trains <= head:
        assert all(torch.equal(before[name], after[name]) for name in before if "running_" in name), "a probe's features stay"


def member(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return found


def test_there_are_members() -> None:
    assert {"full", "frozen", "lora", "adapter", "linear_probe"} <= set(MEMBERS)


@pytest.mark.parametrize("name", MEMBERS)
def test_finetune_keeps_its_contract(name: str, images: Data, tables: Data) -> None:
    check(member(name), images)
    check(member(name), tables)


@pytest.mark.parametrize(
    "config",
    [
        {"_target_": "components.training.finetune.full.Full", "rate": 0.5, "decay": 0.4},
        {"_target_": "components.training.finetune.frozen.Frozen", "share": 1.0},
        {"_target_": "components.training.finetune.frozen.Frozen", "share": 0.34, "gradual": 0.6},
        {"_target_": "components.training.finetune.lora.LoRA", "rank": 3, "norms": False},
        {"_target_": "components.training.finetune.adapter.AdapterTuning", "width": 2, "norms": False},
    ],
)
def test_so_do_other_arguments(config: dict[str, Any], images: Data) -> None:
    check(config, images)


@pytest.mark.parametrize("name", ["Unmerged", "Dropped", "Thawed", "Drifting", "Headless", "Jolting", "Whimsical"])
def test_broken_finetune_fails(name: str, images: Data) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        check({"_target_": f"{BROKEN}.{name}"}, images)


def test_lora_merges_exactly(images: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64 the merged network answers as the one with the change beside its weights, to the last bits."""
    start, _ = start_with(member("lora"), images)
    network = start.network.double().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".up"):
                parameter.normal_()
    inputs = torch.rand(8, *images[1].inputs[0].shape, dtype=torch.float64) * 255
    monkeypatch.setattr("components.models.preprocessing.torch.float32", torch.float64)
    with torch.no_grad():
        beside = network(inputs)
        merged = LoRA().finish(network)(inputs)
    assert beside.dtype == torch.float64
    assert float((beside - merged).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("target", "settings", "words"),
    [
        ("full.Full", {"rate": 0}, r"finetune\.full\.rate .* above 0"),
        ("frozen.Frozen", {"share": 1.5}, r"finetune\.frozen\.share .* at most 1"),
        ("lora.LoRA", {"rank": 0}, r"finetune\.lora\.rank .* at least 1"),
        ("adapter.AdapterTuning", {"width": 2.5}, r"finetune\.adapter\.width .* whole number"),
    ],
)
def test_mistakes_are_said_in_one_sentence(target: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        build.build({"_target_": f"components.training.finetune.{target}", **settings})
    assert "\n" not in str(error.value)
