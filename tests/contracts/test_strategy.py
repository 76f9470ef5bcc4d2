"""What every strategy must keep, whichever yaml names it; and that strategies which do not keep it are found out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.trial import FrozenTrial, TrialState

from components import build
from components.artifacts import DatasetVersion
from components.search.proposal import candidate_of, decision_of, propose, seed_of
from tests.components.search import standin

CONF = Path(__file__).resolve().parents[2] / "conf" / "strategy"
MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
BROKEN = "tests.contracts.broken.strategy"
Config = dict[str, Any]


def config_of(name: str) -> Config:
    found: Config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return found


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in space and the broken members are plugins here."""
    monkeypatch.setattr(build, "_plugins", {"tests"})


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetVersion:
    return standin.curve(tmp_path)


def ask(history: list[FrozenTrial], dataset: DatasetVersion, strategy: Config, seed: int = 0) -> FrozenTrial:
    proposal = propose(history, dataset, standin.config(strategy=strategy), direction="minimize", seed=seed)
    assert proposal is not None
    return proposal


def ended(trial: FrozenTrial, value: float | None) -> FrozenTrial:
    """The trial as it is in a study once it was told; None for a failure."""
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if value is not None else TrialState.FAIL,
        value=value,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
    )


def error_of(trial: FrozenTrial, best_degree: int = 5) -> float:
    """An objective with its optimum at the polynomials of one degree and a small ridge."""
    architecture = candidate_of(trial).architecture
    away = abs(architecture["degree"] - best_degree) if architecture["kind"] == "polynomial" else 12
    return away + 0.1 * abs(math.log10(trial.params["hp.ridge"]) + 4)


def study(
    dataset: DatasetVersion, strategy: Config, trials: int, seed: int = 0, objective: Callable[[FrozenTrial], float | None] = error_of
):
    history: list[FrozenTrial] = []
    for _ in range(trials):
        trial = ask(history, dataset, strategy, seed)
        history.append(ended(trial, objective(trial)))
    return history


# ---- the contract ----


def suggests_something_new_each_time(dataset: DatasetVersion, strategy: Config) -> None:
    """Samplers made one after another, each for its own trial, as after ten resumes: ten distinct suggestions."""
    drawn = {str(_raw(strategy, seed_of(0, number)).params) for number in range(10)}
    assert len(drawn) == 10, f"{10 - len(drawn)} of 10 suggestions repeat another"


def _raw(strategy: Config, seed: int) -> optuna.Trial:
    trial = optuna.create_study(sampler=build.build(strategy).sampler(seed)).ask()
    standin.CurveSpace().hyperparameters(trial, None, ["x"])  # type: ignore[arg-type]
    return trial


def gives_the_same_answer_to_the_same_question(dataset: DatasetVersion, strategy: Config) -> None:
    """A suggestion is a function of seed and history; another seed gives another one."""
    history = study(dataset, strategy, 8)
    first, again, other = ask(history, dataset, strategy), ask(history, dataset, strategy), ask(history, dataset, strategy, seed=1)
    assert first.params == again.params, "the same seed and history gave two suggestions"
    assert first.params != other.params, "another seed gave the same suggestion"


def stays_in_the_space(dataset: DatasetVersion, strategy: Config) -> None:
    """Every parameter lies in its distribution, and conditional ones are there if and only if their condition holds."""
    for trial in study(dataset, strategy, 12):
        for name, value in trial.params.items():
            assert trial.distributions[name]._contains(trial.distributions[name].to_internal_repr(value)), (name, value)
        is_polynomial = trial.params["arch.kind"] == "polynomial"
        assert ("arch.degree" in trial.params) == is_polynomial
        assert ("arch.waves" in trial.params) != is_polynomial


def goes_on_after_failures(dataset: DatasetVersion, strategy: Config) -> None:
    """Failed, running and infinitely bad trials are part of history and stop nobody."""
    history: list[FrozenTrial] = []
    for number in range(12):
        trial = ask(history, dataset, strategy)
        history.append(trial if number % 4 == 3 else ended(trial, [None, math.inf, error_of(trial)][number % 4 % 3]))
    assert len({decision_of(candidate_of(trial)) for trial in history}) == 12


def listens_to_history_if_it_says_so(dataset: DatasetVersion, strategy: Config) -> None:
    """A strategy that learns proposes, after two opposite histories of the same trials, two different things; over seeds
    it goes where the good ones were. One that does not learn proposes the same."""
    tried = study(dataset, {"_target_": "components.search.strategy.random.RandomStrategy"}, 30)
    low, high = ([ended(trial, error_of(trial, degree)) for trial in tried] for degree in (1, 8))
    pairs = [(ask(low, dataset, strategy, seed), ask(high, dataset, strategy, seed)) for seed in range(8)]
    heard = sum(after_low.params != after_high.params for after_low, after_high in pairs)
    if not build.build(strategy).learns:
        assert heard == 0, "it does not learn, yet history changes what it suggests"
        return
    assert heard >= 6, f"it says that it learns, yet {8 - heard} of 8 suggestions are the same after opposite histories"
    better = sum(
        error_of(after_low, 1) + error_of(after_high, 8) < error_of(after_low, 8) + error_of(after_high, 1)
        for after_low, after_high in pairs
    )
    assert better >= 5, f"only {better} of 8 suggestions went where the good trials were"


CONTRACT = [
    suggests_something_new_each_time,
    gives_the_same_answer_to_the_same_question,
    stays_in_the_space,
    goes_on_after_failures,
    listens_to_history_if_it_says_so,
]


def test_family_is_not_empty() -> None:
    """Random and TPE are there, each a yaml beside a module of the same name."""
    assert {"random", "tpe"} <= set(MEMBERS)
    for name in MEMBERS:
        target = config_of(name)["_target_"]
        assert not target.startswith("components.") or target.split(".")[-2] == name


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_member_keeps_the_contract(dataset: DatasetVersion, name: str, rule: Callable[[DatasetVersion, Config], None]) -> None:
    """Each rule holds for each member."""
    rule(dataset, config_of(name))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("SameSeedStrategy", suggests_something_new_each_time),
        ("DeafStrategy", listens_to_history_if_it_says_so),
        ("LiveGeneratorStrategy", gives_the_same_answer_to_the_same_question),
    ],
)
def test_broken_member_fails_the_contract(dataset: DatasetVersion, name: str, rule: Callable[[DatasetVersion, Config], None]) -> None:
    """A strategy that breaks a rule is caught by it."""
    with pytest.raises(AssertionError, match=r"repeat|opposite histories|two suggestions"):
        rule(dataset, {"_target_": f"{BROKEN}.{name}"})


class TestOptunasOwnSuite(BasicSamplerTestCase):
    """Optuna's conformance suite for samplers, on ours."""

    @pytest.fixture(params=MEMBERS)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        strategy = build.build(config_of(request.param))
        return lambda: strategy.sampler(0)
