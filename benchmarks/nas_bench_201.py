"""Strategies on NAS-Bench-201: the 200-epoch test accuracy of the cell chosen after so many evaluations.

An evaluation looks up a cell's 12-epoch validation accuracy; the chosen cell is the best of them, or the strategy's own
recommendation where it makes one. `most_parameters` is a baseline that evaluates the largest (feasible) cells first.

.venv/bin/python benchmarks/nas_bench_201.py --strategies surrogate,greedy,evolution --seeds 200
.venv/bin/python benchmarks/nas_bench_201.py --strategies surrogate --seeds 200 --proxies --evaluations 30
.venv/bin/python benchmarks/nas_bench_201.py --strategies surrogate,random,most_parameters --most-parameters median
.venv/bin/python benchmarks/nas_bench_201.py --strategies surrogate,greedy --target pixel3 --report pixel3
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import optuna
import yaml
from measure import ROOT, interval, machine
from tables import EDGES, LATENCIES, Cell, CellTable, cell_of, num_parameters, program

from components.build import build
from components.models.points import Point
from components.search.interface import CONSTRAINTS
from components.search.problem import Problem, ranked, told_of
from components.search.proposal import ATTEMPTS, seed_of

LARGEST = "most_parameters"


@dataclass(frozen=True)
class Question:
    """What is looked up at each evaluation, what is reported of the chosen cell, and the bound on a cell's parameters."""

    table: CellTable
    target: str
    report: str
    proxies: bool
    most: float | None
    evaluations: tuple[int, ...]

    @property
    def smaller_is_better(self) -> bool:
        return not self.target.startswith("c10_")


def main() -> None:
    options = arguments()
    table = CellTable(options.data)
    question = Question(table, options.target, options.report, options.proxies, limit(table, options.most_parameters), options.evaluations)
    print(f"NAS-Bench-201, {question.target} looked up, {question.report} of the chosen cell, {len(options.seeds)} seeds; ", end="")
    print(f"proxies {'on' if question.proxies else 'off'}, most parameters of a cell {question.most or 'any'}\n{machine()}")
    print("mean ± standard deviation [95 % interval of the mean]; best possible", f"{best_possible(question):.3f}")
    print(f"{'evaluations':<16}", "".join(f"{count:<32}" for count in question.evaluations), flush=True)
    found = {}
    for name in options.strategies:
        started = time.monotonic()
        rows = [chosen(question, name, seed) for seed in options.seeds]
        found[name] = rows
        print(f"{name:<16}", "  ".join(cells(rows)), f" {time.monotonic() - started:.0f} s", flush=True)
        if options.out:
            options.out.write_text(json.dumps({"evaluations": options.evaluations, "report": question.report, "rows": found}))
    print_differences(options.evaluations, found)


def arguments() -> argparse.Namespace:
    """The command line; the data's folder is taken from ATHANOR_DATA where it is not named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=base / "nas-bench-201", help="folder of the table")
    parser.add_argument(
        "--strategies", type=lambda text: text.split(","), default=[LARGEST, "random", "surrogate"], help="names, by commas"
    )
    parser.add_argument("--seeds", type=seeds_of, default=range(200), help="how many, or FIRST:LAST")
    parser.add_argument("--evaluations", type=lambda text: tuple(map(int, text.split(","))), default=(30, 50, 100, 200, 300))
    parser.add_argument("--proxies", action="store_true", help="strategies may score a cell by its size")
    parser.add_argument("--most-parameters", default=None, help="bound on a cell's parameters: a number, or `median` of the table")
    parser.add_argument("--target", default="c10_val_12ep", help="column to look up; others than accuracies are minimised")
    parser.add_argument("--report", default="c10_test_200ep", help="column to report of the chosen cell")
    parser.add_argument("--out", type=Path, default=None, help="a json file for the figures of each seed")
    options = parser.parse_args()
    if not (options.data / LATENCIES).is_file():
        parser.error(f"no table in {options.data}; name its folder by --data or set ATHANOR_DATA")
    return options


def seeds_of(text: str) -> range:
    first, _, last = text.rpartition(":")
    return range(int(first or 0), int(last))


def limit(table: CellTable, text: str | None) -> float | None:
    return statistics.median(table.column("num_parameters")) if text == "median" else float(text) if text else None


def best_possible(question: Question) -> float:
    values = [value for value, cell in zip(question.table.column(question.report), question.table.cells) if is_feasible(question, cell)]
    return min(values) if question.smaller_is_better else max(values)


def is_feasible(question: Question, cell: Cell) -> bool:
    return question.most is None or num_parameters(cell) <= question.most


def chosen(question: Question, name: str, seed: int) -> list[float]:
    """What is reported of the cell chosen after each of the numbers of evaluations; nan while none was feasible."""
    choices = largest_first(question, seed) if name == LARGEST else search(question, name, seed)
    return [question.table.value(question.report, cell) if cell else math.nan for cell in choices]


def largest_first(question: Question, seed: int) -> list[Cell | None]:
    """The baseline: cells by their size, those of one size in random order, isomorphic ones once."""
    cells = sorted({cell for cell in question.table.representatives.values() if is_feasible(question, cell)})
    Random(seed).shuffle(cells)
    cells.sort(key=num_parameters, reverse=True)
    return [max(cells[:count], key=lambda cell: question.table.value(question.target, cell)) for count in question.evaluations]


def search(question: Question, name: str, seed: int) -> list[Cell | None]:
    """A study of its own, asked as the search asks: one fresh sampler at every suggestion, nothing evaluated twice."""
    strategy = build(yaml.safe_load((ROOT / "conf" / "strategy" / f"{name}.yaml").read_text()))
    problem = question.table.problem(proxies=question.proxies)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize" if question.smaller_is_better else "maximize")
    tried: set[Any] = set()
    choices = []
    for number in range(max(question.evaluations)):
        study, trial = ask(study, strategy, problem, seed, number, tried)
        evaluate(question, study, trial)
        if number + 1 in question.evaluations:
            choices.append(choice(study, strategy, problem, question))
    return choices


def ask(study: optuna.Study, strategy: Any, problem: Problem, seed: int, number: int, tried: set[Any]) -> tuple[optuna.Study, optuna.Trial]:
    """The next trial and the study it belongs to; a cell that was tried is drawn anew, as `components.search.proposal` does."""
    for attempt in range(ATTEMPTS):
        study.sampler = strategy.sampler(seed_of(seed, number, attempt), problem)
        trial = study.ask()
        cell = program(trial)
        key = problem.key(Point(dict(zip(EDGES, cell)), {}))
        if key not in tried or attempt == ATTEMPTS - 1:
            tried.add(key)
            return study, trial
        study = without_last(study)
    raise AssertionError("ATTEMPTS is at least 1")


def without_last(study: optuna.Study) -> optuna.Study:
    shorter = optuna.create_study(direction=study.direction)
    shorter.add_trials(study.get_trials(deepcopy=False)[:-1])
    return shorter


def evaluate(question: Question, study: optuna.Study, trial: optuna.Trial) -> None:
    """Looks the cell up and tells the study; a constraint is told as the share by which it is missed."""
    cell = program(trial)
    if question.most is not None:
        study._storage.set_trial_system_attr(trial._trial_id, CONSTRAINTS, [num_parameters(cell) / question.most - 1.0])
    study.tell(trial, question.table.value(question.target, cell))


def choice(study: optuna.Study, strategy: Any, problem: Problem, question: Question) -> Cell | None:
    """The strategy's own recommendation, else the best feasible cell."""
    told = told_of(study.get_trials(deepcopy=False), [not question.smaller_is_better], problem)
    if hasattr(strategy, "recommend"):
        number = strategy.recommend(problem, told)
        return next((cell_of(row.point) for row in told if row.number == number), None)
    best = next((row for row in ranked(told) if row.violation == 0), None)
    return cell_of(best.point) if best else None


# ---- figures ----


def cells(rows: Sequence[Sequence[float]]) -> list[str]:
    """Mean ± standard deviation [interval] for each number of evaluations."""
    return [f"{statistics.mean(column):.3f} ±{statistics.pstdev(column):.2f} [{low:.3f}, {high:.3f}]"
            for column in zip(*rows) for low, high in [interval(column)]]  # fmt: skip


def print_differences(evaluations: Sequence[int], found: dict[str, list[list[float]]]) -> None:
    """How far the first strategy is ahead of each other one, seed by seed."""
    first, *others = found
    for name in others:
        print(f"\n{first} minus {name}, paired by seed")
        for place, count in enumerate(evaluations):
            gaps = [a[place] - b[place] for a, b in zip(found[first], found[name])]
            low, high = interval(gaps)
            print(f"  after {count:>4}: {statistics.mean(gaps):+.3f} [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    main()
