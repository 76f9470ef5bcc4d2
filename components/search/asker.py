"""The process that makes suggestions, as the parent of a search sees it."""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import JSON
from components.build import allow, build
from components.errors import StageFailedError
from components.processes import Worker, WorkerDied, answer_of
from components.search import warm_start
from components.search.compatibility import check
from components.search.failures import LIVES
from components.search.plan import Plan
from components.search.proposal import ORIGIN, next_suggestion, open_study, recommended, seed_of, space_of
from components.search.supernet import SupernetTask, derived_of
from components.store import write_atomically
from components.workspace import Workspace

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, TrialState

SUPERNET_SHARE = 0.5  # of the search's time, where it has an end


class Asker:
    """A worker that makes suggestions, started when first needed. If it is killed another one takes its place: a
    suggestion can be asked for again. It is sent what has changed since it was last asked.

    `supernet` is the file that a one-shot strategy trained, `derived` what was derived from it.
    """

    def __init__(self, plan: Plan, folder: Path, work: Workspace) -> None:
        self.plan, self.folder, self.work = plan, folder, work
        self.supernet: Path | None = None
        self.derived: JSON = {}
        self._worker: Worker | None = None
        self._is_new = True
        self._sent: dict[int, Any] = {}
        self._queue: list[warm_start.Start] | None = None

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker:
            self._worker.kill()

    def train_supernet(self) -> None:
        """Has the strategy train its supernet, if it is one that does; from its last checkpoint if that was interrupted.

        Raises `StageFailedError` if its process keeps dying.
        """
        if not hasattr(self.plan.strategy, "train_supernet"):
            return
        left = self.work.left()
        seconds = None if left is None else SUPERNET_SHARE * left
        self.supernet = self._trained(seconds)
        found = derived_of(self.supernet)
        self.derived = {"candidates": list(found.candidates), "effects": found.effects, "evidence": found.evidence}

    def _trained(self, seconds: float | None) -> Path:
        plan = self.plan
        task = SupernetTask(
            dataset=plan.dataset, policy=plan.policy, config=plan.config, scratch=self.folder / "supernet", seed=plan.seed, seconds=seconds
        )
        for _ in range(LIVES):
            with Worker() as worker:
                try:
                    found: Path = worker.call(
                        _train_supernet, task,
                        on_event=lambda event, **fields: self.work.emit(f"supernet.{event}", **fields),
                    )  # fmt: skip
                    return found
                except WorkerDied as error:
                    death = error
        raise StageFailedError(f"the process that trains the supernet died {LIVES} times ({death})")

    def start(self) -> Worker:
        """Begins to set the worker up; does not wait until it is."""
        self._worker, self._is_new, self._sent = Worker(), True, {}
        plan = self.plan
        seed = plan.seed if plan.round == 1 else seed_of(plan.seed, plan.round)
        self._worker.submit(open_study, plan.name, plan.dataset, plan.config, plan.directions, seed, self.supernet)
        return self._worker

    def ask(self, history: Sequence[FrozenTrial], resting: Collection[int] = ()) -> FrozenTrial | None:
        """The next trial, or None if the space holds nothing new. Raises `StageFailedError` if its process keeps dying."""
        if self._queue is None:
            self._queue = warm_start.starts(self.plan, self.folder, self.work.emit)
        used = sum(ORIGIN in trial.user_attrs for trial in history)
        while used < len(self._queue):
            start = self._queue[used]
            found: FrozenTrial | None = self._alive(next_suggestion, history, resting, start.params, start.origin)
            if found:
                return found
            self._queue.remove(start)  # a duplicate of one before it
        drawn: FrozenTrial | None = self._alive(next_suggestion, history, resting)
        return drawn

    def recommended(self, history: Sequence[FrozenTrial]) -> int | None:
        """The trial that the strategy believes to be the best, from these; kept, so that nobody has to be asked twice."""
        if len(self.plan.objectives) > 1 or not hasattr(self.plan.strategy, "recommend"):
            return None
        kept, seen = self.folder / "recommended.json", [[t.number, t.state.name, t.values] for t in history]
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(kept.read_text())
            if found["seen"] == json.loads(json.dumps(seen)):
                number: int | None = found["number"]
                return number
        number = self._alive(recommended, history, ())
        write_atomically(kept, json.dumps({"seen": seen, "number": number}))
        return number

    def _alive(self, function: Callable[..., Any], history: Sequence[FrozenTrial], resting: Collection[int], *given: Any) -> Any:
        for _ in range(LIVES):
            try:
                return self._call(function, self._worker or self.start(), history, resting, *given)
            except (WorkerDied, BrokenPipeError, ConnectionResetError) as error:
                death = error
                self.__exit__()
                self._worker = None
        raise StageFailedError(f"the process that suggests candidates died {LIVES} times ({death})")

    def _call(
        self, function: Callable[..., Any], worker: Worker, history: Sequence[FrozenTrial], resting: Collection[int], *given: Any
    ) -> Any:  # fmt: skip
        if self._is_new:
            answer_of(worker)
            self._is_new = False
        worker.submit(function, self.plan.name, self._news(history, resting), *given)
        return answer_of(worker)

    def _news(self, history: Sequence[FrozenTrial], resting: Collection[int]) -> list[FrozenTrial]:
        """What the worker has not seen; a trial that rests at a rung is shown as pruned there, for it may stay so."""
        found = []
        for trial in history:
            rests = trial.number in resting and not trial.state.is_finished()
            now = (trial.state, len(trial.intermediate_values), rests)
            if self._sent.get(trial.number) != now:
                self._sent[trial.number] = now
                found.append(self._shown(trial, rests))
        return found

    def _shown(self, trial: FrozenTrial, rests: bool) -> FrozenTrial:
        """With several objectives samplers of Optuna cannot tell what a pruned trial is worth, so they see a failed one."""
        from optuna.trial import TrialState

        if len(self.plan.objectives) > 1:
            return _as(TrialState.FAIL, trial) if trial.state is TrialState.PRUNED else trial
        return _as(TrialState.PRUNED, trial) if rests else trial


def _train_supernet(task: SupernetTask, *, emit: Any) -> Path:
    for package in task.config.get("plugins") or ():
        allow(package)
    check(task.config, space_of(task.dataset, task.config))
    task.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    found: Path = build(task.config["strategy"]).train_supernet(task, emit=emit)
    return found


def _as(state: TrialState, trial: FrozenTrial) -> FrozenTrial:
    found = copy.copy(trial)
    found.state = state
    found.datetime_complete = found.datetime_complete or datetime.datetime.now()
    return found
