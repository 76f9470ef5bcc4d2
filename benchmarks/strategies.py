"""Every strategy at equal budget on digits and Fashion-MNIST, plain Optuna TPE + Lightning beside them, as a table and a page.

Equal budget: the same seconds of search on the same workers, a supernet's training included, clocks starting when the
libraries are loaded; or, with --trials, the same number of equally long trials, which a busy machine cannot distort (a
supernet's training then comes on top). Killed and called again it goes on where it was. The winner of each is judged on
the test split with the weights of its trial, or, with --retrain, trained at full length by the same recipe for all.
Strategies that need a supernet search `cell`, all others `convnet`; `random` in both tells the spaces apart.

.venv/bin/python benchmarks/strategies.py --datasets digits --trials 16 --seeds 3          about 40 minutes on two cores
.venv/bin/python benchmarks/strategies.py --datasets fashion-mnist --trials 10 --seeds 3
.venv/bin/python benchmarks/strategies.py --datasets digits --trials 16 --seeds 1 --strategies surrogate,tpe,optuna
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from measure import ROOT, machine
from plain import TITLE as PLAIN
from plain import search as plain_search

from components.artifacts import AugmentationPolicy, Candidate, DatasetVersion, SearchResult
from components.errors import AthanorError
from components.report.strategies import view, write_comparison
from components.store import write_atomically
from components.workspace import Workspace
from flows.config import load

SUPERNETS = ("darts", "oneshot")  # they search the space whose supernet they train
SECONDS_PER_TRIAL = 4.0  # with a budget of time, as many trials are allowed as would fit if each took so long
ROWS = 5_000  # of Fashion-MNIST that a trial is trained on
WORDS = {"digits": ["dataset=digits"], "fashion-mnist": ["dataset=idx", f"search.rows={ROWS}", "search.epochs=4"]}
# Fashion-MNIST's images are dearer than digits: its networks are a third or half as wide.
NARROW = {"fashion-mnist": {"convnet": ["space.widths=[8,12,16]"], "cell": ["space.channels=[8,16]"]}}


def main() -> None:
    options = _arguments()
    documents = []
    for name in options.datasets.split(","):
        budget = {"trials": options.trials} if options.trials else {"seconds": options.seconds}
        document: dict[str, Any] = {
            "dataset": name,
            **budget,
            "retrained": options.retrain,
            "workers": options.workers,
            "settings": [*WORDS[name], *(word for words in NARROW.get(name, {}).values() for word in words)],
            "beside": PLAIN,
            "runs": [],
        }
        _fill(document, name, options)
        documents.append(document)
        _show(document)
    print(write_comparison(options.out / "strategies.html", documents))


def _fill(document: dict[str, Any], name: str, options: argparse.Namespace) -> None:
    """Runs every strategy with every seed; those that an earlier call with the same settings has kept are not run again."""
    path = options.out / f"{name}.json"
    with tempfile.TemporaryDirectory(prefix="athanor-strategies-") as folder:
        contest = Contest(name, Path(folder), options)
        document |= {"digest": contest.dataset.digest, "objective": "accuracy", "direction": "maximize", "machine": machine()}
        kept = _kept(path, document)
        for seed in range(options.seeds):
            for strategy, space in _entries(options.strategies):
                run = kept.get((contest.title(strategy), space, seed)) or contest.run(strategy, space, seed)
                document["runs"].append(run)
                print(json.dumps({k: v for k, v in run.items() if k != "curve"}), flush=True)
                _keep(path, {**document, "runs": list({**kept, **{_key(run): run for run in document["runs"]}}.values())})
        _keep(path, document)


def _kept(path: Path, document: dict[str, Any]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The runs that `path` holds, if they were made with these settings."""
    earlier = json.loads(path.read_text()) if path.exists() else {}
    settings = [name for name in document if name not in ("runs", "machine")]
    return {_key(run): run for run in earlier["runs"]} if earlier and all(earlier.get(n) == document[n] for n in settings) else {}


def _key(run: dict[str, Any]) -> tuple[str, str, int]:
    return run["strategy"], run["space"], run["seed"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--datasets", default="digits,fashion-mnist")
    parser.add_argument("--strategies", default="all", help="names, `optuna` for the plain one; all: every yaml of conf/strategy")
    parser.add_argument("--seconds", type=float, default=60.0, help="of search, for each")
    parser.add_argument("--trials", type=int, help="of each search, in the place of seconds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--retrain", action="store_true", help="train each winner at full length before it is judged")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data"))
    parser.add_argument("--out", type=Path, default=ROOT / ".athanor" / "strategies", help="folder for the page and its figures")
    return parser.parse_args()


def _entries(asked: str) -> list[tuple[str, str]]:
    """(strategy, space) of each search."""
    known = sorted(file.stem for file in (ROOT / "conf" / "strategy").glob("*.yaml"))
    names = ["optuna", *known] if asked == "all" else asked.split(",")
    entries = [(name, "cell" if name in SUPERNETS else "convnet") for name in names]
    return [*entries, ("random", "cell")] if set(names) & set(SUPERNETS) else entries


class Contest:
    """One data set, and the searches of it."""

    def __init__(self, name: str, folder: Path, options: argparse.Namespace) -> None:
        from components.augmentation.augment import augment
        from components.data.version import version
        from components.export.warm import warm
        from components.processes import Worker

        with Worker() as worker:  # the forkserver has loaded torch when its first worker answers: no search pays for it
            worker.call(warm)

        self.folder, self.options, self.narrow = folder, options, NARROW.get(name, {})
        trials = options.trials or int(options.seconds * options.workers / SECONDS_PER_TRIAL)
        self.seconds = None if options.trials else options.seconds
        place = [f"dataset.path={options.data / name}"] if name != "digits" else []
        fixed = [f"search.trials={trials}", f"search.workers={options.workers}", "search.warm_start=0", "training.threads=1"]
        fixed += ["evaluator.keep_weights=true"]
        self.words = [*WORDS[name], *place, *fixed]
        config = load(self.words).values
        self.dataset: DatasetVersion = version(config, Workspace(out=folder / "version"))
        self.policy: AugmentationPolicy = augment(self.dataset, config, Workspace(out=folder / "augment"))

    @staticmethod
    def title(strategy: str) -> str:
        return PLAIN if strategy == "optuna" else strategy

    def run(self, strategy: str, space: str, seed: int) -> dict[str, Any]:
        """One search: what it found, when, and what its winner has on the test split."""
        found: dict[str, Any] = {"strategy": self.title(strategy), "space": space, "seed": seed}
        folder = self.folder / f"{strategy}-{space}-{seed}"
        try:
            if strategy == "optuna":
                config = load([*self.words, "space=convnet", *self.narrow.get(space, ())]).values
                best, weights, more = plain_search(self.dataset, config, folder, self.seconds, self.options, seed)
            else:
                config = load([*self.words, f"strategy={strategy}", f"space={space}", *self.narrow.get(space, ()), f"seed={seed}"]).values
                best, weights, more = self._search(config, folder, seed)
        except AthanorError as error:
            return found | {"trials": 0, "error": str(error), "curve": []}
        return found | more | self._test(best, weights, config, folder, seed)

    def _search(self, config: dict[str, Any], folder: Path, seed: int) -> tuple[Candidate, Path, dict[str, Any]]:
        from components.search.evaluation import WEIGHTS
        from components.search.search import search

        curve: list[tuple[float, float]] = []
        started = time.monotonic()

        def hear(event: str, **fields: Any) -> None:
            if event == "trial.finished" and fields.get("best") is not None:
                spent = round(time.monotonic() - started, 2) if self.seconds else fields["finished"]
                curve.append((spent, fields["best"]))

        work = Workspace(out=folder / "out", scratch=folder / "study", seed=seed, seconds=self.seconds, emit=hear)
        result = search(self.dataset, self.policy, config, work)
        seconds = round(time.monotonic() - started, 1)
        weights = folder / "study" / "trials" / str(result.best_number) / WEIGHTS
        return result.best, weights, {**_counts(result), "seconds": seconds, "best": result.best_trial.values["accuracy"], "curve": curve}

    def _test(self, best: Candidate, weights: Path, config: dict[str, Any], folder: Path, seed: int) -> dict[str, Any]:
        """The winner on the test split."""
        import torch
        from safetensors.torch import load_file

        from components import metrics
        from components.data.arrays import load_target
        from components.models.network import build_network, num_parameters
        from components.training.batches import load_rows
        from components.training.learner import predict
        from components.training.train import train

        torch.set_num_threads(1)
        if self.options.retrain:
            weights = train(self.dataset, self.policy, best, config, Workspace(out=folder / "model", seed=seed)).weights.path
        network = build_network(config["space"], best, self.dataset, seed)
        network.load_state_dict(load_file(weights))
        outputs = predict(network.eval(), self.dataset, load_rows(self.dataset, "test"))
        value = metrics.compute("accuracy", outputs, load_target(self.dataset, "test"))
        return {"test": float(value), "num_parameters": num_parameters(network)}


def _counts(result: SearchResult) -> dict[str, int]:
    return {"trials": len(result.trials), "not_complete": sum(trial.state != "complete" for trial in result.trials)}


def _keep(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(document))


def _show(document: dict[str, Any]) -> None:
    found = view(document)
    assert found is not None
    print(f"\n{found['words']}\n{found['machine']}\n")
    print(f"{'strategy':<32} {'trials':>6} {'validation':>11} {'test':>8}  range")
    for row in found["rows"]:
        told = row["range_words"] if row["test"] is not None else row["why"]
        print(f"{row['name']:<32} {row['trials_words']:>6} {row['best_words']:>11} {row['test_words']:>8}  {told}")
    tests = [row["test"] for row in found["rows"] if row["test"] is not None]
    print(
        f"\nspread between strategies {statistics.pstdev(tests):.4f}, n={found['rows'][0]['seeds']} seeds each\n" if len(tests) > 1 else ""
    )


if __name__ == "__main__":
    main()
