"""What a strategy itself takes for one suggestion, after 1,000 trials in memory; and what ask and tell take on SQLite.

Timed are the calls that Optuna makes into the sampler, of a fresh sampler at every suggestion that shares its problem with
the others, as in a search (`--plain`: of one sampler that has only the trials to go by, as under an Optuna objective).
The trials before are drawn at random from the space; their values are a made-up function of the parameters.

.venv/bin/python benchmarks/sampler_time.py
.venv/bin/python benchmarks/sampler_time.py --strategies gp --trials 1000 --suggestions 10 --spaces cell
.venv/bin/python benchmarks/sampler_time.py --sqlite
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import optuna
import yaml
from measure import ROOT, machine
from optuna.trial import FrozenTrial, TrialState, create_trial

from components.artifacts import Candidate, DatasetVersion, InputField, Trial
from components.build import build
from components.models.points import Point
from components.search.problem import Problem
from components.search.proposal import CANDIDATE, problem_of, seed_of
from components.search.study import Study

CONF = ROOT / "conf"
INPUTS = (InputField(name="image", dtype="uint8", shape=(1, 28, 28)),)
DATASET = DatasetVersion(
    name="images", digest="0" * 64, modality="image", task="classification", source={}, inputs=INPUTS,
    target="label", classes=tuple("0123456789"), splits={"train": 50_000, "validation": 10_000, "test": 10_000}, files={},
)  # fmt: skip


def main() -> None:
    options = arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{options.suggestions} suggestions after {options.trials} trials, in milliseconds: median, 90 % quantile, CPU mean\n{machine()}")
    for space in options.spaces:
        problem = problem_in(space)
        history = trials(problem, options.trials)
        for name in options.strategies:
            print_times(space, name, strategy_times(name, problem_in(space), history, options.suggestions, plain=options.plain))
        if options.sqlite:
            print_times(space, "ask + tell on SQLite", sqlite_times(problem, history, options.suggestions))


def arguments() -> argparse.Namespace:
    names = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))
    own = [name for name in names if "supernet" not in build(node("strategy", name)).needs]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", type=lambda text: text.split(","), default=own, help="names, by commas")
    parser.add_argument("--spaces", type=lambda text: text.split(","), default=["cell", "convnet"], help="names, by commas")
    parser.add_argument("--trials", type=int, default=1000, help="that were told before")
    parser.add_argument("--suggestions", type=int, default=50, help="that are timed, each told before the next")
    parser.add_argument("--plain", action="store_true", help="one sampler without a problem")
    parser.add_argument("--sqlite", action="store_true", help="also a study's own time to store a suggestion and to tell its value")
    return parser.parse_args()


def node(family: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / family / f"{name}.yaml").read_text())
    return found


def problem_in(space: str) -> Problem:
    """The space's architectures with the hyper-parameters of two optimizers."""
    config = {"optimizer": {name: node("optimizer", name) for name in ("adamw", "sgd")}}
    return problem_of(build(node("space", space)), DATASET, config)


def trials(problem: Problem, count: int) -> list[FrozenTrial]:
    rng = Random(0)
    return [told(problem.points.draw(rng)) for _ in range(count)]


def told(point: Point) -> FrozenTrial:
    return create_trial(params=point.params, distributions=point.distributions, value=made_up(point.params))


def made_up(params: dict[str, Any]) -> float:
    """The sum of an effect of each choice and of a parabola in each number."""
    return sum(abs(math.log10(v) + 2) if isinstance(v, float) and v > 0 else effect(name, v) for name, v in params.items())


def effect(name: str, value: Any) -> float:
    return hashlib.sha256(f"{name}={value}".encode()).digest()[0] / 256


def strategy_times(name: str, problem: Problem, history: list[FrozenTrial], count: int, *, plain: bool) -> list[tuple[float, float]]:
    """Wall-clock and CPU seconds of each suggestion."""
    strategy = build(node("strategy", name))
    study = optuna.create_study()
    study.add_trials(history)
    found, kept = [], strategy.sampler(0)
    for place in range(-2, count):  # the first two fill memos and load libraries
        sampler = kept if plain else strategy.sampler(seed_of(0, place + 2), problem)
        seconds: list[tuple[float, float]] = []
        study.sampler = sampler
        with timed(sampler, seconds):
            trial = study.ask()
            problem.points.program(trial)
        study.tell(trial, made_up(trial.params))
        found += [(sum(wall for wall, _ in seconds), sum(cpu for _, cpu in seconds))] if place >= 0 else []
    return found


@contextmanager
def timed(sampler: Any, seconds: list[tuple[float, float]]) -> Iterator[None]:
    """Notes what each call of the sampler takes."""
    names = ("infer_relative_search_space", "sample_relative", "sample_independent", "before_trial")
    for name in names:
        setattr(sampler, name, stopwatch(getattr(sampler, name), seconds))
    yield
    for name in names:
        delattr(sampler, name)


def stopwatch(call: Callable[..., Any], seconds: list[tuple[float, float]]) -> Callable[..., Any]:
    def measured(*args: Any, **kwargs: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        found = call(*args, **kwargs)
        seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
        return found

    return measured


def sqlite_times(problem: Problem, history: list[FrozenTrial], count: int) -> list[tuple[float, float]]:
    """What storing a suggestion with all of its parameters and telling its value take, on a study of so many trials."""
    rng, found = Random(1), []
    candidate = Candidate(space="any", architecture={}, hyperparameters={})
    with tempfile.TemporaryDirectory(prefix="athanor-benchmark-") as folder, Study(Path(folder), "times", ["minimize"]) as study:
        study._study.add_trials(history)
        for _ in range(count):
            point = problem.points.draw(rng)
            attributes = {CANDIDATE: candidate.to_json()}
            asked = create_trial(state=TrialState.RUNNING, params=point.params, distributions=point.distributions, user_attrs=attributes)
            wall, cpu = time.perf_counter(), time.process_time()
            number = study.add(asked).number
            study.tell(Trial(number=number, candidate=candidate, state="complete"), [made_up(point.params)])
            found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return found


def print_times(space: str, name: str, seconds: list[tuple[float, float]]) -> None:
    walls = sorted(1e3 * wall for wall, _ in seconds)
    figures = (statistics.median(walls), walls[int(0.9 * (len(walls) - 1))], 1e3 * statistics.mean(cpu for _, cpu in seconds))
    print(f"{space:<10}{name:<24}" + "".join(f"{figure:10.2f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
