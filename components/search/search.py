"""The verb `search`: trials of a study until their number or their time is used up, and the best of them.

The parent asks (through a worker that has torch loaded), starts one process a trial, and tells the study what came
out. A trial may run out of memory, diverge, hang, be killed or meet a bug of ours: each is told apart, none ends the
study. Called again on the same scratch folder, the study goes on: finished trials stay, interrupted ones run again
under their own number.

    search(dataset, policy, config, Workspace(out=folder, scratch=study_folder, seconds=60))

`config` holds the sections space, strategy, optimizer, training, search and metrics of conf/pipeline.yaml.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import metrics
from components.artifacts import JSON, AugmentationPolicy, DatasetVersion, SearchResult, Trial, digest_of
from components.budget import seconds_of
from components.errors import AthanorError, StageFailedError, UsageError
from components.processes import Worker, WorkerBug, WorkerDied
from components.search.evaluation import evaluate_trial
from components.search.failures import LIVES, explain, oom_kills, tally, was_killed
from components.search.interface import Assignment
from components.search.proposal import candidate_of, prepare, propose
from components.search.ranking import best_of
from components.search.runner.process import Outcome, ProcessRunner, answer_of
from components.search.study import Study
from components.search.workers import count_workers
from components.store import locked
from components.workspace import Workspace

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LEAST_TRIAL_SECONDS = 3.0  # a smaller share of the time trains too little to compare candidates by
STARTING_SECONDS = 0.5  # a trial's process needs about as much beside its training
STOPPING_SECONDS = 0.5  # kept for killing what runs and writing down what was learned
LAST_SHARE = 0.9  # a trial at the very end is given this much of what is left, so that it ends before it is killed
OVERRUN = 1.25  # a trial is told its limit and fits itself into it; this much later, plus SLACK_SECONDS, it is killed
SLACK_SECONDS = 5.0
GRACE_SECONDS = 10.0  # added to the search's time while no trial at all is complete
HOPELESS = 5  # as many failures by the same bug and not one success: the rest would fail too


def search(dataset: DatasetVersion, policy: AugmentationPolicy, config: JSON, work: Workspace) -> SearchResult:
    """The study's trials and its best one.

    Stops after `search.trials` trials or `work.seconds`, whichever comes first. Raises `StageFailedError` when no trial
    completes, `UsageError` for settings that no trial can be run with, `TryAgainError` when the study cannot be written.
    """
    plan = Plan.of(dataset, policy, config, work.seed)
    with _study_folder(work) as folder, _Asker(plan) as asker:
        if not (folder / "study.db").exists():
            asker.start()
        study = Study(folder, plan.name, plan.direction)
        return _Search(plan, study, work, asker).run()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched for, apart from how long and on how many processes: `name` is the same for the same question."""

    dataset: DatasetVersion
    policy: AugmentationPolicy
    config: JSON
    seed: int
    objective: str
    direction: str
    num_trials: int
    trial_seconds: float | None
    name: str

    @classmethod
    def of(cls, dataset: DatasetVersion, policy: AugmentationPolicy, config: JSON, seed: int) -> Plan:
        """Reads and checks the settings. Raises `UsageError`."""
        settings = config["search"]
        num_trials = settings.get("trials")
        if not isinstance(num_trials, int) or isinstance(num_trials, bool) or num_trials < 1:
            raise UsageError(f"search.trials must be a whole number of at least 1, got {num_trials!r}")
        objective = metrics.objective((config.get("metrics") or {}).get("objective"), dataset.task)
        return cls(
            dataset=dataset, policy=policy, config={**config, "seed": seed}, seed=seed, objective=objective,
            direction=metrics.direction(objective), num_trials=num_trials,
            trial_seconds=seconds_of(settings.get("trial_seconds")),
            name=_study_name(dataset, policy, config, seed, objective),
        )  # fmt: skip


def _study_name(dataset: DatasetVersion, policy: AugmentationPolicy, config: JSON, seed: int, objective: str) -> str:
    sections = {name: config.get(name) for name in ("space", "strategy", "optimizer")}
    settings = {name: value for name, value in config["search"].items() if name not in ("trials", "workers", "trial_seconds")}
    training = {name: value for name, value in (config.get("training") or {}).items() if name != "epochs"}
    decided = [dataset.identity, policy.identity, sections, settings, training, seed, objective]
    return f"{dataset.name}-{digest_of(decided)[:16]}"


@contextlib.contextmanager
def _study_folder(work: Workspace) -> Iterator[Path]:
    """The folder of the study, held by this process alone; a temporary one if nothing is to be resumed."""
    with contextlib.ExitStack() as stack:
        folder = work.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="athanor-study-")))
        stack.enter_context(locked(folder / "study.lock", lambda: work.emit("search.waiting", folder=str(folder))))
        yield folder


class _Search:
    """One session of a study: what is known of its trials, and the processes that run the next ones."""

    def __init__(self, plan: Plan, study: Study, work: Workspace, asker: _Asker) -> None:
        self.plan, self.study, self.work, self.asker = plan, study, work, asker
        self.suggested: dict[int, FrozenTrial] = {}
        self.results: dict[int, Trial] = {}
        self.waiting: list[int] = []
        self.lives: Counter[int] = Counter()
        self.share: float | None = None
        self.exhausted = False
        self.oom_kills: dict[int, int] = {}

    def run(self) -> SearchResult:
        self._take_over()
        self.workers = self._count_workers()
        with ProcessRunner(self._forward) as runner:
            self.runner = runner
            self._loop()
        return self._result()

    # ---- what an earlier session left ----

    def _take_over(self) -> None:
        for suggestion in self.study.history()[: self.plan.num_trials]:
            self.suggested[suggestion.number] = suggestion
            result = self.study.result(suggestion)
            if result is None:
                self.waiting.append(suggestion.number)
                continue
            self.results[suggestion.number] = result
            if not suggestion.state.is_finished():
                self._tell(result)
                self._report(result)
        self.work.emit(
            "search.opened", study=self.plan.name, finished=len(self.results), interrupted=len(self.waiting),
            trials=self.plan.num_trials, objective=self.plan.objective, direction=self.plan.direction,
        )  # fmt: skip

    def _count_workers(self) -> int:
        to_run = self.plan.num_trials - len(self.results)
        asked = self.plan.config["search"].get("workers", "auto")
        return count_workers(asked, to_run, self.study.folder / "workers.json", self.work.emit)

    # ---- the loop ----

    def _loop(self) -> None:
        while True:
            while self._may_start() and self._start_next():
                pass
            if not self.runner.running:
                return
            for outcome in self.runner.outcomes(self._patience()):
                self._settle(outcome)
            if self._left() == 0.0:
                self._stop_all()
                return

    def _left(self) -> float | None:
        """Seconds until the search must stop; longer while there is nothing to show."""
        left = self.work.left()
        if left is None:
            return None
        assert self.work.seconds is not None
        over = time.monotonic() - self.work.started - self.work.seconds + STOPPING_SECONDS
        return max(0.0, -over if self._best() else GRACE_SECONDS - over)

    def _patience(self) -> float:
        left = self._left()
        return 1.0 if left is None else min(1.0, left)

    def _may_start(self) -> bool:
        if len(self.runner.running) >= self.workers or not self._more() or self._is_hopeless():
            return False
        left = self._left()
        if left is None or not self._best():
            return True
        return left >= statistics.median(t.seconds for t in self.results.values() if t.state == "complete")

    def _more(self) -> bool:
        return bool(self.waiting) or (not self.exhausted and len(self.suggested) < self.plan.num_trials)

    def _is_hopeless(self) -> bool:
        bugs = Counter(t.reason for t in self.results.values() if t.cause == "bug")
        return bool(bugs) and max(bugs.values()) >= HOPELESS and self._best() is None

    def _start_next(self) -> bool:
        number = self.waiting.pop(0) if self.waiting else self._suggest_next()
        if number is None:
            return False
        if known := self.study.result(self.suggested[number]):
            self._finish(known)  # the database was lost and made anew; its results were not
        else:
            self._start(number)
        return True

    def _suggest_next(self) -> int | None:
        proposal = self.asker.ask(self.study.history())
        if proposal is None:
            self.exhausted = True
            self.work.emit("search.exhausted", study=self.plan.name, trials=len(self.suggested))
            return None
        stored = self.study.add(proposal)
        self.suggested[stored.number] = stored
        return stored.number

    def _start(self, number: int) -> None:
        candidate = candidate_of(self.suggested[number])
        limit = self._limit()
        task = Assignment(
            dataset=self.plan.dataset, policy=self.plan.policy, candidate=candidate, config=self.plan.config, study=self.plan.name,
            number=number, objective=self.plan.objective, folder=self.study.folder, seconds=limit,
        )  # fmt: skip
        self.lives[number] += 1
        self.oom_kills[number] = oom_kills()
        hard = None if limit is None else limit * OVERRUN + SLACK_SECONDS
        self.work.emit("trial.started", number=number, architecture=describe(candidate.architecture), attempt=self.lives[number])
        self.runner.submit(number, evaluate_trial, task, limit=hard)

    def _limit(self) -> float | None:
        """Seconds for a trial that starts now: its share of the time, the configured limit, or none."""
        left = self._left()
        if left is None:
            return self.plan.trial_seconds
        self.share = self.share or self._share(left)
        return max(1.0, min(self.share, LAST_SHARE * left - STARTING_SECONDS, self.plan.trial_seconds or self.share))

    def _share(self, left: float) -> float:
        """Equal shares, fixed when the first trial starts: candidates compare fairly if each had the same time."""
        to_run = max(self.plan.num_trials - len(self.results), self.workers)
        return max(left * self.workers / to_run - STARTING_SECONDS, LEAST_TRIAL_SECONDS)

    # ---- ends ----

    def _settle(self, outcome: Outcome) -> None:
        number = outcome.key
        left_behind = self.study.result(self.suggested[number])
        if left_behind:
            self._finish(left_behind)
        elif outcome.kind == "error" and isinstance(outcome.value, AthanorError) and not isinstance(outcome.value, StageFailedError):
            raise outcome.value
        elif self._lives_again(outcome):
            self.work.emit("trial.retried", number=number, reason=str(WorkerDied(outcome.value)))
            self.waiting.insert(0, number)
        else:
            self._finish(self._failure(outcome))

    def _lives_again(self, outcome: Outcome) -> bool:
        """A process that was killed from outside, and not for want of memory, is no verdict on its trial."""
        killed = outcome.kind == "died" and was_killed(outcome.value)
        return killed and self.lives[outcome.key] < LIVES and not self._ran_out_of_memory(outcome)

    def _ran_out_of_memory(self, outcome: Outcome) -> bool:
        return outcome.kind == "died" and outcome.value == -9 and oom_kills() > self.oom_kills[outcome.key]

    def _failure(self, outcome: Outcome) -> Trial:
        state, cause, reason = explain(outcome, out_of_memory=self._ran_out_of_memory(outcome))
        candidate = candidate_of(self.suggested[outcome.key])
        trial = Trial(number=outcome.key, candidate=candidate, state=state, cause=cause, reason=reason, seconds=outcome.seconds)
        place = self.study.trial_folder(outcome.key)
        place.write(candidate, trial)
        if isinstance(outcome.value, WorkerBug):
            (place.path / "traceback.txt").write_text(outcome.value.trace)
        return trial

    def _finish(self, trial: Trial) -> None:
        self.results[trial.number] = trial
        self._tell(trial)
        self._report(trial)

    def _tell(self, trial: Trial) -> None:
        self.study.tell(trial, trial.values.get(self.plan.objective))

    def _stop_all(self) -> None:
        """Kills what runs. In the study these trials stay open: with more time they are run again."""
        for number in self.runner.running:
            seconds = self.runner.cancel(number)
            if finished := self.study.result(self.suggested[number]):
                self._finish(finished)
                continue
            reason = f"the search's {self.work.seconds:.0f} s were used up before this trial had ended"
            candidate = candidate_of(self.suggested[number])
            trial = Trial(number=number, candidate=candidate, state="killed", cause="timeout", reason=reason, seconds=seconds)
            self.results[number] = trial
            self._report(trial)

    # ---- telling ----

    def _best(self) -> Trial | None:
        return best_of(self.results.values(), self.plan.objective, self.plan.direction)

    def _forward(self, number: int, event: str, fields: dict[str, Any]) -> None:
        self.work.emit(f"trial.{event}", **{**fields, "number": number})

    def _report(self, trial: Trial) -> None:
        best = self._best()
        self.work.emit(
            "trial.finished" if trial.state in ("complete", "pruned") else "trial.failed",
            number=trial.number, trials=self.plan.num_trials, finished=len(self.results), state=trial.state, cause=trial.cause,
            reason=trial.reason, objective=self.plan.objective, value=trial.values.get(self.plan.objective),
            best=best and best.values[self.plan.objective], best_number=best and best.number, seconds=round(trial.seconds, 3),
            num_parameters=trial.num_parameters, architecture=describe(trial.candidate.architecture), trial=trial.to_json(),
        )  # fmt: skip

    def _result(self) -> SearchResult:
        best = self._best()
        trials = tuple(self.results[number] for number in sorted(self.results))
        if best is None:
            raise StageFailedError(f"none of {len(trials)} trials completed: {tally(trials)}")
        return SearchResult(
            study=self.plan.name, objective=self.plan.objective, direction=self.plan.direction, trials=trials, best_number=best.number
        )


class _Asker:
    """A worker that makes suggestions, started when first needed. If it is killed another one takes its place: a
    suggestion can be asked for again."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._worker: Worker | None = None
        self._is_new = True

    def __enter__(self) -> _Asker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker:
            self._worker.kill()

    def start(self) -> Worker:
        """Begins to set the worker up; does not wait until it is."""
        self._worker, self._is_new = Worker(), True
        self._worker.submit(prepare, self.plan.dataset, self.plan.config)
        return self._worker

    def ask(self, history: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The next trial, or None if the space holds nothing new. Raises `StageFailedError` if its process keeps dying."""
        for _ in range(LIVES):
            try:
                return self._ask(self._worker or self.start(), history)
            except (WorkerDied, BrokenPipeError, ConnectionResetError) as error:
                death = error
                self.__exit__()
                self._worker = None
        raise StageFailedError(f"the process that suggests candidates died {LIVES} times ({death})")

    def _ask(self, worker: Worker, history: Sequence[FrozenTrial]) -> FrozenTrial | None:
        if self._is_new:
            answer_of(worker)
            self._is_new = False
        worker.submit(propose, history, self.plan.dataset, self.plan.config, direction=self.plan.direction, seed=self.plan.seed)
        found: FrozenTrial | None = answer_of(worker)
        return found


def describe(architecture: JSON) -> str:
    """An architecture in one short line.

    >>> describe({"depth": 3, "widths": [8, 16], "block": "plain"})
    'depth=3 widths=8-16 block=plain'
    """
    return " ".join(f"{name}={_short(value)}" for name, value in architecture.items())


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + describe(value) + "}"
    if isinstance(value, list | tuple):
        return "-".join(_short(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
