"""What every evaluator must keep, whichever yaml names it; and that evaluators which do not keep it are found out.

Each rule evaluates small candidates on a few rows for real.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from components import build
from components.artifacts import AugmentationPolicy, Candidate, DatasetVersion, Trial
from components.errors import UsageError
from components.models.network import build_network
from components.search.interface import Ancestor, Assignment
from components.search.strategy.oneshot import OneShotStrategy
from components.search.supernet import TRAINED, SupernetTask
from tests.components.models import tiny
from tests.components.training.test_fit import CONVNET, HOW, MLP, OPTIMIZERS, SMALL_CONVNET, SMALL_MLP

CONF = Path(__file__).resolve().parents[2] / "conf" / "evaluator"
MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
BROKEN = "tests.contracts.broken.evaluator"
FULL = 4
Config = dict[str, Any]
Rule = Callable[["Bench", Config], None]


def config_of(name: str) -> Config:
    found: Config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return found


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


@dataclasses.dataclass
class Bench:
    """A data set, a candidate for it, a supernet that holds it, and a fresh folder for each evaluation."""

    folder: Path
    dataset: DatasetVersion
    space: Config
    architecture: Config
    supernet: Path | None = None

    def evaluate(self, evaluator: Config, place: str, *, emit: Any = None, architecture: Config | None = None, **changes: Any) -> Trial:
        """One evaluation in the folder `place`; `changes` are fields of the assignment."""
        found = build.build(evaluator)
        candidate = Candidate(space="it", architecture=architecture or self.architecture, hyperparameters=HOW)
        config = {
            "space": self.space, "optimizer": OPTIMIZERS, "search": {"epochs": FULL}, "seed": 0, "metrics": {"objective": None},
            "training": {"memory_format": "contiguous", "precision": "fp32"}, "evaluator": evaluator,
        }  # fmt: skip
        kind = self.dataset.modality
        task = Assignment(
            dataset=self.dataset, policy=AugmentationPolicy(name="none", modality=kind, config={"_target_": NONE}), candidate=candidate,
            config=config, study="study", number=3, objective=objective_of(found), folder=self.folder,
            supernet=self.supernet,
        )  # fmt: skip
        return found.evaluate(dataclasses.replace(task, **changes), self.folder / place, emit=emit or (lambda event, **fields: None))


SPACE = {**CONVNET, "stages": [2], "widths": [4, 8, 12, 16], "depths": [1, 2], "blocks": ["plain", "residual"], "growths": [2.0],
         "poolings": ["flatten"]}  # fmt: skip
NONE = "components.augmentation.policy.none.Unchanged"


def objective_of(evaluator: Any) -> str:
    """What a study by this evaluator pursues: the first of its own scores, or validation accuracy."""
    return next(iter(getattr(evaluator, "scores", {})), "accuracy")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return tiny.stripes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def supernet(dataset: DatasetVersion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the space's, trained for two epochs."""
    strategy = OneShotStrategy(epochs=2, batch_size=32, views=2, candidates=1)
    policy = AugmentationPolicy(name="none", modality="image", config={"_target_": NONE})
    config = {"space": SPACE, "search": {"rows": None}, "metrics": {"objective": None}, "training": {}, "seed": 0}
    task = SupernetTask(dataset=dataset, policy=policy, config=config, scratch=tmp_path_factory.mktemp("supernet"), seed=0)
    return strategy.train_supernet(task, emit=lambda event, **fields: None)


@pytest.fixture
def bench(tmp_path: Path, dataset: DatasetVersion, supernet: Path) -> Bench:
    return Bench(tmp_path / "work", dataset, SPACE, SMALL_CONVNET, supernet)


# ---- the contract ----


def gives_a_value_for_what_it_was_asked(bench: Bench, evaluator: Config) -> None:
    """A complete record of this trial and this candidate, with a finite objective, and a JSON round trip."""
    found = bench.evaluate(evaluator, "a")
    assert found.state == "complete", found.reason
    assert (found.number, found.candidate.architecture) == (3, bench.architecture)
    assert math.isfinite(found.values[objective_of(build.build(evaluator))]), "no finite objective"
    assert found.num_parameters > 0, "does not say how large the network is"
    assert Trial.from_json(found.to_json()) == found


def gives_the_same_answer_to_the_same_question(bench: Bench, evaluator: Config) -> None:
    """The value is a function of seed, number and candidate, wherever and whenever it is found."""
    first, again = bench.evaluate(evaluator, "a"), bench.evaluate(evaluator, "b")
    assert first.identity == again.identity, "the same question got two answers"


def listens_to_the_candidate(bench: Bench, evaluator: Config) -> None:
    """Two architectures that have little in common get different values, training details apart."""
    objective = objective_of(build.build(evaluator))
    others = [{**bench.architecture, "width": width, "block": block} for width, block in ((4, "plain"), (16, "residual"), (12, "plain"))]
    values = {bench.evaluate(evaluator, f"o{place}", architecture=other).values[objective] for place, other in enumerate(others)}
    values.add(bench.evaluate(evaluator, "a").values[objective])
    assert len(values) > 1, "says the same of every candidate"


def never_reads_the_test_split(bench: Bench, evaluator: Config) -> None:
    """Validation chooses; the test split is not there for a search."""
    files = {name: file for name, file in bench.dataset.files.items() if not name.startswith("test/")}
    blind = dataclasses.replace(bench, dataset=bench.dataset.replace(files=files))
    assert blind.evaluate(evaluator, "a").state == "complete", "cannot do without the test split"


def tells_failures_as_records(bench: Bench, evaluator: Config) -> None:
    """A candidate that cannot be built is a failed trial with its cause, a reason and a traceback, not an exception."""
    crippled = {name: value for name, value in bench.architecture.items() if name != "width"}
    found = bench.evaluate(evaluator, "a", architecture=crippled)
    assert (found.state, found.cause, found.values) == ("failed", "bug", {}), "a failure is not told as one"
    assert "width" in found.reason, "a failure without its reason"
    assert "KeyError" in (bench.folder / "a" / "error.txt").read_text()


def keeps_weights_if_it_says_so(bench: Bench, evaluator: Config) -> None:
    """The weights that were judged lie in the trial's folder and fit the candidate's network; else there are none."""
    found = bench.evaluate(evaluator, "a")
    path = bench.folder / "a" / "weights.safetensors"
    assert path.exists() == build.build(evaluator).keeps_weights, "weights are not kept as it says"
    if path.exists():
        build_network(bench.space, found.candidate, bench.dataset, 0).load_state_dict(load_file(path))


def rests_at_rungs_if_it_says_so(bench: Bench, evaluator: Config) -> None:
    """Trained to a rung and carried on, it comes to what it comes to in one go, and trains no epoch twice."""
    if "epochs" not in build.build(evaluator).offers:
        return
    whole = bench.evaluate(evaluator, "whole", epochs=FULL, full_epochs=FULL)
    epochs: list[int] = []

    def note(event: str, **fields: Any) -> None:
        if event == "epoch":
            epochs.append(fields["epoch"])

    parts = [bench.evaluate(evaluator, "parts", epochs=rung, full_epochs=FULL, emit=note) for rung in (1, 2, FULL)]
    assert [part.fidelity["epochs"] for part in parts] == [1, 2, FULL], "does not rest where it is told"
    assert epochs == [1, 2, 3, 4], f"epochs {epochs} were trained"
    assert parts[-1].identity == whole.identity, "to rest changes what comes out"
    assert all(math.isfinite(part.values["accuracy"]) for part in parts)


def goes_on_after_a_kill(bench: Bench, evaluator: Config) -> None:
    """Stopped at any event and called again on the same folder, it comes to the same."""
    whole = bench.evaluate(evaluator, "whole")
    for cut in (1, 3):
        seen: list[str] = []

        def kill(event: str, cut: int = cut, seen: list[str] = seen, **fields: Any) -> None:
            seen.append(event)
            if len(seen) == cut:
                raise _Cut

        try:
            bench.evaluate(evaluator, f"cut{cut}", emit=kill)
        except _Cut:
            assert bench.evaluate(evaluator, f"cut{cut}").identity == whole.identity, "a kill changes what comes out"


class _Cut(BaseException):
    """Stands for a kill."""


CONTRACT: list[Rule] = [
    gives_a_value_for_what_it_was_asked,
    gives_the_same_answer_to_the_same_question,
    listens_to_the_candidate,
    never_reads_the_test_split,
    tells_failures_as_records,
    keeps_weights_if_it_says_so,
    rests_at_rungs_if_it_says_so,
    goes_on_after_a_kill,
]
ALONE = [name for name in MEMBERS if TRAINED not in build.build(config_of(name)).needs]


def test_family_is_not_empty() -> None:
    """At least train, inherit, zero_cost and supernet, each a yaml beside a module of the same name."""
    assert {"train", "inherit", "zero_cost"} <= set(ALONE) < {"supernet", *MEMBERS} == set(MEMBERS)
    for name in MEMBERS:
        target = config_of(name)["_target_"]
        assert not target.startswith("components.") or target.split(".")[-2] == name


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_member_keeps_the_contract(bench: Bench, name: str, rule: Rule) -> None:
    """Each rule holds for each member."""
    rule(bench, config_of(name))


@pytest.mark.parametrize("name", ALONE)
def test_member_evaluates_tables(tmp_path: Path, name: str) -> None:
    """No evaluator is for one modality, if its space has what it needs."""
    gives_a_value_for_what_it_was_asked(Bench(tmp_path / "work", tiny.table(tmp_path / "data"), MLP, SMALL_MLP), config_of(name))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("Silent", gives_a_value_for_what_it_was_asked),
        ("RollsDice", gives_the_same_answer_to_the_same_question),
        ("Indifferent", listens_to_the_candidate),
        ("Peeks", never_reads_the_test_split),
        ("Optimist", tells_failures_as_records),
        ("Forgetful", keeps_weights_if_it_says_so),
        ("Hasty", rests_at_rungs_if_it_says_so),
        ("BeginsAgain", rests_at_rungs_if_it_says_so),
        ("Restless", rests_at_rungs_if_it_says_so),
        ("Amnesiac", goes_on_after_a_kill),
    ],
)
def test_broken_member_fails_the_contract(bench: Bench, name: str, rule: Rule) -> None:
    """An evaluator that breaks a rule is caught by it."""
    with pytest.raises((AssertionError, KeyError, UsageError)):
        rule(bench, {"_target_": f"{BROKEN}.{name}"})


# ---- what single members promise beside it ----


def test_zero_cost_names_its_scores_where_it_is_asked_for_another(bench: Bench) -> None:
    with pytest.raises(UsageError, match="gives naswot, synflow, num_parameters, macs, no accuracy; set objective=naswot"):
        bench.evaluate(config_of("zero_cost"), "a", objective="accuracy")


@pytest.mark.parametrize(("name", "argument"), [("inherit", {"share": 0}), ("inherit", {"share": 1.5}), ("zero_cost", {"rows": 0})])
def test_wrong_arguments_are_named(name: str, argument: Config) -> None:
    with pytest.raises(UsageError, match=rf"evaluator\.{next(iter(argument))} is"):
        build.build({**config_of(name), **argument})


def parent_of(bench: Bench) -> Ancestor:
    found = bench.evaluate(config_of("inherit"), "parent")
    return Ancestor(number=1, candidate=found.candidate, weights=bench.folder / "parent" / "weights.safetensors")


def test_a_child_is_trained_for_its_part_of_the_epochs(bench: Bench) -> None:
    """A quarter where it begins as its ancestor, more where it has little of it; its record says from whom."""
    ancestor, inherit = parent_of(bench), config_of("inherit")
    twin = bench.evaluate(inherit, "twin", ancestor=ancestor)
    deeper = bench.evaluate(inherit, "deeper", ancestor=ancestor, architecture={**SMALL_CONVNET, "depths": [2, 1]}, full_epochs=20)
    stranger = bench.evaluate(inherit, "stranger", ancestor=ancestor, architecture={**SMALL_CONVNET, "block": "plain"}, full_epochs=20)
    assert twin.fidelity == {"epochs": 1, "rows": 240, "inherited_from": 1, "inherited": 1.0}
    assert 0.5 < deeper.fidelity["inherited"] < 1
    assert 5 < deeper.fidelity["epochs"] < 15 < stranger.fidelity["epochs"] <= 20


def test_a_child_begins_where_its_ancestor_ended(bench: Bench) -> None:
    """Nearly untrained, it is as good as its parent, and told to be the same function."""
    ancestor = parent_of(bench)
    told: list[dict[str, Any]] = []
    still = {**HOW, "learning_rate": 1e-9}
    candidate = Candidate(space="it", architecture={**SMALL_CONVNET, "width": 12, "depths": [2, 2]}, hyperparameters=still)
    found = bench.evaluate(config_of("inherit"), "child", ancestor=ancestor, candidate=candidate,
                           emit=lambda event, **fields: told.append({"event": event, **fields}))  # fmt: skip
    parent = bench.evaluate(config_of("inherit"), "parent")
    assert found.values["accuracy"] == pytest.approx(parent.values["accuracy"], abs=0.05)
    assert told[0]["event"] == "inherited"
    assert told[0]["ancestor"] == 1
    assert told[0]["difference"] < 1e-3


def test_a_child_keeps_its_first_ancestor_when_it_is_carried_on(bench: Bench) -> None:
    """Another trial may be nearer by then; what comes out is what it would have been without it."""
    ancestor, inherit = parent_of(bench), config_of("inherit")
    whole = bench.evaluate(inherit, "whole", ancestor=ancestor, epochs=8, full_epochs=8)
    bench.evaluate(inherit, "child", ancestor=ancestor, epochs=4, full_epochs=8)
    nearer = dataclasses.replace(ancestor, number=2, weights=bench.folder / "gone.safetensors")
    carried_on = bench.evaluate(inherit, "child", ancestor=nearer, epochs=8, full_epochs=8)
    assert carried_on.fidelity["inherited_from"] == 1
    assert carried_on.identity == whole.identity


def test_without_readable_weights_it_is_trained_in_full(bench: Bench) -> None:
    ancestor = parent_of(bench)
    ancestor.weights.write_bytes(ancestor.weights.read_bytes()[:100])
    told: list[str] = []
    found = bench.evaluate(config_of("inherit"), "child", ancestor=ancestor, emit=lambda event, **fields: told.append(str(fields)))
    assert found.fidelity == {"epochs": FULL, "rows": 240}
    assert "cannot be read" in told[0]


def test_inheriting_refuses_folds(bench: Bench) -> None:
    """The ancestor has learned the rows that a fold holds out."""
    config = {"space": CONVNET, "optimizer": OPTIMIZERS, "search": {"epochs": FULL, "folds": 3}, "seed": 0}
    with pytest.raises(UsageError, match=r"search\.folds .* choose evaluator=train or folds=null"):
        bench.evaluate(config_of("inherit"), "a", config=config)


def test_folds_leave_no_weights(bench: Bench) -> None:
    """What a fold leaves was trained on rows that others are judged by."""
    config = {"space": CONVNET, "optimizer": OPTIMIZERS, "search": {"epochs": 1, "folds": 3}, "seed": 0}
    bench.evaluate(config_of("train"), "a", config=config)
    assert not (bench.folder / "a" / "weights.safetensors").exists()
