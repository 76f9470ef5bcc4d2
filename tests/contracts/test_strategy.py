"""What every strategy must keep, whichever yaml names it; and that strategies which do not keep it are found out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
import yaml
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import FrozenTrial, TrialState

from components import build
from components.artifacts import DatasetVersion, InputField
from components.errors import UsageError
from components.search.compatibility import needs_of, offers_of
from components.search.problem import PointSampler
from components.search.proposal import Proposer, candidate_of, decision_of, propose, seed_of
from components.search.supernet import MIXTURE, SUPERNET
from tests.components.search import standin

CONF = Path(__file__).resolve().parents[2] / "conf"
MEMBERS = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))
BROKEN = "tests.contracts.broken.strategy"
RANDOM = {"_target_": "components.search.strategy.random.RandomStrategy"}
Config = dict[str, Any]


class CurveSpace(standin.CurveSpace):
    """The stand-in, with a promise of supernets: suggestions are asked for without one."""

    offers = frozenset({SUPERNET, MIXTURE})


class LetterSpace(CurveSpace):
    """Eight letters, and a number that only some of the words have: a change of one place leaves most of a word as it was."""

    def sample(self, trial: Any, dataset: DatasetVersion) -> Config:
        word = [trial.suggest_categorical(f"arch.letter{place}", list("abcd")) for place in range(8)]
        return {"word": word, "accent": trial.suggest_int("arch.accent", 0, 3) if word[0] in "ab" else None}


CURVES: Config = {"_target_": f"{__name__}.CurveSpace"}
LETTERS: Config = {"_target_": f"{__name__}.LetterSpace"}


FEWER: dict[str, Config] = {"gp": {"candidates": 50}}  # what only costs time, in a suite that asks some hundred times


def config_of(name: str, family: str = "strategy") -> Config:
    found: Config = yaml.safe_load((CONF / family / f"{name}.yaml").read_text())
    return {**found, **(FEWER.get(name, {}) if family == "strategy" else {})}


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in space and the broken members are plugins here."""
    monkeypatch.setattr(build, "_plugins", {"tests"})


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetVersion:
    return standin.curve(tmp_path)


def ask(
    history: list[FrozenTrial], dataset: DatasetVersion, strategy: Config, seed: int = 0, space: Config = CURVES, objectives: int = 1
) -> FrozenTrial:
    config = standin.config(strategy=strategy, space=space)
    proposal = propose(history, dataset, config, direction=["minimize"] * objectives, seed=seed)
    assert proposal is not None
    return proposal


def ended(trial: FrozenTrial, value: float | Sequence[float] | None, constraints: Mapping[str, float] | None = None) -> FrozenTrial:
    """The trial as it is in a study once it was told; None for a failure."""
    values = [value] if isinstance(value, float | int) else value
    found = optuna.trial.create_trial(
        state=TrialState.COMPLETE if values is not None else TrialState.FAIL,
        values=values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        constraints=dict(constraints or {}),
    )
    found.number = trial.number
    return found


def error_of(trial: FrozenTrial, best_degree: int = 5) -> float:
    """An objective with its optimum at the polynomials of one degree and a small ridge."""
    architecture = candidate_of(trial).architecture
    away = abs(architecture["degree"] - best_degree) if architecture["kind"] == "polynomial" else 12
    return away + 0.1 * abs(math.log10(trial.params["hp.ridge"]) + 4)


def study(dataset: DatasetVersion, strategy: Config, trials: int, seed: int = 0, space: Config = CURVES) -> list[FrozenTrial]:
    history: list[FrozenTrial] = []
    for _ in range(trials):
        trial = ask(history, dataset, strategy, seed, space)
        history.append(ended(trial, error_of(trial) if space is CURVES else 0.0))
    return history


def words(dataset: DatasetVersion, trials: int) -> list[FrozenTrial]:
    return study(dataset, RANDOM, trials, space=LETTERS)


def misses(trial: FrozenTrial, letter: str, places: Sequence[int] = range(8)) -> float:
    """In how many places a word has another letter."""
    return float(sum(trial.params[f"arch.letter{place}"] != letter for place in places))


# ---- the contract ----


def suggests_something_new_each_time(dataset: DatasetVersion, strategy: Config) -> None:
    """Samplers made one after another, each for its own trial, as after ten resumes: ten distinct suggestions."""
    drawn = {str(_raw(strategy, seed_of(0, number)).params) for number in range(10)}
    assert len(drawn) == 10, f"{10 - len(drawn)} of 10 suggestions repeat another"


def _raw(strategy: Config, seed: int) -> optuna.Trial:
    trial = optuna.create_study(sampler=build.build(strategy).sampler(seed)).ask()
    standin.CurveSpace().hyperparameters(trial, None, ["x"])  # type: ignore[arg-type]
    return trial


def goes_on_after_a_stop(dataset: DatasetVersion, strategy: Config) -> None:
    """A study stopped after 5 suggestions and resumed for 5 in a new process holds 10 distinct ones, and they are those of a
    study that was never stopped: a strategy knows nothing but the trials, whatever it keeps from one to the next."""
    before = study(dataset, RANDOM, 20, seed=7)
    resumed = [*before]
    proposer = Proposer(dataset, standin.config(strategy=strategy, space=CURVES), ["minimize"], 0)
    unstopped = [_as_number(trial, number) for number, trial in enumerate(before)]
    proposer.show(unstopped)
    for _ in range(10):
        fresh, kept = ask(resumed, dataset, strategy), proposer.propose()
        assert kept is not None
        assert fresh.params == kept.params, f"trial {kept.number} is another one in a study that was never stopped"
        resumed.append(ended(fresh, error_of(fresh)))
        unstopped.append(ended(kept, error_of(kept)))
        proposer.show(unstopped[-1:])
    assert len({decision_of(candidate_of(trial)) for trial in resumed[20:]}) == 10, "suggestions repeat after a stop"


def _as_number(trial: FrozenTrial, number: int) -> FrozenTrial:
    found = copy.copy(trial)
    found.number = number
    return found


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
    """A strategy that learns proposes, after two opposite histories of the same trials, two different things, and goes where
    the good ones were. One that does not learn proposes the same."""
    tried = words(dataset, 30)
    after = {letter: [ended(t, misses(t, letter)) for t in tried] for letter in "ad"}
    _listens(dataset, strategy, after, objectives=1)


def pursues_several_objectives_if_it_says_so(dataset: DatasetVersion, strategy: Config) -> None:
    """The same in a study of two objectives, one for each half of a word."""
    if build.build(strategy).objectives == "one":
        return
    tried = words(dataset, 30)
    after = {letter: [ended(t, [misses(t, letter, range(4)), misses(t, letter, range(4, 8))]) for t in tried] for letter in "ad"}
    _listens(dataset, strategy, after, objectives=2)


def _listens(dataset: DatasetVersion, strategy: Config, after: Mapping[str, list[FrozenTrial]], objectives: int) -> None:
    pairs = [[ask(after[letter], dataset, strategy, seed, LETTERS, objectives) for letter in "ad"] for seed in range(8)]
    heard = sum(one.params != other.params for one, other in pairs)
    if not build.build(strategy).learns:
        assert heard == 0, "it does not learn, yet history changes what it suggests"
        return
    assert heard >= 6, f"it learns, yet {8 - heard} of 8 suggestions are the same after opposite histories of {objectives}"
    ahead = sum(misses(a, "d") - misses(a, "a") + misses(d, "a") - misses(d, "d") for a, d in pairs) / 8
    assert ahead > 1, f"suggestions are only {ahead} letters nearer to the trials that were good than to the others"


def keeps_to_constraints(dataset: DatasetVersion, strategy: Config) -> None:
    """One that learns goes where trials were feasible, though the others had the better objective: b in the second half of a
    word helps more than a in its first, and is forbidden."""
    if not build.build(strategy).learns:
        return
    tried = words(dataset, 40)
    told = [ended(t, misses(t, "a", range(4)) + 2 * misses(t, "b", range(4, 8)), {"b": 3.5 - misses(t, "b", range(4, 8))}) for t in tried]
    found = [ask(told, dataset, strategy, seed, LETTERS) for seed in range(12)]
    by_chance, feasible = (sum(misses(t, "b", range(4, 8)) == 4 for t in some) / len(some) for some in (tried, found))
    assert feasible > by_chance, f"{feasible} of the suggestions are feasible, by chance {by_chance}: constraints are not heeded"


def draws_no_parameter_by_fallback(dataset: DatasetVersion, strategy: Config) -> None:
    """On the conditional space of convolutional networks, one that learns decides every parameter itself once it has learned."""
    if not build.build(strategy).learns:
        return
    proposer = Proposer(images(dataset), network_config(strategy), ["minimize"], 0)
    counted = Counting(proposer.strategy)
    proposer.strategy = counted
    rng = Random(0)
    history = [_network_trial(proposer, rng, number) for number in range(30)]
    for _ in range(10):
        proposer.show(history)
        trial = proposer.propose()
        assert trial is not None
        history.append(ended(trial, _network_error(trial.params)))
    assert counted.decided > 0
    assert counted.fallbacks == 0, f"{counted.fallbacks} of {counted.decided} parameters were drawn by fallback"


class Counting:
    """The strategy, with a count of the parameters that its samplers draw on their own."""

    def __init__(self, strategy: Any) -> None:
        self._strategy, self.fallbacks, self.decided = strategy, 0, 0

    def sampler(self, seed: int, problem: Any) -> BaseSampler:
        sampler = self._strategy.sampler(seed, problem)
        independent, relative = sampler.sample_independent, sampler.sample_relative

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.fallbacks += 1
            return independent(*args, **kwargs)

        def decided(*args: Any, **kwargs: Any) -> Any:
            found = relative(*args, **kwargs)
            self.decided += len(found)
            return found

        sampler.sample_independent, sampler.sample_relative = counted, decided
        return sampler


def images(dataset: DatasetVersion) -> DatasetVersion:
    """A record of images to ask spaces about; no image is read."""
    field = InputField(name="image", dtype="uint8", shape=(1, 16, 16))
    return dataset.replace(modality="image", task="classification", inputs=(field,), classes=("a", "b"), splits={"train": 2000})


def network_config(strategy: Config) -> Config:
    """With the space of convolutional networks, or the first other one of images that offers what the strategy needs."""
    needed = needs_of(build.build(strategy))
    for name in ("convnet", "cell"):
        space = config_of(name, "space")
        if needed <= offers_of(build.build(space)):
            optimizers = {found: config_of(found, "optimizer") for found in ("adamw", "sgd")}
            return {**standin.config(strategy=strategy, space=space), "optimizer": optimizers}
    raise AssertionError(f"no space offers {sorted(needed)}")


def _network_trial(proposer: Proposer, rng: Random, number: int) -> FrozenTrial:
    point = proposer.problem.points.draw(rng)
    drawn = optuna.trial.create_trial(value=0.0, params=point.params, distributions=point.distributions)
    drawn.number = number
    return ended(drawn, _network_error(point.params))


def _network_error(params: Mapping[str, Any]) -> float:
    """Some objective with conditional parts."""
    rate = next(value for name, value in params.items() if name.endswith("learning_rate"))
    return abs(math.log10(rate) + 2.5) + params["hp.dropout"] + (params.get("arch.block") != "residual") + len(params) / 30


CONTRACT = [
    suggests_something_new_each_time,
    goes_on_after_a_stop,
    pursues_several_objectives_if_it_says_so,
    keeps_to_constraints,
    draws_no_parameter_by_fallback,
    gives_the_same_answer_to_the_same_question,
    stays_in_the_space,
    goes_on_after_failures,
    listens_to_history_if_it_says_so,
]


def test_family_is_not_empty() -> None:
    """Every strategy of the field is there, each a yaml beside a module of the same name."""
    assert {"random", "grid", "greedy", "evolution", "reinforce", "tpe", "gp", "nsga2"} <= set(MEMBERS)
    for name in MEMBERS:
        target = config_of(name)["_target_"]
        assert not target.startswith("components.") or target.split(".")[-2] == name


@pytest.mark.parametrize(("name", "setting"), [(name, key) for name in MEMBERS for key in config_of(name) if key != "_target_"])
def test_a_setting_of_another_type_is_refused_by_its_key(name: str, setting: str) -> None:
    for value in ("abc", ["a", "b"], {"a": 1}, True, math.nan):
        with pytest.raises(UsageError, match=rf"\bstrategy\.{setting} "):
            build.build({**config_of(name), setting: value})


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_member_keeps_the_contract(dataset: DatasetVersion, name: str, rule: Callable[[DatasetVersion, Config], None]) -> None:
    """Each rule holds for each member."""
    rule(dataset, config_of(name))


@pytest.mark.parametrize(
    ("name", "rule", "why"),
    [
        ("SameSeedStrategy", suggests_something_new_each_time, "repeat"),
        ("DeafStrategy", listens_to_history_if_it_says_so, "opposite histories of 1"),
        ("DeafStrategy", pursues_several_objectives_if_it_says_so, "opposite histories of 2"),
        ("LiveGeneratorStrategy", gives_the_same_answer_to_the_same_question, "two suggestions"),
        ("ForgetfulStrategy", goes_on_after_a_stop, "never stopped"),
        ("FallingBackStrategy", draws_no_parameter_by_fallback, "drawn by fallback"),
        ("GreedyStrategy", keeps_to_constraints, "constraints are not heeded"),
    ],
)
def test_broken_member_fails_the_contract(
    dataset: DatasetVersion, name: str, rule: Callable[[DatasetVersion, Config], None], why: str
) -> None:
    """A strategy that breaks a rule is caught by it."""
    with pytest.raises(AssertionError, match=why):
        rule(dataset, {"_target_": f"{BROKEN}.{name}"})


# ---- Optuna's conformance suite ----


def members_with(fits: Callable[[Any], bool]) -> list[str]:
    return [name for name in MEMBERS if fits(build.build(config_of(name)))]


class Makes:
    """Gives Optuna's test cases a fresh sampler of each member."""

    @pytest.fixture
    def sampler(self, member: str) -> Callable[[], BaseSampler]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        strategy = build.build(config_of(member))
        return lambda: strategy.sampler(0)


@pytest.mark.parametrize("member", [name for name in MEMBERS if name != "grid"])
class TestBasic(Makes, BasicSamplerTestCase):
    """All but the grid, which knows only a few values of a number."""


@pytest.mark.parametrize("member", members_with(lambda strategy: isinstance(strategy.sampler(0), PointSampler)))
class TestRelative(Makes, RelativeSamplerTestCase):
    """Those that decide parameters together."""


@pytest.mark.parametrize("member", members_with(lambda strategy: strategy.objectives == "many"))
class TestMultiObjective(Makes, MultiObjectiveSamplerTestCase):
    """Those that pursue several objectives."""


class OneObjective:
    """Stands beside the members that pursue one objective, of which there may be none."""

    def sampler(self, seed: int) -> BaseSampler:
        sampler = PointSampler(seed)
        sampler.single = True
        return sampler


@pytest.mark.parametrize("member", [None, *members_with(lambda strategy: strategy.objectives == "one")])
class TestSingleOnly(SingleOnlySamplerTestCase):
    """Those that pursue one objective refuse a study of several."""

    @pytest.fixture
    def sampler(self, member: str | None) -> Callable[[], BaseSampler]:
        strategy = build.build(config_of(member)) if member else OneObjective()
        return lambda: strategy.sampler(0)
