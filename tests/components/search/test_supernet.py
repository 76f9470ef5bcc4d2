"""Strategies that train a supernet: what they leave, that a kill changes nothing, and what is suggested from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from components import build
from components.artifacts import AugmentationPolicy, Candidate, DatasetVersion
from components.errors import CorruptArtifactError, UsageError
from components.models.cells import OPERATIONS
from components.models.points import Point, Points
from components.search.derivation import DerivedSampler, highest
from components.search.effects import Judgements, effects_of
from components.search.paths import fair_paths
from components.search.problem import Problem, Told
from components.search.strategy.darts import DARTSStrategy
from components.search.strategy.oneshot import OneShotStrategy
from components.search.supernet import Derived, SupernetTask, derived_of, effect_name, save_supernet
from tests.components.models import tiny
from tests.contracts import test_evaluator as evaluator_contract

CELL = {"_target_": "components.models.space.cell.CellSpace", "channels": [4], "cells": [1]}
CONVNET = {
    "_target_": "components.models.space.convnet.ConvNet", "stages": [1], "widths": [4, 8], "depths": [1, 2], "poolings": ["average"],
    "separable_kernels": [3],
}  # fmt: skip
POLICY = AugmentationPolicy(
    name="flip_crop", modality="image", config={"_target_": "components.augmentation.policy.flip_crop.FlipCrop"}
)  # fmt: skip
SHORT = {"batch_size": 32, "views": 2, "candidates": 4}


def strategies() -> dict[str, tuple[Any, dict[str, Any]]]:
    return {
        "gumbel": (DARTSStrategy(epochs=4, warmup=0.3, **SHORT), CELL),
        "softmax": (DARTSStrategy(epochs=2, warmup=0.3, relaxation="softmax", **SHORT), CELL),
        "oneshot": (OneShotStrategy(epochs=4, **SHORT), CELL),
    }


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetVersion:
    return tiny.stripes(tmp_path / "data")


def trained(strategy: Any, space: dict[str, Any], dataset: DatasetVersion, folder: Path, emit: Callable[..., Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"space": space, "search": {"rows": None}}
    task = SupernetTask(dataset=dataset, policy=POLICY, config=config, scratch=folder, seed=0)
    found: Path = strategy.train_supernet(task, emit=emit or (lambda event, **fields: None))
    return found


# ---- training ----


class Kill(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("name", strategies())
def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    name: str, dataset: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is the same, bit for bit, and so is what was derived; architecture weights and momenta included."""
    monkeypatch.setattr("components.search.supernet_training.CHECKPOINT_SECONDS", 0.0)
    strategy, space = strategies()[name]
    whole = trained(strategy, space, dataset, tmp_path / "whole")
    shares: list[float] = []

    def kill(event: str, **fields: Any) -> None:
        shares.append(fields["share"])
        if fields["share"] > 0.5:
            raise Kill

    with pytest.raises(Kill):
        trained(strategy, space, dataset, tmp_path / "killed", kill)
    first_session = shares[-1]
    again: list[float] = []
    resumed = trained(strategy, space, dataset, tmp_path / "killed", lambda event, **fields: again.append(fields["share"]))
    assert again[0] >= 0.4 * first_session, "training began anew"
    assert _weights(resumed) == _weights(whole)
    assert (derived_of(resumed).effects, derived_of(resumed).candidates) == (derived_of(whole).effects, derived_of(whole).candidates)


def _weights(path: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    return {name: array.tobytes() for name, array in load_file(path).items()}


def test_what_is_trained_is_not_trained_again(dataset: DatasetVersion, tmp_path: Path) -> None:
    strategy, space = strategies()["gumbel"]
    path = trained(strategy, space, dataset, tmp_path)
    before = path.stat().st_mtime_ns
    said: list[str] = []
    assert trained(strategy, space, dataset, tmp_path, lambda event, **fields: said.append(event)) == path
    assert not said
    assert path.stat().st_mtime_ns == before


def test_a_limit_in_seconds_is_kept_by_training_less(dataset: DatasetVersion, tmp_path: Path) -> None:
    """A training that would take hours ends, its schedule complete, and derives candidates."""
    strategy = DARTSStrategy(epochs=100_000, **SHORT)
    task = SupernetTask(dataset=dataset, policy=POLICY, config={"space": CELL}, scratch=tmp_path, seed=0, seconds=2.0)
    path = strategy.train_supernet(task, emit=lambda event, **fields: None)
    assert 0 < derived_of(path).evidence["steps"] < 10_000
    assert derived_of(path).candidates


def test_candidates_keep_to_the_guard_against_collapse(dataset: DatasetVersion, tmp_path: Path) -> None:
    """No derived cell has more shortcuts than allowed, and all of them are different."""
    strategy = DARTSStrategy(epochs=2, most_skips=0, **SHORT)
    derived = derived_of(trained(strategy, CELL, dataset, tmp_path))
    assert len(derived.candidates) == SHORT["candidates"]
    assert len({str(candidate) for candidate in derived.candidates}) == SHORT["candidates"]
    assert all("skip_connect" not in candidate.values() for candidate in derived.candidates)
    assert all(set(candidate) == {f"arch.edge{edge}" for edge in range(6)} for candidate in derived.candidates)


def test_what_shows_how_sure_it_is_is_kept(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Steps, loss, the effects' test and, of gradients, the architecture weights: each edge's sum to 1."""
    strategy, space = strategies()["gumbel"]
    evidence = derived_of(trained(strategy, space, dataset, tmp_path)).evidence
    assert {"steps", "seconds", "train_loss", "wald", "freedom", "p_value"} <= set(evidence)
    for shares in evidence["architecture_weights"].values():
        assert set(shares) == set(OPERATIONS)
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)


# ---- effects ----


VALUES = {"a": ["x", "y", "z"], "b": [1, 2]}
TRUE = {"a=x": 0.3, "a=y": 0.0, "a=z": -0.3, "b=1": 0.1, "b=2": -0.1}


def judgements(worth: Callable[[Point, np.ndarray, np.random.Generator], np.ndarray], seed: int = 0, rows: int = 400) -> Judgements:
    """Rows of different difficulty, each seen by a few of the candidates."""
    found, rng = Judgements(), np.random.default_rng(seed)
    for point in fair_paths(lambda trial: [trial.suggest_categorical(n, v) for n, v in VALUES.items()], 60, Random(seed)):
        index = rng.choice(rows, 80, replace=False)
        found.add(point, index, worth(point, index, rng))
    return found


def test_effects_are_found_beneath_easy_and_hard_rows() -> None:
    """What was put in comes out, within four of its own standard errors."""
    easy = np.random.default_rng(7).normal(0, 1.0, 400)

    def worth(point: Point, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return easy[rows] + sum(TRUE[effect_name(n, v)] for n, v in point.params.items()) + rng.normal(0, 0.3, len(rows))

    found = effects_of(judgements(worth))
    assert found.p_value < 1e-6
    assert found.freedom == 3
    for name, effect in TRUE.items():
        assert found.by_value[name] == pytest.approx(effect, abs=4 * found.error + 0.01), name


def test_effects_of_meaningless_labels_are_none() -> None:
    """Rows like some candidates for no reason, always the same ones. In 40 studies at most one claims an effect, where a test
    that took judgements of one row to be independent would claim nearly all."""
    claims = 0
    for seed in range(40):
        taste = np.random.default_rng(1000 + seed).normal(0, 1.0, (400, 5))

        def worth(point: Point, rows: np.ndarray, rng: np.random.Generator, taste: np.ndarray = taste) -> np.ndarray:
            columns = [list(TRUE).index(effect_name(n, v)) for n, v in point.params.items()]
            return taste[rows][:, columns].sum(axis=1)

        claims += any(effects_of(judgements(worth, seed)).by_value.values())
    assert claims <= 1


def test_every_value_is_used_equally_often() -> None:
    """Also where a parameter is only there for some values of another."""

    def program(trial: Any) -> Any:
        kind = trial.suggest_categorical("kind", ["p", "q"])
        return trial.suggest_int("depth", 1, 3) if kind == "p" else trial.suggest_float("share", 0.0, 1.0)

    points = list(fair_paths(program, 12, Random(0)))
    assert [sum(point.params["kind"] == kind for point in points) for kind in "pq"] == [6, 6]
    assert [sum(point.params.get("depth") == depth for point in points) for depth in (1, 2, 3)] == [2, 2, 2]
    assert all(("share" in point.params) == (point.params["kind"] == "q") for point in points)


def test_the_highest_are_those_of_an_exhaustive_search() -> None:
    """Over 15,625 cells, by effects drawn at random."""

    def program(trial: Any) -> Any:
        return tuple(trial.suggest_categorical(f"edge{edge}", OPERATIONS) for edge in range(6))

    rng = Random(3)
    effects = {effect_name(f"edge{edge}", op): rng.gauss(0, 1) for edge in range(6) for op in OPERATIONS}
    score = Derived(effects, ()).score
    found = highest(program, score, 10, key=lambda value: value)
    best = sorted((score(point.params) for point in Points(program).all()), reverse=True)[:10]
    assert [score(point.params) for point in found] == pytest.approx(best)


# ---- suggestions ----


CANDIDATES = ({"arch.a": "y", "arch.b": 2}, {"arch.a": "x", "arch.b": 1})


def program(trial: Any) -> Any:
    architecture = trial.suggest_categorical("arch.a", ["x", "y", "z"]), trial.suggest_categorical("arch.b", [1, 2])
    return architecture, trial.suggest_float("hp.rate", 0.0, 1.0)


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    import torch

    path = tmp_path / "supernet.safetensors"
    effects = {"arch.a=x": 0.5, "arch.a=y": 0.4, "arch.a=z": -0.9, "arch.b=1": 0.0, "arch.b=2": 0.0}
    save_supernet(path, {"weight": torch.zeros(1)}, Derived(effects, CANDIDATES, {}))
    return Problem(points=Points(program), supernet=path)


def suggestions(problem: Problem, count: int) -> Iterator[Told]:
    told: list[Told] = []
    for number in range(count):
        point = DerivedSampler(0, problem).next_point(problem, told, Random(number))
        trial = optuna.trial.create_trial(params=point.params, distributions=point.distributions, value=float(number))
        told.append(Told(number, point, TrialState.COMPLETE, (float(number),), 0.0, {}, trial))
        yield told[-1]


def test_what_was_derived_is_suggested_first_in_its_order(problem: Problem) -> None:
    first, second, *rest = suggestions(problem, 8)
    assert {name: first.point.params[name] for name in CANDIDATES[0]} == CANDIDATES[0]
    assert {name: second.point.params[name] for name in CANDIDATES[1]} == CANDIDATES[1]
    assert len({str(row.point.params) for row in (first, second, *rest)}) == 8


def test_after_them_the_supernet_has_a_say(problem: Problem) -> None:
    """Of changes of the best, those that it holds worth little are rare."""
    poor = sum(row.point.params["arch.a"] == "z" for row in list(suggestions(problem, 30))[2:])
    assert poor <= 3


# ---- the evaluator ----


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The bench of the evaluators' contract, with a supernet in each assignment."""
    folder = tmp_path_factory.mktemp("evaluator")
    dataset = tiny.stripes(folder / "data")
    space = {**CONVNET, "widths": [4, 8, 12, 16]}
    path = trained(OneShotStrategy(epochs=4, **SHORT), space, dataset, folder / "supernet")

    class Bench(evaluator_contract.Bench):
        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            return super().evaluate(*args, **{"supernet": path, **kwargs})

    architecture = build.build(space).points(dataset).draw(Random(0), {"arch.width": 8, "arch.block": "plain"}).value
    return Bench(folder / "work", dataset, space, architecture)


@pytest.mark.parametrize("rule", evaluator_contract.CONTRACT, ids=lambda rule: rule.__name__)
def test_the_evaluator_keeps_its_familys_contract(bench: Any, rule: Any, tmp_path: Path) -> None:
    bench.folder = tmp_path
    rule(bench, evaluator_contract.config_of("supernet"))


def test_the_evaluator_says_what_it_misses(bench: Any) -> None:
    """Without a supernet, with another space's, and with a torn file."""
    evaluator = evaluator_contract.config_of("supernet")
    with pytest.raises(UsageError, match="choose strategy=oneshot or strategy=darts"):
        bench.evaluate(evaluator, "a", supernet=None)
    torn = bench.folder / "torn.safetensors"
    torn.write_bytes(b"torn")
    with pytest.raises(CorruptArtifactError, match="torn"):
        bench.evaluate(evaluator, "b", supernet=torn)


def test_values_are_those_of_the_shared_weights(bench: Any) -> None:
    """Finite, and not a function of the hyper-parameters, which train nothing here."""
    evaluator = evaluator_contract.config_of("supernet")
    candidate = Candidate(space="it", architecture=bench.architecture, hyperparameters={"learning_rate": 9.0})
    one, other = bench.evaluate(evaluator, "a"), bench.evaluate(evaluator, "b", candidate=candidate)
    assert one.values == other.values
    assert 0 <= one.values["accuracy"] <= 1
    assert math.isfinite(one.values["log_loss"])


# ---- mistakes ----


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DARTSStrategy(relaxation="softmin"), "softmax"),
        (lambda: DARTSStrategy(warmup=1), r"strategy\.warmup"),
        (lambda: DARTSStrategy(most_skips=-1), r"strategy\.most_skips"),
        (lambda: OneShotStrategy(views=1), r"strategy\.views"),
        (lambda: OneShotStrategy(by="evolution"), r"strategy\.by must be another strategy"),  # type: ignore[arg-type]
        (lambda: OneShotStrategy(by=DARTSStrategy()), "needs no supernet"),
        (lambda: OneShotStrategy(epochs=0), r"strategy\.epochs"),
        (lambda: OneShotStrategy(holdout=1.0), r"strategy\.holdout"),
        (lambda: DARTSStrategy(learning_rate=0), r"strategy\.learning_rate"),
    ],
)
def test_mistakes_are_said_in_one_sentence(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
