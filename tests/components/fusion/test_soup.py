"""Soups average what belongs together, take statistics anew, and go on after a kill."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.errors import UsageError
from components.fusion import soup
from components.fusion.fuse import fuse
from components.fusion.method.greedy_soup import GreedySoup
from components.fusion.method.uniform_soup import UniformSoup
from components.fusion.pool import trials_of
from components.fusion.soup import average, ingredients, retake_statistics
from components.models.network import load_network, save_weights
from components.models.parent import Parent
from components.training.batches import load_rows
from components.workspace import Workspace
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


def joined(found: Case, folder: Path, **change: Any) -> Case:
    """With a permuted copy of the teacher that a user names; `change`s its architecture on paper."""
    folder.mkdir()
    twin = save_weights(permuted(load_network(found.teacher, found.dataset), seed=7), folder / "twin.safetensors")
    candidate = found.teacher.candidate.replace(architecture={**found.teacher.candidate.architecture, **change})
    record = Parent.of(found.teacher.replace(weights=twin, seed=7, candidate=candidate), found.dataset, reference="run:theirs")
    return replace(found, config={**found.config, "joining": [record.to_json()]}, result=found.result.replace(trials=()))


def test_a_network_that_the_user_names_joins_in(image: Case, tmp_path: Path) -> None:
    """Its units are put into the teacher's order first; the soup names it among its parents."""
    pool = joined(image, tmp_path / "theirs").pool(tmp_path / "out")
    parts = ingredients(pool, finetunes=0, epochs=1)
    assert {part.model.identity for part in parts} == {image.teacher.identity, pool.joining[0].model.identity}
    teacher, mean = load_file(image.teacher.weights.path), average([part.state for part in parts])
    assert all(torch.allclose(mean[name], teacher[name], atol=1e-5) for name in teacher)


@pytest.mark.parametrize("method", [GreedySoup, UniformSoup])
def test_a_named_network_that_nothing_surpasses_is_handed_on(image: Case, tmp_path: Path, method: type) -> None:
    """As a model of this run that came from it, its weights in the stage's folder: the teacher's own were scrambled. A mean of
    all that is worse is told of."""
    teacher, work = image.teacher, tmp_path / "out"
    network = load_network(teacher, image.dataset)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(-1)
    (tmp_path / "bad").mkdir()
    weights = save_weights(network, tmp_path / "bad" / "weights.safetensors")
    record = Parent.of(teacher, image.dataset, reference="run:theirs")
    fusion = {"_target_": f"{method.__module__}.{method.__name__}", "finetunes": 0}
    config = {**image.config, "joining": [record.to_json()], "fusion": fusion}
    told: list[Any] = []
    bad = teacher.replace(weights=weights, seed=5)
    workspace = Workspace(out=work, emit=lambda event, **fields: told.append((event, fields)))
    made = fuse(image.dataset, image.policy, image.result.replace(trials=()), bad, config, workspace)
    assert (made.role, made.parents) == ("member", (teacher.identity,))
    (said,) = [fields for event, fields in told if event == "fuse.left_out"] or [None]
    assert (said is None) == (method is GreedySoup)
    if said:
        assert said["what"] == "the mean of 2 networks"
        assert re.fullmatch(r"its (accuracy|log_loss) is \d\.\d{4}, that of run:theirs \d\.\d{4}", said["reason"]), said
    assert made.weights.path.is_relative_to(work)
    assert made.weights.sha256 == teacher.weights.sha256


def test_a_network_that_cannot_join_is_refused_by_what_differs(image: Case, table: Case, tmp_path: Path) -> None:
    """By the tensor, by what is built into it, by its classes, by its kind of data."""
    with pytest.raises(UsageError, match=r"built alike, activation is relu in the teacher and gelu in run:theirs"):
        ingredients(joined(image, tmp_path / "gelu", activation="gelu").pool(tmp_path / "a"), finetunes=0, epochs=1)
    trials = trials_of(image.result, image.dataset, image.config, 0)
    wider = next(model for model in trials if model.candidate.architecture["width"] == 12)
    others = {
        r"same tensors, \S+ is \[8.*\] in the teacher and \[12.*\] in run:theirs": Parent.of(wider, image.dataset, reference="run:theirs"),
        r"answer alike, run:theirs tells x, y, dataset": Parent.of(
            image.teacher, image.dataset.replace(classes=("x", "y")), reference="run:theirs"),
        r"run:theirs was trained on table data": Parent.of(table.teacher, table.dataset, reference="run:theirs"),
    }  # fmt: skip
    for words, record in others.items():
        pool = replace(image, config={**image.config, "joining": [record.to_json()]}).pool(tmp_path / "b")
        with pytest.raises(UsageError, match=words):
            ingredients(pool, finetunes=0, epochs=1)


def test_names_that_nobody_looked_up_are_no_members(image: Case, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"fusion\.members run:theirs have not been looked up"):
        GreedySoup(finetunes=0, members=["run:theirs"]).fuse(image.pool(tmp_path / "out"))


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
