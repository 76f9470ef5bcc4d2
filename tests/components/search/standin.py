"""A small real search: which polynomial or Fourier series fits a noisy curve best on rows it has not seen.

The space has a conditional parameter for each family; the evaluator solves the least squares for real, in milliseconds.
Some evaluators fail in one of the ways that a trial can fail, for the candidates or numbers they say.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts import AugmentationPolicy, Candidate, DatasetVersion, InputField, StoredFile, Trial
from components.errors import UsageError

HERE = __name__
CONFIG: dict[str, Any] = {
    "plugins": ["tests"],
    "space": {"_target_": f"{HERE}.CurveSpace"},
    "strategy": {"_target_": "components.search.strategy.random.RandomStrategy"},
    "optimizer": {"least_squares": {}},
    "training": {},
    "metrics": {"objective": None},
    "search": {"trials": 6, "workers": 1, "rows": None, "epochs": 3, "trial_seconds": None},
    "scheduler": {"_target_": "components.search.scheduler.none.NoScheduler"},
    "evaluator": {"_target_": f"{HERE}.Own", "function": "fit_curve"},
    "runner": {"_target_": "components.search.runner.process.ProcessRunner"},
}
TPE = {"_target_": "components.search.strategy.tpe.TPEStrategy", "startup": 3}


def config(**search: Any) -> dict[str, Any]:
    """CONFIG with other search settings; `strategy` and `space` replace the sections of that name."""
    names = ("strategy", "space", "metrics", "scheduler", "runner", "objective", "constraint", "target", "rounds")
    sections = {name: search.pop(name) for name in names if name in search}
    if isinstance(search.get("evaluator"), dict):
        sections["evaluator"] = search.pop("evaluator")
    if "evaluator" in search:
        sections["evaluator"] = {"_target_": f"{HERE}.Own", "function": search.pop("evaluator").rpartition(".")[2]}
    return {**CONFIG, **sections, "search": {**CONFIG["search"], **search}}


def curve(folder: Path) -> DatasetVersion:
    """400 rows of a noisy sine with a trend."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (400, 1)).astype(np.float32)
    y = (np.sin(4 * x[:, 0]) + 0.5 * x[:, 0] + 0.1 * generator.standard_normal(400)).astype(np.float32)
    files = {}
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", slice(0, 240)), ("validation", slice(240, 320)), ("test", slice(320, 400))):
        for name, array in (("numbers", x), ("target", y)):
            path = folder / f"{split}-{name}.npy"
            np.save(path, array[rows])
            files[f"{split}/{name}"] = StoredFile.of(path)
    return DatasetVersion(
        name="curve", digest="c" * 64, modality="table", task="regression", source={},
        inputs=(InputField(name="numbers", dtype="float32", shape=(1,)),),
        target="y", classes=(), splits={"train": 240, "validation": 80, "test": 80}, files=files,
    )  # fmt: skip


POLICY = AugmentationPolicy(name="none", modality="any", config={})


class CurveSpace:
    """Polynomials of a degree or Fourier series of a number of waves, with ridge regularisation."""

    modality = "table"

    def sample(self, trial: Any, dataset: DatasetVersion) -> dict[str, Any]:
        kind = trial.suggest_categorical("arch.kind", ["polynomial", "fourier"])
        if kind == "polynomial":
            return {"kind": kind, "degree": trial.suggest_int("arch.degree", 0, 9)}
        return {"kind": kind, "waves": trial.suggest_int("arch.waves", 1, 4), "period": trial.suggest_float("arch.period", 0.5, 8.0)}

    def hyperparameters(self, trial: Any, dataset: DatasetVersion, optimizers: Any) -> dict[str, Any]:
        return {"optimizer": next(iter(optimizers)), "ridge": trial.suggest_float("hp.ridge", 1e-6, 1.0, log=True)}


class TwoPoints(CurveSpace):
    """A space of two candidates."""

    def sample(self, trial: Any, dataset: DatasetVersion) -> dict[str, Any]:
        return {"kind": "polynomial", "degree": trial.suggest_categorical("arch.degree", [1, 5])}

    def hyperparameters(self, trial: Any, dataset: DatasetVersion, optimizers: Any) -> dict[str, Any]:
        return {"ridge": 0.01}


class ForPictures(CurveSpace):
    """A space that does not fit tables."""

    modality = "image"


class BrokenSpace(CurveSpace):
    """A space with a bug."""

    def sample(self, trial: Any, dataset: DatasetVersion) -> dict[str, Any]:
        return {"kind": {}["missing"]}


class SuicidalOnce(CurveSpace):
    """Kills its process at the second suggestion: once if there is a file to mark it by, else always."""

    def __init__(self, mark: str | None) -> None:
        self.mark = mark

    def sample(self, trial: Any, dataset: DatasetVersion) -> dict[str, Any]:
        if trial.number == 1 and not (self.mark and Path(self.mark).exists()):
            if self.mark:
                Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(trial, dataset)


def features(architecture: dict[str, Any], x: np.ndarray) -> np.ndarray:
    if architecture["kind"] == "polynomial":
        return x ** np.arange(architecture["degree"] + 1)
    phase = 2 * np.pi * x / architecture["period"] * np.arange(1, architecture["waves"] + 1)
    return np.concatenate([np.ones_like(x), x, np.sin(phase), np.cos(phase)], axis=1)


class Own:
    """An evaluator that calls one of the functions below."""

    offers: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    keeps_weights = False

    def __init__(self, *, function: str) -> None:
        self.function = function

    def evaluate(self, task: Any, scratch: Path, *, emit: Any) -> Trial:
        return globals()[self.function](
            task.dataset, task.policy, task.candidate, task.config, task.number, scratch,
            seconds=task.seconds, rows=task.config["search"].get("rows"), emit=emit,
        )  # fmt: skip


def fit_curve(
    dataset: DatasetVersion, policy: AugmentationPolicy, candidate: Candidate, config: dict[str, Any], number: int, scratch: Path,
    seconds: float | None = None, rows: int | None = None, *, emit: Any,
) -> Trial:  # fmt: skip
    """Fits on the training rows and measures the error on the validation rows."""
    data = {name: np.load(file.path).astype(np.float64) for name, file in dataset.files.items()}
    basis = features(candidate.architecture, data["train/numbers"])
    ridge = candidate.hyperparameters["ridge"] * np.eye(basis.shape[1])
    weights = np.linalg.solve(basis.T @ basis + ridge, basis.T @ data["train/target"])
    error = features(candidate.architecture, data["validation/numbers"]) @ weights - data["validation/target"]
    emit("epoch", epoch=1, epochs=1, value=float(np.sqrt(np.mean(error**2))), seconds=0.0)
    return Trial(
        number=number, candidate=candidate, state="complete", num_parameters=basis.shape[1],
        values={"rmse": float(np.sqrt(np.mean(error**2))), "mae": float(np.abs(error).mean())},
        fidelity={"rows": rows, "seconds": seconds, "seed": config["seed"]},
    )  # fmt: skip


def note(scratch: Path, **fields: Any) -> None:
    """Appends to the study's own list of what was started, which outlives the trial's work folder."""
    with (scratch.parent.parent.parent / "starts.jsonl").open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), **fields}) + "\n")


def starts(folder: Path) -> list[dict[str, Any]]:
    """What `note` wrote."""
    path = folder / "starts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keeps_weights(*args: Any, **kwargs: Any) -> Trial:
    """Leaves a file of its own as weights; every third trial does not."""
    if args[4] % 3 != 2:
        (args[5] / "weights.safetensors").write_text(f"weights of trial {args[4]}")
    return fit_curve(*args, **kwargs)


def slow(*args: Any, **kwargs: Any) -> Trial:
    """Takes 0.2 s and notes its start, to be interrupted."""
    note(args[5], number=args[4])
    time.sleep(0.2)
    return fit_curve(*args, **kwargs)


def ill_fated(*args: Any, **kwargs: Any) -> Trial:
    """Fails in a way of its own for each of the numbers 0 to 6; the others are fine."""
    number = args[4]
    note(args[5], number=number)
    trial = fit_curve(*args, **kwargs)
    if number == 0:
        return trial.replace(values={**trial.values, "rmse": float("nan")})
    if number == 1:
        raise MemoryError("no room for 9 GiB")
    if number == 2:
        raise KeyError("our own mistake")
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 4:
        os.abort()
    if number == 5:
        time.sleep(60)
    if number == 6:
        return trial.replace(state="failed", cause="oom", reason="batch of 512 did not fit", values={})
    return trial


def killed_once(*args: Any, **kwargs: Any) -> Trial:
    """Trial 2's process is killed from outside the first time it runs."""
    folder, number = args[5].parent.parent.parent, args[4]
    first = number not in [row["number"] for row in starts(folder)]
    note(args[5], number=number)
    if number == 2 and first:
        os.kill(os.getpid(), signal.SIGKILL)
    return fit_curve(*args, **kwargs)


def killed_after_the_result(*args: Any, **kwargs: Any) -> Trial:
    """Evaluates, then the process is killed between the result file and the answer."""
    note(args[5], number=args[4])
    import components.search.evaluation as evaluation

    evaluation.shutil.rmtree = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
    return fit_curve(*args, **kwargs)


def always_a_bug(*args: Any, **kwargs: Any) -> Trial:
    raise ZeroDivisionError("division by zero")


def sleeps(*args: Any, **kwargs: Any) -> Trial:
    """Trains for longer than anybody waits."""
    time.sleep(600)
    return fit_curve(*args, **kwargs)


def never_fits(*args: Any, **kwargs: Any) -> Trial:
    raise UsageError("training.ema must lie in 0..1, got 7")


def takes_a_second(*args: Any, **kwargs: Any) -> Trial:
    """Keeps to the limit it is given, up to one second."""
    note(args[5], number=args[4], limit=kwargs["seconds"])
    time.sleep(min(1.0, kwargs["seconds"] or 1.0))
    return fit_curve(*args, **kwargs)


def counts_on_its_folder(*args: Any, **kwargs: Any) -> Trial:
    """Leaves a checkpoint in its work folder, refuses one of another candidate, and is killed at trial 1 the first time."""
    scratch, number, candidate = args[5], args[4], args[2]
    checkpoint = scratch / "checkpoint.json"
    resumed = checkpoint.exists()
    if resumed and json.loads(checkpoint.read_text()) != candidate.to_json():
        raise ValueError("resumed from the checkpoint of another candidate")
    checkpoint.write_text(json.dumps(candidate.to_json()))
    note(scratch, number=number, resumed=resumed)
    if number == 1 and not resumed:
        os.kill(os.getpid(), signal.SIGKILL)
    return fit_curve(*args, **kwargs)


def fills_the_disk(*args: Any, **kwargs: Any) -> Trial:
    """Its checkpoint does not fit: it raises, or with a limit of rows calls it a failure of the candidate."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    try:
        (args[5] / "checkpoint").write_bytes(bytes(20_000))
    except OSError as error:
        if kwargs["rows"] is None:
            raise
        return fit_curve(*args, **kwargs).replace(state="failed", cause="bug", reason=f"OSError: {error}", values={})
    raise AssertionError("the limit did not hold")


def never_ends(*args: Any, **kwargs: Any) -> Trial:
    """Trial 0 is well; the others ignore their limit when they are run for the first time."""
    number = args[4]
    again = number in [row["number"] for row in starts(args[5].parent.parent.parent)]
    note(args[5], number=number, limit=kwargs["seconds"])
    if number > 0 and not again:
        time.sleep(600)
    return fit_curve(*args, **kwargs)


class Descending:
    """An evaluator that trains epoch by epoch: gradient descent on the least squares, resting with its weights on disk."""

    offers = frozenset({"epochs"})
    needs: frozenset[str] = frozenset()
    keeps_weights = False

    def evaluate(self, task: Any, scratch: Path, *, emit: Any) -> Trial:
        data = {name: np.load(file.path).astype(np.float64) for name, file in task.dataset.files.items()}
        basis, check = (features(task.candidate.architecture, data[f"{split}/numbers"]) for split in ("train", "validation"))
        ridge, state = task.candidate.hyperparameters["ridge"], scratch / "state.json"
        kept = json.loads(state.read_text()) if state.exists() else {"epoch": 0, "weights": [0.0] * basis.shape[1]}
        weights, epochs = np.array(kept["weights"]), task.epochs or task.config["search"]["epochs"]
        rate = 1.0 / (np.linalg.norm(basis, 2) ** 2 + ridge)
        for epoch in range(kept["epoch"], epochs):
            note(scratch, number=task.number, epoch=epoch)
            for _ in range(20):
                weights -= rate * (basis.T @ (basis @ weights - data["train/target"]) + ridge * weights)
        state.write_text(json.dumps({"epoch": epochs, "weights": weights.tolist()}))
        error = float(np.sqrt(np.mean((check @ weights - data["validation/target"]) ** 2)))
        return Trial(
            number=task.number, candidate=task.candidate, state="complete", num_parameters=basis.shape[1],
            values={"rmse": error, "mae": error}, fidelity={"epochs": epochs},
        )  # fmt: skip


class KilledOnceAtTheTop(Descending):
    """As above, but the process of the first trial to reach the last rung is killed there twice."""

    def evaluate(self, task: Any, scratch: Path, *, emit: Any) -> Trial:
        marks = scratch.parent.parent.parent / "deaths"
        deaths = marks.read_text() if marks.exists() else ""
        if task.epochs == task.full_epochs and len(deaths) < 2:
            marks.write_text(deaths + ".")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate(task, scratch, emit=emit)


class Believer:
    """Draws at random and believes in the trial with the worst value, so that its word is told from the values'."""

    learns = False
    objectives = "one"
    needs: frozenset[str] = frozenset()

    def sampler(self, seed: int, problem: Any = None) -> Any:
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)

    def recommend(self, problem: Any, told: Any) -> int:
        return int(max((row for row in told if row.values), key=lambda row: row.values[0]).number)
