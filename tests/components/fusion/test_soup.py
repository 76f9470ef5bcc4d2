"""Soups average what belongs together, take statistics anew, and go on after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.errors import UsageError
from components.fusion import soup
from components.fusion.method.greedy_soup import GreedySoup
from components.fusion.soup import average, ingredients, retake_statistics
from components.models.network import load_network, save_weights
from components.training.batches import load_rows
from tests.components.fusion.pools import Case, case
from tests.components.fusion.twins import permuted


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(tmp_path_factory.mktemp("image"), "image")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(tmp_path_factory.mktemp("table"), "table")


def with_twin(found: Case, folder: Path) -> Case:
    """The teacher beside a trial that is a permuted copy of it."""
    network = load_network(found.teacher, found.dataset)
    folder.mkdir()
    twin = save_weights(permuted(network, seed=7), folder / "twin.safetensors")
    trial = found.result.trials[0].replace(candidate=found.teacher.candidate, weights=twin)
    return Case(found.dataset, found.policy, found.result.replace(trials=(trial,)), found.teacher, found.config)


def test_the_mean_of_a_network_and_its_permuted_copy_is_the_network(image: Case, tmp_path: Path) -> None:
    """To 1e-5, weights and answers; as they lie, the mean would be another network."""
    found = with_twin(image, tmp_path / "twin")
    pool = found.pool(tmp_path / "out")
    parts = ingredients(pool, finetunes=0, epochs=1)
    teacher = load_network(found.teacher, found.dataset)
    network = load_network(found.teacher, found.dataset)
    network.load_state_dict(average([part.state for part in parts]))
    rows = load_rows(found.dataset, "test").fields["image"]
    assert len(parts) == 2
    with torch.no_grad():
        assert torch.allclose(network(rows), teacher(rows), atol=1e-5)
        as_they_lie = average([load_file(part.model.weights.path) for part in parts])
        network.load_state_dict(as_they_lie)
        assert not torch.allclose(network(rows), teacher(rows), atol=1e-1)


def test_members_that_differ_are_refused_by_the_tensor(image: Case) -> None:
    """By shape, and by what only one of them has."""
    state = {"a.weight": torch.zeros(2, 3), "b.bias": torch.zeros(4)}
    with pytest.raises(UsageError, match=r"the same tensors, b\.bias is \[4\] in one and \[5\] in another"):
        average([state, {**state, "b.bias": torch.zeros(5)}])
    with pytest.raises(UsageError, match=r"b\.bias is \[4\] in one and none in another"):
        average([state, {"a.weight": torch.zeros(2, 3)}])


def test_running_statistics_are_those_of_training_rows(image: Case, tmp_path: Path) -> None:
    """Whatever they were before, afterwards they are what the layers see; in one batch, exactly."""
    pool = image.pool(tmp_path / "out")
    network = load_network(image.teacher, image.dataset)
    norm = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert norm.running_mean is not None
    norm.running_mean.fill_(99.0)
    seen: list[torch.Tensor] = []
    hook = norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    retake_statistics(network, pool)
    hook.remove()
    batches = torch.stack([given.mean(dim=(0, 2, 3)) for given in seen])
    assert torch.allclose(norm.running_mean, batches.mean(dim=0), atol=1e-4)
    assert not network.training
    assert norm.momentum == 0.1


def test_finetunings_begin_at_the_teacher_and_differ_from_it_and_each_other(table: Case, tmp_path: Path) -> None:
    """Another learning rate each, far nearer to the teacher than a trial is."""
    parts = {part.model.role: part for part in ingredients(table.pool(tmp_path / "out"), finetunes=2, epochs=2)}
    teacher = parts["teacher"].state
    apart = {role: sum(float((part.state[n] - teacher[n]).square().sum()) for n in teacher) for role, part in parts.items()}
    assert 0 < apart["finetuned0"] < 0.5 * apart["trial0"]
    assert 0 < apart["finetuned1"] < 0.5 * apart["trial0"]
    rates = {part.model.candidate.hyperparameters["learning_rate"] for part in parts.values()}
    assert len(rates) == 4  # the teacher's and a trial's are the same
    assert parts["finetuned0"].model.parents == (table.teacher.identity,)


def test_a_killed_soup_goes_on_with_the_same_finetunings(table: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained before the kill is not trained again; the result is that of an undisturbed run."""
    method = GreedySoup(finetunes=2, epochs=3)
    whole = method.fuse(table.pool(tmp_path / "whole", scratch=tmp_path / "scratch-whole"))
    trained = soup.fit

    class Killed(BaseException):
        pass

    def dies_at_the_second(*args: object, **options: object) -> object:
        if str(options["scratch"]).endswith("finetune1"):
            raise Killed
        return trained(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(soup, "fit", dies_at_the_second)
    with pytest.raises(Killed):
        method.fuse(table.pool(tmp_path / "a", scratch=tmp_path / "scratch"))
    monkeypatch.setattr(soup, "fit", trained)
    told: list[tuple[str, dict[str, object]]] = []
    again = method.fuse(table.pool(tmp_path / "b", scratch=tmp_path / "scratch", emit=lambda event, **fields: told.append((event, fields))))
    assert again.identity == whole.identity
    assert len([event for event, _ in told if event == "epoch"]) == 3


def test_without_time_nothing_is_trained(table: Case, tmp_path: Path) -> None:
    told: list[str] = []
    parts = ingredients(table.pool(tmp_path / "out", seconds=0.0, emit=lambda event, **fields: told.append(event)), finetunes=3, epochs=1)
    assert not [part for part in parts if part.model.role.startswith("finetuned")]
    assert told == ["fuse.left_out"] * 4  # three trials that nobody had time to judge, and the fine-tunings
    assert [part.model.role for part in parts] == ["teacher"]


@pytest.mark.parametrize(("argument", "rule"), [({"finetunes": -1}, "fusion.finetunes must be a whole number of at least 0"),
                                                ({"epochs": 0}, "fusion.epochs must be a whole number of at least 1")])  # fmt: skip
def test_wrong_arguments_are_named(argument: dict[str, int], rule: str) -> None:
    with pytest.raises(UsageError, match=rule.replace(".", r"\.")):
        GreedySoup(**argument)
