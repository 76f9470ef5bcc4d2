"""Runs to report on: records with real numbers, from small scikit-learn networks on digits and diabetes.

What the pipeline would have measured elsewhere (latency, parity) is written by hand and says nothing about Athanor.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components import metrics
from components.artifacts import (
    AugmentationPolicy,
    Candidate,
    CheckResult,
    Column,
    DatasetVersion,
    Decision,
    Deployable,
    Estimate,
    EvaluationReport,
    ExportedModel,
    GateResult,
    InputField,
    ModelVersion,
    QualityReport,
    SearchResult,
    StoredFile,
    TrainedModel,
    Trial,
    digest_of,
)
from components.evaluation.metrics.standard import StandardMetrics
from components.report import pictures
from components.search.ranking import chosen_of, front_of

EPOCHS = 5
RUNGS = (1, 2, 6)
MOST_PARAMETERS = 4000
CONFIG = {
    "dataset": {"_target_": "components.data.dataset.digits.Digits"},
    "space": {"_target_": "components.models.space.convnet.ConvNet", "max_depth": 3},
    "search": {"trials": 14, "workers": "auto"},
    "selection": {"tolerance": 0.005},
    "seed": 0,
    "budget": "80s",
    "model": None,
}


@dataclass
class ReportedRun:
    """What `write_report` takes, by keyword."""

    run: dict[str, Any]
    records: dict[str, Any]
    config: dict[str, Any] = field(default_factory=lambda: dict(CONFIG))
    events: list[dict[str, Any]] = field(default_factory=list)

    def keywords(self) -> dict[str, Any]:
        return {"run": self.run, "records": self.records, "config": self.config, "events": self.events}


def digits_run(folder: Path) -> ReportedRun:
    """A finished run on scikit-learn's digits, promoted."""
    dataset, arrays = _digits(folder)
    search, network = _search(arrays)
    report = _evaluation(folder, dataset, arrays, search)
    records = {
        "version": dataset,
        "validate": _quality(dataset),
        "augment": _policy(folder, arrays["train"][0], dataset),
        "search": search,
        "train": network,
        "distill": _student(folder, network, dataset),
        "export": tuple(d.model for d in report.deployables if d.model.precision == "fp32"),
        "quantize": tuple(d.model for d in report.deployables if d.model.precision == "int8"),
        "evaluate": report,
        "register": _version(report),
        "promote": _decision(report),
    }
    return ReportedRun(
        run=_run("digits"), records=records, events=[{"time": 1.0, "event": "run.started"}, {"time": 2.0, "event": "run.started"}]
    )


def table_run(folder: Path) -> ReportedRun:
    """A finished regression on scikit-learn's diabetes table, kept out by a better champion."""
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import RidgeCV

    data = load_diabetes(scaled=False)
    rows, target = data.data.astype(np.float32), data.target.astype(np.float32)
    rows[5, 2] = np.nan
    split = {"train": slice(0, 300), "validation": slice(300, 350), "test": slice(350, None)}
    columns = tuple(_number(name, rows[split["train"], i]) for i, name in enumerate(data.feature_names))
    files = {}
    for name, part in split.items():
        files[f"{name}/numbers"] = _stored(folder / f"diabetes-{name}-numbers.npy", rows[part])
        files[f"{name}/target"] = _stored(folder / f"diabetes-{name}-target.npy", target[part])
    dataset = DatasetVersion(
        name="diabetes",
        digest=digest_of("diabetes"),
        modality="table",
        task="regression",
        target="progression",
        classes=(),
        inputs=(InputField(name="numbers", dtype="float32", shape=(10,), columns=columns),),
        splits={"train": 300, "validation": 50, "test": 92},
        files=files,
        source={"path": "diabetes.csv"},
        target_mean=float(target[:300].mean()),
        target_std=float(target[:300].std()),
        notes=("column id is an identifier and was dropped",),
    )
    model = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(np.nan_to_num(rows[split["train"]]), target[split["train"]])
    values = model.predict(np.nan_to_num(rows[split["test"]])).astype(np.float32)
    truth = target[split["test"]]
    exported = _exported(folder, "teacher", "fp32", dataset, b"ridge" * 900)
    estimates = {name: _estimate(name, values, truth) for name in metrics.names("regression")}
    report = EvaluationReport(
        dataset=dataset,
        objective="rmse",
        direction="minimize",
        chosen="teacher-fp32",
        choice="the only model",
        deployables=(Deployable(model=exported, metrics=estimates, size_kb=4.4, latency_ms=0.021, latency_p95_ms=0.034),),
        test=estimates,
        baseline={"rmse": float(truth.std()), "mae": float(np.abs(truth - truth.mean()).mean()), "r2": 0.0},
        predictions=_stored(folder / "values.npy", values),
        targets=_stored(folder / "truth.npy", truth),
    )
    decision = Decision(
        model="diabetes",
        version=4,
        promoted=False,
        champion=3,
        previous=2,
        gates=(
            GateResult(
                name="beats_champion",
                passed=False,
                rule="better, or not worse by more than 0.5 % and 20 % smaller or faster",
                words="RMSE is 1.9 above the champion's",
            ),
        ),
        words="version 4 is worse than champion 3 on the same test split",
    )
    records = {"version": dataset, "evaluate": report, "register": _version(report).replace(version=4), "promote": decision}
    return ReportedRun(run=_run("diabetes"), records=records)


def halving_run(folder: Path) -> ReportedRun:
    """A search for accuracy and size under a limit of parameters: twenty small networks on digits, of which the better
    half went on after one epoch and the better half of those after two; the others are pruned."""
    dataset, arrays = _digits(folder)
    draw = np.random.default_rng(11)
    candidates = [_small_candidate(draw) for _ in range(20)]
    rungs: dict[int, dict[int, float]] = {number: {} for number in range(20)}
    values: dict[int, dict[str, float]] = {}
    running = list(rungs)
    for epochs in RUNGS:
        for number in running:
            history, _, parameters = _fit(candidates[number], arrays, epochs)
            rungs[number][epochs] = history[-1]["accuracy"]
            values[number] = {key: history[-1][key] for key in ("accuracy", "log_loss")} | _costs_of(parameters)
        running = sorted(running, key=lambda n: -rungs[n][epochs])[: len(running) // 2] if epochs != RUNGS[-1] else running
    trials = tuple(_halved(number, candidates[number], values[number], rungs[number]) for number in range(20))
    objectives, directions = ("accuracy", "size_kb"), ("maximize", "minimize")
    front = front_of(trials, objectives, directions)
    result = SearchResult(
        study="study-halving", objective="accuracy", direction="maximize", trials=trials, objectives=objectives, directions=directions,
        front=tuple(trial.number for trial in front), best_number=chosen_of(front, objectives, directions).number,
    )  # fmt: skip
    config = {
        **CONFIG, "constraint": {"num_parameters": MOST_PARAMETERS, "macs": None}, "objective": list(objectives),
        "strategy": {"_target_": "components.search.strategy.random.RandomStrategy"},
        "scheduler": {"_target_": "components.search.scheduler.asha.ASHA"},
    }  # fmt: skip
    return ReportedRun(run=_run("digits"), records={"version": dataset, "search": result}, config=config)


def _small_candidate(draw: np.random.Generator) -> Candidate:
    depth = int(draw.integers(1, 3))
    architecture = {"kind": "plain", "widths": [int(draw.choice([4, 8, 16, 32, 96])) for _ in range(depth)]}
    chosen = {
        "optimizer": str(draw.choice(["adamw", "sgd"])), "learning_rate": float(10 ** draw.uniform(-4, -1.5)),
        "batch_size": int(draw.choice([32, 64, 128])), "weight_decay": float(10 ** draw.uniform(-6, -2)),
    }  # fmt: skip
    return Candidate(space="mlp", architecture=architecture, hyperparameters=chosen)


def _costs_of(parameters: int) -> dict[str, float]:
    return {"num_parameters": float(parameters), "size_kb": parameters * 4 / 1024}


def _halved(number: int, candidate: Candidate, values: dict[str, float], rungs: dict[int, float]) -> Trial:
    reached = max(rungs)
    is_over = reached < RUNGS[-1]
    return Trial(
        number=number, candidate=candidate, state="pruned" if is_over else "complete", values=values, fidelity={"epochs": reached},
        reason=f"not carried on past epoch {reached} of {RUNGS[-1]}" if is_over else "", num_parameters=int(values["num_parameters"]),
        constraints={"num_parameters": values["num_parameters"] - MOST_PARAMETERS}, rungs={str(k): v for k, v in rungs.items()},
        seconds=0.2 * reached,
    )  # fmt: skip


def failed_run() -> ReportedRun:
    """A run that died in its search: only the journal knows of the trials."""
    run = {
        "id": "2026-11-22-3f",
        "model": "digits",
        "started": 1795305600.0,
        "state": "failed",
        "seconds": 21.4,
        "budget": 80.0,
        "reason": "search: all trials ran out of memory; lower search.workers or dataset.size",
        "stages": {
            "version": {"state": "ran", "seconds": 0.3, "key": "a1" * 32, "why": "never ran"},
            "search": {"state": "failed", "seconds": 20.9},
        },
    }
    events = [
        {"time": 1.0, "event": "run.started"},
        {"time": 2.0, "event": "trial.started", "number": 0},
        {
            "time": 3.0,
            "event": "trial.finished",
            "number": 0,
            "state": "complete",
            "value": 0.91,
            "best": 0.91,
            "seconds": 3.1,
            "architecture": "2 stages, width 16",
        },
        {"time": 4.0, "event": "trial.started", "number": 1},
        {"time": 5.0, "event": "trial.failed", "number": 1, "state": "failed", "cause": "oom", "reason": "out of memory at batch 512"},
        {"time": 6.0, "event": "trial.started", "number": 2},
    ]
    return ReportedRun(run=run, records={}, events=events)


# ---- digits ---------------------------------------------------------------------------------------------------


def _digits(folder: Path) -> tuple[DatasetVersion, dict[str, tuple[np.ndarray, np.ndarray]]]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.images[:, None] * 15.9375).astype(np.uint8)
    x, x_test, y, y_test = train_test_split(images, data.target, test_size=0.2, stratify=data.target, random_state=0)
    arrays = {"train": (x[:1220], y[:1220]), "validation": (x[1220:], y[1220:]), "test": (x_test, y_test)}
    files = {}
    for split, (inputs, target) in arrays.items():
        files[f"{split}/image"] = _stored(folder / f"{split}-image.npy", inputs)
        files[f"{split}/target"] = _stored(folder / f"{split}-target.npy", target.astype(np.int64))
    dataset = DatasetVersion(
        name="digits",
        digest=digest_of("digits"),
        modality="image",
        task="classification",
        target="digit",
        inputs=(InputField(name="image", dtype="uint8", shape=(1, 8, 8), mean=(77.8,), std=(95.9,)),),
        classes=tuple(str(k) for k in range(10)),
        splits={s: len(t) for s, (_, t) in arrays.items()},
        files=files,
        source={"_target_": "components.data.dataset.digits.Digits"},
    )
    return dataset, arrays


def _search(arrays: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[SearchResult, TrainedModel]:
    """Fourteen small networks with settings drawn at random; two trials end otherwise."""
    draw = np.random.default_rng(7)
    trials = []
    for number in range(14):
        depth = int(draw.integers(1, 4))
        architecture = {"kind": str(draw.choice(["plain", "residual", "separable"])), "widths": [int(draw.choice([8, 16, 32, 48]))] * depth}
        chosen = {
            "optimizer": str(draw.choice(["adamw", "sgd"])),
            "learning_rate": float(10 ** draw.uniform(-4, -1.3)),
            "batch_size": int(draw.choice([32, 64, 128])),
            "weight_decay": float(10 ** draw.uniform(-6, -2)),
            "dropout": float(draw.uniform(0, 0.4)),
            "augmentation_strength": float(draw.uniform(0, 1)),
            "epochs": EPOCHS,
        }
        trials.append(_trial(number, Candidate(space="convnet", architecture=architecture, hyperparameters=chosen), arrays))
    complete = [trial for trial in trials if trial.state == "complete"]
    best = max(complete, key=lambda trial: trial.values["accuracy"])
    result = SearchResult(study="study-digits", objective="accuracy", direction="maximize", trials=tuple(trials), best_number=best.number)
    weights = StoredFile(path=Path("teacher.safetensors"), sha256=digest_of("teacher"), size=81_000)
    teacher = TrainedModel(
        role="teacher",
        candidate=best.candidate.replace(numerics={"threads": 1, "memory_format": "channels_last"}),
        space={"_target_": "components.models.space.convnet.ConvNet"},
        dataset=digest_of("digits"),
        seed=0,
        weights=weights,
        metrics=best.values,
        num_parameters=best.num_parameters,
        epochs=EPOCHS,
        history=best.history,
        seconds=9.4,
    )
    return result, teacher


def _trial(number: int, candidate: Candidate, arrays: dict[str, tuple[np.ndarray, np.ndarray]]) -> Trial:
    if number == 5:
        return Trial(number=5, candidate=candidate, state="failed", cause="nan", reason="the loss was not a number at step 31", seconds=1.2)
    if number == 9:
        return Trial(number=9, candidate=candidate, state="killed", cause="timeout", reason="stopped at its limit of 6.0 s", seconds=6.0)
    history, probabilities, parameters = _fit(candidate, arrays)
    values = {name: metrics.compute(name, probabilities, arrays["validation"][1]) for name in ("accuracy", "log_loss")}
    fidelity = {"epochs": EPOCHS, "rows": 1220}
    return Trial(
        number=number,
        candidate=candidate,
        state="complete",
        values=values,
        fidelity=fidelity,
        num_parameters=parameters,
        history=tuple(history),
        seconds=2.0 + number * 0.1,
    )


def _fit(
    candidate: Candidate, arrays: dict[str, tuple[np.ndarray, np.ndarray]], epochs: int = EPOCHS
) -> tuple[list[dict[str, float]], np.ndarray, int]:
    from sklearn.neural_network import MLPClassifier

    chosen = candidate.hyperparameters
    network = MLPClassifier(
        candidate.architecture["widths"],
        solver="adam" if chosen["optimizer"] == "adamw" else "sgd",
        learning_rate_init=chosen["learning_rate"],
        batch_size=chosen["batch_size"],
        alpha=chosen["weight_decay"],
        random_state=0,
    )
    (x, y), (x_val, y_val) = arrays["train"], arrays["validation"]
    history = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for epoch in range(1, epochs + 1):
            network.partial_fit(x.reshape(len(x), -1) / 255.0, y, classes=range(10))
            probabilities = network.predict_proba(x_val.reshape(len(x_val), -1) / 255.0)
            scores = {name: metrics.compute(name, probabilities, y_val) for name in ("accuracy", "log_loss")}
            rate = chosen["learning_rate"] * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
            history.append({"epoch": epoch, "train_loss": float(network.loss_), **scores, "learning_rate": float(rate), "seconds": 0.2})
    return history, probabilities, sum(w.size for w in [*network.coefs_, *network.intercepts_])


def _student(folder: Path, teacher: TrainedModel, dataset: DatasetVersion) -> TrainedModel:
    small = teacher.candidate.replace(architecture={"kind": "plain", "widths": [16]})
    history = tuple(
        {**row, "accuracy": row["accuracy"] - 0.004, "log_loss": row["log_loss"] * 1.1, "train_loss": row["train_loss"] * 1.2}
        for row in teacher.history
    )
    return teacher.replace(
        role="student",
        candidate=small,
        parents=(teacher.identity,),
        num_parameters=1210,
        history=history,
        seconds=8.1,
        weights=StoredFile(path=folder / "student.safetensors", sha256=digest_of("student"), size=9_000),
    )


def _evaluation(
    folder: Path, dataset: DatasetVersion, arrays: dict[str, tuple[np.ndarray, np.ndarray]], search: SearchResult
) -> EvaluationReport:
    from sklearn.linear_model import LogisticRegression

    (x, y), (x_val, y_val), (x_test, y_test) = (arrays[split] for split in ("train", "validation", "test"))
    model = LogisticRegression(C=0.05, max_iter=400).fit(x.reshape(len(x), -1) / 255.0, y)
    of_val, of_test = (model.predict_proba(part.reshape(len(part), -1) / 255.0).astype(np.float32) for part in (x_val, x_test))
    names = metrics.names("classification")
    deployables = tuple(
        Deployable(
            model=_exported(folder, role, precision, dataset, role.encode() * size),
            size_kb=size * 7 / 1024,
            latency_ms=latency,
            latency_p95_ms=latency * 1.4,
            metrics={name: _shift(_estimate(name, of_val, y_val), loss) for name in ("accuracy", "log_loss")},
        )
        for role, precision, size, latency, loss in (
            ("teacher", "fp32", 12000, 0.081, 0.0),
            ("student", "fp32", 3100, 0.035, 0.002),
            ("teacher", "int8", 4600, 0.094, 0.004),
            ("student", "int8", 1900, 0.041, 0.011),
        )
    )
    figures = StandardMetrics().figures(of_test, y_test, "classification")
    most = np.bincount(y_test).max() / len(y_test)
    return EvaluationReport(
        dataset=dataset,
        objective="accuracy",
        direction="maximize",
        deployables=deployables,
        chosen="student-fp32",
        choice="student-fp32 is the smallest of 3 models within 0.005 of the best (teacher-fp32)",
        test={name: _estimate(name, of_test, y_test) for name in names},
        baseline={"accuracy": float(most), "log_loss": 2.3026, "f1": 0.018},
        predictions=_stored(folder / "predictions.npy", of_test),
        targets=_stored(folder / "targets.npy", y_test.astype(np.int64)),
        device={"cpu": "Xeon", "threads": 1},
        figures=figures,
    )


def _estimate(name: str, outputs: np.ndarray, targets: np.ndarray) -> Estimate:
    draw = np.random.default_rng(0)
    picks = [draw.integers(0, len(targets), len(targets)) for _ in range(60)]
    values = [metrics.compute(name, outputs[pick], targets[pick]) for pick in picks]
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(value=metrics.compute(name, outputs, targets), low=float(low), high=float(high))


def _shift(estimate: Estimate, by: float) -> Estimate:
    return Estimate(value=estimate.value - by, low=estimate.low - by, high=estimate.high - by)


# ---- the rest -------------------------------------------------------------------------------------------------


def _stored(path: Path, values: np.ndarray) -> StoredFile:
    np.save(path, values)
    return StoredFile.of(path)


def _number(name: str, values: np.ndarray) -> Column:
    kept = values[~np.isnan(values)]
    knots = tuple(float(q) for q in np.quantile(kept, np.linspace(0, 1, 5)))
    return Column(name=name, kind="number", mean=float(kept.mean()), std=float(kept.std()), quantiles=knots)


def _quality(dataset: DatasetVersion) -> QualityReport:
    rows = (
        CheckResult(name="classes", status="pass", reason="10 classes, the rarest has 113 training rows"),
        CheckResult(name="duplicates", status="pass", reason="no row occurs twice"),
        CheckResult(
            name="label_noise",
            status="warn",
            reason="1.3 % of 1,220 training rows disagree with their nearest neighbours (rule: below 1 %)",
        ),
    )
    return QualityReport(dataset=dataset.identity, rows=rows)


def _policy(folder: Path, images: np.ndarray, dataset: DatasetVersion) -> AugmentationPolicy:
    """A preview of ten digits, below them the same moved by a pixel."""
    import base64

    above = np.concatenate(list(images[:10, 0]), axis=1)
    below = np.concatenate([np.roll(image, 1, axis=1) for image in images[:10, 0]], axis=1)
    grid = np.concatenate([above, below]).repeat(4, axis=0).repeat(4, axis=1)
    path = folder / "preview.png"
    path.write_bytes(base64.b64decode(pictures.of_array(grid[None]).partition(",")[2]))
    return AugmentationPolicy(
        name="affine", modality=dataset.modality, config={"_target_": "x.Affine", "degrees": 15, "shift": 0.1}, preview=StoredFile.of(path)
    )


def _exported(folder: Path, role: str, precision: str, dataset: DatasetVersion, content: bytes) -> ExportedModel:
    path = folder / f"{role}-{precision}.onnx"
    path.write_bytes(content)
    return ExportedModel(
        name=f"{role}-{precision}",
        role=role,
        precision=precision,
        model=digest_of(role),
        dataset=dataset.identity,
        file=StoredFile.of(path),
        opset=20,
        inputs=({"name": "image", "dtype": "uint8"},),
        outputs=({"name": "probabilities"},),
        operators={"Conv": 6, "Relu": 5, "Gemm": 1},
        num_parameters=1210,
        parity={"1": 2.4e-7, "2": 3.0e-7, "7": 3.6e-7},
    )


def _version(report: EvaluationReport) -> ModelVersion:
    tags = {"athanor.data": report.dataset.digest, "athanor.seed": "0", "athanor.git": "9115866"}
    lineage = {"data": {"digest": report.dataset.digest}, "code": digest_of("code")}
    return ModelVersion(
        name=report.dataset.name, version=3, run_id="5a2f90c1", file=report.best.model.file, report=report, tags=tags, lineage=lineage
    )


def _decision(report: EvaluationReport) -> Decision:
    gates = (
        GateResult(
            name="beats_baseline",
            passed=True,
            rule="lower bound above the majority class",
            words="accuracy 0.9556 to 0.9889 lies above 0.1028",
        ),
        GateResult(
            name="beats_champion",
            passed=True,
            rule="better, or 20 % smaller or faster",
            words="0.0028 better than champion 2 (paired, −0.0056 to +0.0111)",
        ),
    )
    return Decision(
        model=report.dataset.name,
        version=3,
        promoted=True,
        gates=gates,
        champion=3,
        previous=2,
        words="every gate lets version 3 pass; version 2 is kept as previous",
        metrics=dict(report.test),
    )


def _run(model: str) -> dict[str, Any]:
    spent = {
        "version": 0.4,
        "validate": 1.1,
        "augment": 0.3,
        "search": 34.2,
        "train": 9.4,
        "distill": 8.1,
        "export": 5.2,
        "quantize": 2.9,
        "evaluate": 2.2,
        "register": 2.6,
        "promote": 0.4,
    }
    stages = {name: {"state": "ran", "seconds": seconds, "key": digest_of(name), "why": "never ran"} for name, seconds in spent.items()}
    stages["version"] |= {"state": "cached", "seconds": 0.02, "why": "nothing changed"}
    stages["train"]["why"] = ["config training.epochs 20 → 40"]
    return {
        "id": "2026-11-22-7c",
        "model": model,
        "started": 1795305600.0,
        "finished": 1795305671.0,
        "state": "finished",
        "seconds": 70.6,
        "budget": 80.0,
        "stages": stages,
        "git": {"revision": "9115866c0ffee0", "dirty": True},
        "versions": {"torch": "2.13.0", "onnxruntime": "1.31.1"},
        "overrides": ["dataset=digits", "model=my model"],
        "next": ["athanor leaderboard", "athanor ui"],
    }
