"""Ensemble selection finds models that make up for each other, and leaves alone what does not help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from components.artifacts import StoredFile, TrainedModel
from components.compression.distill import student_of
from components.errors import UsageError
from components.fusion.fuse import fuse
from components.fusion.method.ensemble import Ensemble, judge_of, select
from components.models.fused import Mean
from components.models.network import load_network
from components.training.batches import load_rows
from tests.components.fusion.pools import Case, case


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(tmp_path_factory.mktemp("values"), "values")


def rmse(outputs: np.ndarray) -> dict[str, float]:
    return {"rmse": float(np.sqrt(np.mean(outputs**2)))}


def lower(found: dict[str, float], kept: dict[str, float]) -> bool:
    return found["rmse"] < kept["rmse"]


def chosen(outputs: list[np.ndarray], rounds: int, most: int) -> np.ndarray:
    return select(judge_of(outputs, rmse), len(outputs), range(len(outputs)), lower, rounds, most)


def test_models_that_make_up_for_each_other_are_chosen_by_how_much_they_do() -> None:
    """Errors of +1 and -2 cancel out with two parts of the one and one of the other; a third model has no part in it."""
    outputs = [np.full(10, 1.0), np.full(10, -2.0), np.full(10, 5.0)]
    counts = chosen(outputs, rounds=12, most=3)
    assert counts[0] == 2 * counts[1]
    assert counts[2] == 0
    assert judge_of(outputs, rmse)(counts)["rmse"] == pytest.approx(0.0)


def test_no_more_distinct_models_than_asked_for() -> None:
    random = np.random.default_rng(0)
    outputs = [random.normal(size=50) for _ in range(9)]
    many, few = chosen(outputs, rounds=40, most=9), chosen(outputs, rounds=40, most=2)
    assert np.count_nonzero(many) > 2 == np.count_nonzero(few)
    assert judge_of(outputs, rmse)(few)["rmse"] < min(rmse(told)["rmse"] for told in outputs)


def test_where_nobody_helps_the_best_is_alone() -> None:
    """However often it is taken, it is itself, and asked about once."""
    outputs = [np.full(10, 0.1), np.full(10, 3.0), np.full(10, 2.0)]
    asked = []

    def score(mean: np.ndarray) -> dict[str, float]:
        asked.append(mean)
        return rmse(mean)

    counts = select(judge_of(outputs, score), 3, range(3), lower, 10, 3)
    assert counts.tolist() == [1, 0, 0]
    assert sum(np.array_equal(mean, outputs[0]) for mean in asked) == 1


def test_logits_of_an_ensemble_give_the_mean_probabilities_back() -> None:
    """To rounding, also where one member is certain."""

    class Says(torch.nn.Module):
        def __init__(self, logits: list[float]) -> None:
            super().__init__()
            self.logits = torch.tensor([logits])

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.logits.expand(len(rows), -1)

    members = [Says([0.0, 1.0, 2.0]), Says([300.0, 0.0, -300.0])]
    found = Mean(members, [0.25, 0.75], is_classifier=True)(torch.zeros(4, 1)).softmax(dim=1)
    expected = 0.25 * torch.tensor([0.0, 1.0, 2.0]).softmax(dim=0) + 0.75 * torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(found, expected.expand(4, 3), atol=1e-6)


def test_an_ensemble_is_the_mean_of_its_members_and_says_who_they_are(values: Case, tmp_path: Path) -> None:
    """Their digests, weights and shares are in the record; its student is one network of the plain space."""
    config = {**values.config, "fusion": NODE}
    model = fuse(values.dataset, values.policy, values.result, values.teacher, config, values.work(tmp_path / "o"))
    pool = values.pool(tmp_path / "pool")
    known = {member.identity: member for member in pool.models}
    assert model.role == "ensemble"
    assert set(model.parents) <= known.keys()
    assert sum(row["share"] for row in model.members) == pytest.approx(1.0)
    assert [row["weights"] for row in model.members] == [known[parent].weights.sha256 for parent in model.parents]
    fields = load_rows(values.dataset, "test").fields
    inputs = [fields[field.name] for field in values.dataset.inputs]
    with torch.no_grad():
        answers = [row["share"] * load_network(known[row["model"]], values.dataset)(*inputs) for row in model.members]
        assert torch.allclose(load_network(model, values.dataset)(*inputs), torch.stack(answers).sum(dim=0), atol=1e-5)
    student = student_of(model, values.config)
    first = known[model.parents[0]].candidate.architecture
    assert student.architecture["width"] == first["width"] // 2
    assert student.hyperparameters["dropout"] == 0.0
    assert TrainedModel.from_json(model.to_json()).identity == model.identity


NODE = {"_target_": "components.fusion.method.ensemble.Ensemble", "certainty": 0.0}


def test_a_gain_that_may_be_luck_is_not_worth_its_time(values: Case, tmp_path: Path) -> None:
    """Rows whose losses fall by less than their spread explains are no reason to ask three networks; many standard errors never are."""
    pool = values.pool(tmp_path / "o")
    assert Ensemble(certainty=0.0).fuse(pool).role == "ensemble"
    assert Ensemble(certainty=50.0).fuse(pool) == pool.best
    best = pool.outputs(pool.best)
    lucky, better = best.copy(), best + 0.3 * (pool.targets - best)
    worst = int(np.abs(best - pool.targets).argmax())
    lucky[worst] = pool.targets[worst]
    assert not pool.is_worth_it(lucky, 2.0)  # one row alone
    assert pool.is_worth_it(better, 2.0)
    assert not pool.is_worth_it(best, 0.0)


def test_what_is_no_better_is_not_worth_its_time(values: Case, tmp_path: Path) -> None:
    """Of copies of one model, none is added to it; the teacher is handed on as it is."""
    copies = tuple(trial.replace(candidate=values.teacher.candidate, weights=values.teacher.weights) for trial in values.result.trials)
    pool = Case(values.dataset, values.policy, values.result.replace(trials=copies), values.teacher, values.config).pool(tmp_path / "o")
    assert Ensemble().fuse(pool) == values.teacher


def test_a_trial_whose_weights_do_not_fit_is_left_out(values: Case, tmp_path: Path) -> None:
    """It is told, and the others are used."""
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    torn = values.result.trials[0].replace(weights=StoredFile.of(tmp_path / "torn.safetensors"))
    told: list[tuple[str, dict[str, object]]] = []
    result = values.result.replace(trials=(torn, *values.result.trials[1:]))
    found = Case(values.dataset, values.policy, result, values.teacher, values.config)
    pool = found.pool(tmp_path / "o", emit=lambda event, **fields: told.append((event, fields)))
    assert "trial0" not in {row["role"] for row in Ensemble().fuse(pool).members}
    assert [(event, fields["what"]) for event, fields in told] == [("fuse.left_out", "trial0")]


@pytest.mark.parametrize(
    ("argument", "rule"),
    [({"members": 1}, "fusion.members must be a whole number of at least 2"), ({"fraction": 0}, "fusion.fraction must be a number above 0"),
     ({"certainty": -1.0}, "fusion.certainty must be a number of at least 0"), ({"rounds": True}, "fusion.rounds must be a whole number")],
)  # fmt: skip
def test_wrong_arguments_are_named(argument: dict[str, float], rule: str) -> None:
    with pytest.raises(UsageError, match=rule.replace(".", r"\.")):
        Ensemble(**argument)  # type: ignore[arg-type]
