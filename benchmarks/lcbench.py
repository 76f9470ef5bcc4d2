"""YAHPO LCBench: our strategies and schedulers against Optuna's TPE + Hyperband, at the same number of epochs.

.venv/bin/python benchmarks/lcbench.py --strategies surrogate,random --schedulers asha,none --seeds 10

A surrogate network (Pfisterer et al., "YAHPO Gym", AutoML 2022; data of Zimmer et al., "Auto-PyTorch Tabular") gives the
validation accuracy of 34 tasks after 1 to 52 epochs for 7 hyper-parameters. The search loop is ours with one worker: the
scheduler carries a resting trial on (only the further epochs count) or the strategy proposes a new one. Both sides are
judged alike: by the best of their trials that were trained to the end, and by the best of all epochs of all trials.

For each task: regret is the best accuracy known less the best found, averaged over seeds. The ratio is that of the
epochs in which the two sides first have the lowest regret that both reach. The interval is a bootstrap over the seeds. A
seed of the baseline takes about a minute of an undisturbed core, and is then kept in `--cache`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: small matrices, many threads wait for each other

import numpy as np
import optuna
import yaml
from measure import ROOT, machine
from optuna.trial import FrozenTrial, TrialState

from components.build import build
from components.models.interface import Suggest
from components.models.points import Points
from components.search.problem import Problem
from components.search.proposal import seed_of
from components.search.shown import Shown
from components.search.standings import Mark, standings_of

FULL = 52  # epochs of a full training
JUDGES = ("full trainings", "any epoch")
SHARES = (0.25, 0.5, 1.0)  # of the budget, at which the two sides are compared


def program(trial: Suggest) -> dict[str, float]:
    """The seven hyper-parameters of config_space.json, with its ranges."""
    return {
        "batch_size": trial.suggest_int("batch_size", 16, 512, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 0.1, log=True),
        "momentum": trial.suggest_float("momentum", 0.1, 0.99),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 0.1),
        "num_layers": trial.suggest_int("num_layers", 1, 5),
        "max_units": trial.suggest_int("max_units", 64, 1024, log=True),
        "max_dropout": trial.suggest_float("max_dropout", 0.0, 1.0),
    }  # the order in which the network takes them, after the epoch


@dataclass
class Tasks:
    """The surrogate network: validation accuracy in percent, by task, hyper-parameters and epoch."""

    folder: Path
    curves: dict[tuple[Any, ...], np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._network = onnxruntime.InferenceSession(self.folder / "model.onnx", options)
        self._codes = json.loads((self.folder / "encoding.json").read_text())["OpenML_task_id"]
        spaces = json.loads((self.folder / "config_space.json").read_text())["hyperparameters"]
        self.names: list[str] = next(p["choices"] for p in spaces if p["name"] == "OpenML_task_id")

    def curve(self, task: str, params: dict[str, float]) -> np.ndarray:
        """Accuracy after each epoch [52]."""
        key = (task, *params.values())
        if key not in self.curves:
            rows = np.tile(np.array([0.0, *params.values()], np.float32), (FULL, 1))
            rows[:, 0] = np.arange(1, FULL + 1)
            self.curves[key] = self.accuracies(task, rows)
        return self.curves[key]

    def accuracies(self, task: str, rows: np.ndarray) -> np.ndarray:
        """Accuracy for rows of epoch and hyper-parameters [N, 8]."""
        codes = np.full((len(rows), 1), self._codes[task], np.int32)
        found: np.ndarray = self._network.run(None, {"x_cat": codes, "x_cont": rows})[0][:, 1]
        return np.clip(found, 0.0, 100.0)


Run = Callable[[Tasks, str, int, int], np.ndarray]


class Found:
    """What a search has found after each epoch it spent [2, budget + 1]: the best accuracy of a full training, and of any
    epoch of any training; 0 before the first."""

    def __init__(self, budget: int) -> None:
        self.best, self.spent, self.budget = np.zeros((2, budget + 1), np.float32), 0, budget

    def train(self, curve: np.ndarray, start: int, end: int) -> bool:
        """Spends the epochs after `start` until `end`; False, and nothing found, if there are not so many left."""
        self.spent += end - start
        if self.spent > self.budget:
            return False
        if end == FULL:
            self._raise(0, curve[-1])
        self._raise(1, curve[start:end].max())
        return True

    def _raise(self, row: int, accuracy: float) -> None:
        self.best[row, self.spent :] = np.maximum(self.best[row, self.spent :], accuracy)


def optunas(tasks: Tasks, task: str, seed: int, budget: int) -> np.ndarray:
    """TPE + Hyperband as Optuna has them. Its pruner only decides at powers of 3: only these epochs are reported."""
    found = Found(budget)
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=FULL, reduction_factor=3)
    study = optuna.create_study(
        study_name=f"{task}-{seed}", direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner
    )  # its brackets are drawn from the study's name
    while found.spent < budget:
        trial = study.ask()
        curve = tasks.curve(task, program(trial))
        trained = 0
        for epochs in (1, 3, 9, 27, FULL):
            if not found.train(curve, trained, epochs):
                return found.best
            trained = epochs
            trial.report(float(curve[epochs - 1]), epochs)
            if epochs < FULL and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, float(curve[-1]))
    return found.best


def ours(strategy: Any, scheduler: Any) -> Run:
    """Our search loop with one worker, in memory."""

    def run(tasks: Tasks, task: str, seed: int, budget: int) -> np.ndarray:
        return _Loop(tasks, task, strategy, scheduler, seed, budget).run()

    return run


class _Loop:
    def __init__(self, tasks: Tasks, task: str, strategy: Any, scheduler: Any, seed: int, budget: int) -> None:
        self.tasks, self.task, self.strategy, self.scheduler, self.seed = tasks, task, strategy, scheduler, seed
        self.found = Found(budget)
        self.rungs = scheduler.rungs(FULL)
        self.storage = Shown()
        self.study = optuna.create_study(storage=self.storage, direction="maximize")
        self.problem = Problem(points=Points(program))
        self.trials: list[FrozenTrial] = []
        self.curves: list[np.ndarray] = []
        self.marks: dict[int, dict[int, Mark]] = {}

    def run(self) -> np.ndarray:
        while self.found.spent < self.found.budget:
            number = self.scheduler.next(self.rungs, standings_of(self.marks))
            if number is None:
                number = self.propose()
                place, trained = self.scheduler.first_rung(number, self.rungs), 0
            else:
                place = max(self.marks[number]) + 1
                trained = self.rungs[place - 1]
            if self.found.train(self.curves[number], trained, self.rungs[place]):
                self.tell(number, place)
        return self.found.best

    def propose(self) -> int:
        self.study.sampler = self.strategy.sampler(seed_of(self.seed, len(self.trials)), self.problem)
        trial = self.study.ask()
        self.curves.append(self.tasks.curve(self.task, program(trial)))
        self.trials.append(self.study.get_trials(deepcopy=False)[-1])
        self.marks[trial.number] = {}
        return trial.number

    def tell(self, number: int, place: int) -> None:
        """Shows a trial as the search does: pruned where it rests, complete at the end."""
        epochs = self.rungs[place]
        value = float(self.curves[number][epochs - 1])
        trial = copy(self.trials[number])
        trial.intermediate_values = {**trial.intermediate_values, epochs: value}
        trial.state = TrialState.COMPLETE if epochs == FULL else TrialState.PRUNED
        trial.values = [value] if epochs == FULL else None
        self.trials[number] = trial
        self.marks[number][place] = Mark((-value,))
        self.storage.show(self.study._study_id, [trial])


def best_known(tasks: Tasks, task: str, num_draws: int = 20_000, rounds: int = 40) -> tuple[float, float]:
    """The highest accuracy that a random and then a narrowing local search find, and the median of random draws."""
    rng = np.random.default_rng(0)
    low, high = np.array([math.log(16), math.log(1e-4), 0.1, 1e-5, 1, math.log(64), 0.0]), np.array(
        [math.log(512), math.log(0.1), 0.99, 0.1, 5, math.log(1024), 1.0]
    )  # fmt: skip

    def rated(shares: np.ndarray) -> np.ndarray:
        rows = low + shares * (high - low)
        rows[:, [0, 1, 5]] = np.exp(rows[:, [0, 1, 5]])
        rows[:, [0, 4, 5]] = np.round(rows[:, [0, 4, 5]])
        return tasks.accuracies(task, np.column_stack([np.full(len(rows), FULL), rows]).astype(np.float32))

    shares = rng.random((num_draws, 7))
    values = rated(shares)
    median = float(np.median(values))
    for number in range(rounds):
        best = shares[np.argsort(-values)[:20]]
        shares = np.clip(np.repeat(best, 50, 0) + rng.normal(0, 0.3 * 0.9**number, (1000, 7)) * (rng.random((1000, 7)) < 0.5), 0, 1)
        shares[:20] = best
        values = rated(shares)
    return float(values.max()), median


# ---- comparison ----


def ratio(baseline: np.ndarray, method: np.ndarray) -> float:
    """How many times fewer epochs `method` needs than `baseline` for the lowest regret that both reach.

    Both are the mean regret after each epoch [budget + 1].
    """
    common = max(baseline[-1], method[-1])
    needed, theirs = (max(1, int(np.argmax(regret <= common))) for regret in (method, baseline))
    return theirs / needed


def ratios(baseline: np.ndarray, method: np.ndarray, best: np.ndarray) -> np.ndarray:
    """One ratio a task, from the best accuracies [tasks, seeds, budget + 1]."""
    worse, regret = (best[:, None] - found.mean(1) for found in (baseline, method))
    return np.array([ratio(a, b) for a, b in zip(worse, regret)])


def interval(baseline: np.ndarray, method: np.ndarray, best: np.ndarray, resamples: int = 200) -> tuple[float, float]:
    """The middle 95 % of the median ratio when the seeds are drawn again."""
    rng = np.random.default_rng(0)
    seeds = range(baseline.shape[1])
    found = []
    for _ in range(resamples):
        one, other = (rng.choice(seeds, len(seeds)) for _ in range(2))
        found.append(np.median(ratios(baseline[:, one], method[:, other], best)))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def report(name: str, judge: str, baseline: np.ndarray, method: np.ndarray, best: np.ndarray, median: np.ndarray) -> None:
    """A line for each share of the budget."""
    for share in SHARES:
        end = int(share * (baseline.shape[2] - 1))
        a, b = baseline[:, :, : end + 1], method[:, :, : end + 1]
        found = ratios(a, b, best)
        ahead = b[:, :, -1].mean(1) > a[:, :, -1].mean(1)
        low, high = interval(a, b, best)
        left = [((best - rows[:, :, -1].mean(1)) / (best - median)).mean() for rows in (a, b)]
        print(
            f"| {name} | {judge} | {end} | {np.median(found):.2f} ({low:.2f} to {high:.2f}) | {100 * ahead.mean():.0f} % "
            f"| {left[1]:.4f} | {left[0]:.4f} |", flush=True
        )  # fmt: skip


def gathered(tasks: Tasks, run: Run, names: Sequence[str], seed: int, budget: int) -> np.ndarray:
    """The best accuracies of a method for one seed [tasks, 2, budget + 1]."""
    found = []
    for name in names:
        tasks.curves.clear()
        found.append(run(tasks, name, seed, budget))
    return np.array(found)


def kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What `make` gives, from the file where an earlier run has left it."""
    if path.exists():
        found: np.ndarray = np.load(path)
        return found
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, found)
    return found


def member(family: str, name: str) -> Any:
    return build(yaml.safe_load((ROOT / "conf" / family / f"{name}.yaml").read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=base / "yahpo-lcbench")
    parser.add_argument("--strategies", type=lambda text: text.split(","), default=["surrogate"], help="names, by commas")
    parser.add_argument("--schedulers", type=lambda text: text.split(","), default=["asha"], help="names, by commas")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=2080, help="of each search; 52 are one full training")
    parser.add_argument("--tasks", type=int, default=34, help="the first so many")
    parser.add_argument("--cache", type=Path, default=ROOT / ".athanor" / "benchmarks" / "lcbench", help="of the baseline's runs")
    chosen = parser.parse_args()
    if not (chosen.data / "lcbench" / "model.onnx").is_file():
        parser.error(f"no surrogate in {chosen.data}; name its folder by --data or set ATHANOR_DATA")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    compare(chosen, Tasks(chosen.data / "lcbench"))


def compare(chosen: argparse.Namespace, tasks: Tasks) -> None:
    """Prints a table with three lines for each strategy, scheduler and way to judge."""
    names, seeds = tasks.names[: chosen.tasks], range(chosen.seeds)
    known = kept(chosen.cache / f"best-{len(names)}.npy", lambda: np.array([best_known(tasks, name) for name in names]))
    stem = chosen.cache / f"tpe-hyperband-optuna{optuna.__version__}-{len(names)}-{chosen.epochs}"
    baseline = [kept(Path(f"{stem}-{seed}.npy"), partial(gathered, tasks, optunas, names, seed, chosen.epochs)) for seed in seeds]
    print(f"LCBench, {len(names)} tasks, {chosen.seeds} seeds\n{machine()}\n")
    print("| method | judged by | epochs | times fewer epochs, median (95 %) | tasks ahead | regret, normalised | of TPE + Hyperband |")
    print("|---" * 7 + "|")
    for strategy, scheduler in itertools.product(chosen.strategies, chosen.schedulers):
        started = time.monotonic()
        run = ours(member("strategy", strategy), member("scheduler", scheduler))
        method = [gathered(tasks, run, names, seed, chosen.epochs) for seed in seeds]
        seconds = (time.monotonic() - started) / len(names) / len(seeds)
        for place, judge in enumerate(JUDGES):
            sides = [np.stack([rows[:, place] for rows in side], axis=1) for side in (baseline, method)]
            best = np.maximum(known[:, 0], np.maximum(*(side.max((1, 2)) for side in sides)))
            report(f"{strategy} + {scheduler}", judge, sides[0], sides[1], best, known[:, 1])
        print(f"({strategy} + {scheduler}: {seconds:.1f} s a search)", flush=True)


if __name__ == "__main__":
    main()
