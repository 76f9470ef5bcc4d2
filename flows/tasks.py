"""Every stage as a Prefect task: takes records and a plain dictionary, returns a record.

Any flow can call them. The dictionary is a composed configuration (`flows.config.load(...).values`) or the part of it
that the stage reads (see `flows.table.STAGES`). A result that is already in the artifact store ends its task run in
the state `Cached`; a stage whose worker was killed is tried again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flows import server

server.quiet()

from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed

from components.artifacts import (
    JSON,
    AugmentationPolicy,
    Candidate,
    DatasetVersion,
    Decision,
    EvaluationReport,
    ExportedModel,
    ModelVersion,
    QualityReport,
    SearchResult,
    TrainedModel,
)
from components.errors import StageFailedError
from components.processes import WorkerDied
from flows.config import conceal
from flows.execution import require_fit, run_stage
from flows.launch import adopt_flows, prepare
from flows.run import current_or_detached
from flows.table import STAGES, candidate_of

adopt_flows()
RETRIES = 2
RETRY_DELAY_SECONDS = 1.0


class Pipeline(Flow[..., Any]):
    """A flow that finds or starts its server and workers before it begins. Its results stay out of Prefect's storage."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        super().__init__(fn=fn, name=name, persist_result=False, log_prints=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = tuple(conceal(given) if isinstance(given, list) else given for given in args)  # Prefect keeps what a flow is called with
        kwargs = {name: conceal(given) if isinstance(given, list) else given for name, given in kwargs.items()}
        prepare()
        with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
            return super().__call__(*args, **kwargs)


class StageTask(Task[..., Any]):
    """A task that returns its record also when it ended in a state of our own (`Cached`)."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("return_state"):
            return super().__call__(*args, **kwargs)
        return super().__call__(*args, return_state=True, **kwargs).result()


def may_pass(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again can help: when a worker died. What waits for a lock has waited long enough by itself."""
    try:
        state.result()
    except Exception as error:
        return isinstance(error, StageFailedError) and isinstance(error.__cause__, WorkerDied)
    return False


def stage_task(function: Callable[..., Any]) -> StageTask:
    """A stage's function as a task: no cache of Prefect's own (the store is the memory), retries where they can help."""
    return StageTask(
        fn=function, name=function.__name__, description=STAGES[function.__name__].words, retries=RETRIES,
        retry_delay_seconds=RETRY_DELAY_SECONDS, retry_condition_fn=may_pass, cache_policy=NO_CACHE, persist_result=False,
        log_prints=False,
    )  # fmt: skip


def _run(name: str, inputs: tuple[Any, ...], config: JSON, *, lineage: bool = False) -> Any:
    run = current_or_detached(config)
    section = {key: config[key] for key in STAGES[name].reads}
    outcome = run_stage(name, inputs, section, run, lineage=run.lineage() if lineage else None)
    if outcome.state == "cached":
        return Completed(name="Cached", message="found in the artifact store", data=outcome.record)
    return outcome.record


@stage_task
def version(config: JSON) -> DatasetVersion:
    """A dataset version: content digest, splits, input spec and arrays."""
    return _run("version", (), config)  # type: ignore[no-any-return]


@stage_task
def validate(dataset: DatasetVersion, config: JSON) -> QualityReport:
    """What the checks say of the data; raises `DataError` with the failing rows."""
    found = _run("validate", (dataset,), config)
    require_fit(found.data if isinstance(found, State) else found)
    return found  # type: ignore[no-any-return]


@stage_task
def augment(dataset: DatasetVersion, config: JSON) -> AugmentationPolicy:
    """The augmentation policy for this data."""
    return _run("augment", (dataset,), config)  # type: ignore[no-any-return]


@stage_task
def search(dataset: DatasetVersion, policy: AugmentationPolicy, config: JSON) -> SearchResult:
    """The trials of a study and its best candidate."""
    return _run("search", (dataset, policy), config)  # type: ignore[no-any-return]


@stage_task
def train(dataset: DatasetVersion, policy: AugmentationPolicy, candidate: SearchResult | Candidate, config: JSON) -> TrainedModel:
    """The candidate (or a search's best), trained at full length."""
    return _run("train", (dataset, policy, candidate_of(candidate)), config)  # type: ignore[no-any-return]


@stage_task
def fuse(dataset: DatasetVersion, policy: AugmentationPolicy, result: SearchResult, teacher: TrainedModel, config: JSON) -> TrainedModel:
    """One model of the teacher and the search's trials; with `fusion=none` the teacher itself."""
    return _run("fuse", (dataset, policy, result, teacher), config)  # type: ignore[no-any-return]


@stage_task
def distill(dataset: DatasetVersion, policy: AugmentationPolicy, teacher: TrainedModel, config: JSON) -> TrainedModel:
    """A smaller student of the teacher; with `distillation=none` the teacher itself."""
    return _run("distill", (dataset, policy, teacher), config)  # type: ignore[no-any-return]


@stage_task
def export(dataset: DatasetVersion, models: tuple[TrainedModel, ...], config: JSON) -> tuple[ExportedModel, ...]:
    """The models as ONNX graphs, each proven equal to its network on real rows."""
    return _run("export", (dataset, tuple({m.identity: m for m in models}.values())), config)  # type: ignore[no-any-return]


@stage_task
def quantize(dataset: DatasetVersion, exported: tuple[ExportedModel, ...], config: JSON) -> tuple[ExportedModel, ...]:
    """INT8 twins of the exported models; none with `quantization=none`."""
    return _run("quantize", (dataset, tuple(exported)), config)  # type: ignore[no-any-return]


@stage_task
def evaluate(dataset: DatasetVersion, exported: tuple[ExportedModel, ...], config: JSON) -> EvaluationReport:
    """What would be served, measured on ONNX Runtime; the chosen one on the test split."""
    return _run("evaluate", (dataset, tuple(exported)), config)  # type: ignore[no-any-return]


@stage_task
def register(report: EvaluationReport, config: JSON) -> ModelVersion:
    """The chosen model as a version in MLflow's registry, with its lineage."""
    return _run("register", (report,), config, lineage=True)  # type: ignore[no-any-return]


@stage_task
def promote(version: ModelVersion, config: JSON) -> Decision:
    """Whether the version becomes champion, and what each gate said."""
    return _run("promote", (version,), config)  # type: ignore[no-any-return]
