"""The verb `search`: trials of a study until their number or their time is used up, and the best of them.

The parent asks (through a worker that has torch loaded), starts one process a trial, and tells the study what came
out. A trial may run out of memory, diverge, hang, be killed or meet a bug of ours: each is told apart, none ends the
study. Called again on the same scratch folder, the study goes on: finished trials stay, interrupted ones run again
under their own number. A scheduler may let a trial rest at a rung and carry on a better one instead.

    search(dataset, policy, config, Workspace(out=folder, scratch=study_folder, seconds=60))

`config` holds the sections space, strategy, scheduler, evaluator, runner, optimizer, training, search, metrics,
objective, constraint, target and rounds of conf/pipeline.yaml.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import JSON, AugmentationPolicy, Candidate, DatasetVersion, SearchResult, Trial
from components.errors import AthanorError, StageFailedError, UsageError
from components.processes import WorkerBug, WorkerDied
from components.search.asker import Asker
from components.search.compatibility import name_of
from components.search.evaluation import evaluate_trial
from components.search.failures import LIVES, NoTimeError, explain, tally, was_killed
from components.search.interface import WEIGHTS, Ancestor, Assignment, Outcome
from components.search.kept import most_kept, publish, with_weights
from components.search.plan import Plan
from components.search.proposal import candidate_of
from components.search.ranking import best_of, chosen_of, distance, front_of, values_of, violation
from components.search.standings import Mark, standings_of
from components.search.study import Study
from components.search.target import in_rounds
from components.search.warm_start import leave
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
LOOK_SECONDS = 1.0  # how often a parent looks what the others of a shared study have done
CLAIM_SECONDS = 5.0  # how often it looks whether one of them has died and left its trials
HOPELESS = 5  # as many failures by the same bug and not one success: the rest would fail too


def search(dataset: DatasetVersion, policy: AugmentationPolicy, config: JSON, work: Workspace) -> SearchResult:
    """The study's trials and its best one; the weights of the best `search.keep` of them, where there are any, below `work.out`.

    Stops after `search.trials` trials or `work.seconds`, whichever comes first. Raises `StageFailedError` when no trial
    completes, `UsageError` for settings that no trial can be run with, a time too short for one trial and constraints that none
    meets, `TryAgainError` when the study cannot be written.
    """
    plan = Plan.of(dataset, policy, config, work.seed)
    with _study_folder(work) as folder:
        result = in_rounds(plan, folder, work, lambda aimed, place: _one_study(aimed, place, work))
        if violation(result.best_trial):
            raise UsageError(nothing_fits(result.best_trial, plan))
        return publish(result, most_kept(config), work.out)


def _one_study(plan: Plan, folder: Path, work: Workspace) -> SearchResult:
    with Asker(plan, folder, work) as asker:
        if not (folder / "study.db").exists() and not hasattr(plan.strategy, "train_supernet"):
            asker.start()
        asker.train_supernet()
        with Study(folder, plan.name, plan.directions, plan.storage) as study:
            return _Search(plan, study, work, asker).run()


@contextlib.contextmanager
def _study_folder(work: Workspace) -> Iterator[Path]:
    """The folder of the study, held by this process alone; a temporary one if nothing is to be resumed."""
    with contextlib.ExitStack() as stack:
        folder = work.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="athanor-study-")))
        stack.enter_context(locked(folder / "study.lock", lambda: work.emit("search.waiting", folder=str(folder))))
        yield folder


class _Search:
    """One session of a study: what is known of its trials, and the processes that run the next ones."""

    def __init__(self, plan: Plan, study: Study, work: Workspace, asker: Asker) -> None:
        self.plan, self.study, self.work, self.asker = plan, study, work, asker
        self.suggested: dict[int, FrozenTrial] = {}
        self.results: dict[int, Trial] = {}
        self.resting: dict[int, Trial] = {}
        self.waiting: list[int] = []
        self.elsewhere: set[int] = set()
        self._synced_at = self._claimed_at = time.monotonic()
        self.deaths: Counter[int] = Counter()
        self.share: float | None = None
        self.exhausted = False
        self._is_stopped = False

    def run(self) -> SearchResult:
        self._take_over()
        self.work.emit("search.runner", name=name_of(self.plan.config, "runner"))
        with self.plan.runner(self._forward, self.study.folder) as runner:
            self.runner = runner
            self.workers = self._count_workers()
            self._say_if_short()
            self._loop()
        return self._result()

    # ---- what an earlier session left ----

    def _take_over(self) -> None:
        for suggestion in self.study.history()[: self.plan.num_trials]:
            self.suggested[suggestion.number] = suggestion
            result = self.study.result(suggestion)
            if result is None and self.study.claim(suggestion.number):
                self.waiting.append(suggestion.number)
            elif result is None:
                self.elsewhere.add(suggestion.number)
            elif self._rests(result) and not suggestion.state.is_finished():
                self.resting[suggestion.number] = result
            else:
                self.results[suggestion.number] = self._cut_short(result) if self._rests(result) else result
                if not suggestion.state.is_finished():
                    self._tell(result)
                    self._report(result)
        self.work.emit(
            "search.opened", study=self.plan.name, finished=len(self.results), interrupted=len(self.waiting) + len(self.resting),
            trials=self.plan.num_trials, objective=self.plan.objective, direction=self.plan.direction,
        )  # fmt: skip

    def _count_workers(self) -> int:
        to_run = self.plan.num_trials - len(self.results)
        asked = self.plan.config["search"].get("workers", "auto")
        if asked == "auto" and self.runner.slots is not None:
            return max(1, min(self.runner.slots, to_run))
        return count_workers(asked, to_run, self.study.folder / "workers.json", self.work.emit)

    # ---- the loop ----

    def _loop(self) -> None:
        while True:
            self._look_around()
            while self._may_start() and self._start_next():
                pass
            if not self.runner.running and self.elsewhere and self.resting:
                self._rest_for_good()  # the other parents wait for them
            if not self.runner.running and not self.elsewhere:
                return
            if self.runner.running:
                for outcome in self.runner.outcomes(self._patience()):
                    self._settle(outcome)
            else:
                time.sleep(min(LOOK_SECONDS, self._patience()))
            if self._left() == 0.0:
                self._stop_all()
                return

    def _look_around(self) -> None:
        """Takes in what other parents of a shared study have suggested and finished, and takes over what they left."""
        now = time.monotonic()
        if self.study.is_shared and now - self._synced_at >= LOOK_SECONDS:
            self._synced_at = now
            self._take_in(self.study.history())
        if self.elsewhere and now - self._claimed_at >= CLAIM_SECONDS:
            self._claimed_at = now
            for number in sorted(self.elsewhere):
                if self.study.claim(number):
                    self.elsewhere.remove(number)
                    self.waiting.append(number)

    def _take_in(self, history: Sequence[FrozenTrial]) -> None:
        for suggestion in history[: self.plan.num_trials]:
            number = suggestion.number
            if number in self.suggested and number not in self.elsewhere:
                continue
            self.suggested[number] = suggestion
            result = self.study.result(suggestion) if suggestion.state.is_finished() else None
            if result is None:
                self.elsewhere.add(number)
            else:
                self.elsewhere.discard(number)
                self.results[number] = result
                self._report(result)

    def _say_if_short(self) -> None:
        """Tells of a time that no trial fits into: one is tried nevertheless, so that there is something to show."""
        left = self.work.left()
        if left is not None and left < LEAST_TRIAL_SECONDS and not self._best():
            self.work.emit("search.short", seconds=round(max(0.0, left), 1), grace=GRACE_SECONDS)

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
        return left >= statistics.median([t.seconds for t in self.results.values() if t.state == "complete"] or [0.0])

    def _more(self) -> bool:
        return bool(self.waiting) or self._carried() is not None or (not self.exhausted and len(self.suggested) < self.plan.num_trials)

    def _is_hopeless(self) -> bool:
        bugs = Counter(t.reason for t in self.results.values() if t.cause == "bug")
        return bool(bugs) and max(bugs.values()) >= HOPELESS and self._best() is None

    def _start_next(self) -> bool:
        number = self.waiting.pop(0) if self.waiting else self._carried()
        if number is None:
            number = self._suggest_next() if len(self.suggested) < self.plan.num_trials else None
        if number is None:
            return False
        known = self.study.result(self.suggested[number]) if number not in self.resting else None
        if known and self._reached(number, known):
            self._finish(known)  # the database was lost and made anew; its results were not
        else:
            self._start(number)
        return True

    def _suggest_next(self) -> int | None:
        with self.study.asking():
            history = self.study.history()
            if self.study.is_shared:
                self._take_in(history)
                if len(history) >= self.plan.num_trials:
                    return None
            proposal = self.asker.ask(history, self.resting)
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
            number=number, objective=self.plan.objective, folder=self.study.folder, seconds=None if self._climbs else limit,
            epochs=self._target(number) if self._climbs else None, full_epochs=self.plan.rungs[-1] if self._climbs else None,
            objectives=self.plan.objectives, constraints=self.plan.constraints, ancestor=self._ancestor(candidate),
            supernet=self.asker.supernet,
        )  # fmt: skip
        hard = None if limit is None else limit * OVERRUN + SLACK_SECONDS
        architecture = describe(candidate.architecture)
        self.work.emit(
            "trial.started", number=number, round=self.plan.round, architecture=architecture, attempt=self.deaths[number] + 1,
            epochs=task.epochs,
        )  # fmt: skip
        self.runner.submit(number, evaluate_trial, task, limit=hard)

    def _limit(self) -> float | None:
        """Seconds for a trial that starts now: its share of the time, the configured limit, or none."""
        left = self._left()
        if left is None or self._climbs:  # a trial that climbs is cut short by its scheduler, or with the search
            return self.plan.trial_seconds
        self.share = self.share or self._share(left)
        return max(1.0, min(self.share, LAST_SHARE * left - STARTING_SECONDS, self.plan.trial_seconds or self.share))

    def _share(self, left: float) -> float:
        """Equal shares, fixed when the first trial starts: candidates compare fairly if each had the same time."""
        to_run = max(self.plan.num_trials - len(self.results), self.workers)
        return max(left * self.workers / to_run - STARTING_SECONDS, LEAST_TRIAL_SECONDS)

    def _ancestor(self, candidate: Candidate) -> Ancestor | None:
        """The finished trial whose architecture is nearest, the better one of equals, where evaluators inherit weights."""
        if not self.plan.keeps_weights:
            return None
        folders = {number: self.study.trial_folder(number).path / WEIGHTS for number in self.results}
        fit = [t for t in self.results.values() if t.state == "complete" and folders[t.number].exists()]
        if not fit:
            return None
        values = {t.number: values_of(t, self.plan.objectives, self.plan.directions) for t in fit}
        nearest = min(fit, key=lambda t: (distance(candidate.architecture, t.candidate.architecture), values[t.number]))
        return Ancestor(number=nearest.number, candidate=nearest.candidate, weights=folders[nearest.number])

    # ---- rungs ----

    @property
    def _climbs(self) -> bool:
        """Whether trials are compared on the way."""
        return len(self.plan.rungs) > 1

    def _reached(self, number: int, trial: Trial) -> bool:
        """Whether a result is that of the rung its trial was last sent to."""
        return trial.state != "complete" or not self._climbs or str(self._target(number)) in trial.rungs

    def _rests(self, trial: Trial) -> bool:
        """Whether a trial has ended a rung but not the last one."""
        return self._climbs and trial.state == "complete" and bool(trial.rungs) and str(self.plan.rungs[-1]) not in trial.rungs

    def _target(self, number: int) -> int:
        """Epochs of the rung that a trial is trained to next."""
        rungs = self.plan.rungs
        if number not in self.resting:
            return rungs[self.plan.scheduler.first_rung(number, rungs)]
        return rungs[min(rungs.index(self._epochs_of(self.resting[number])) + 1, len(rungs) - 1)]

    def _epochs_of(self, trial: Trial) -> int:
        return max(int(epochs) for epochs in trial.rungs)

    def _carried(self) -> int | None:
        """The number of the resting trial that the scheduler carries on now."""
        if not self._climbs or not self.resting:
            return None
        known = {t.number: t for t in (*self.results.values(), *self.resting.values()) if t.rungs}
        marks = {number: self._marks(trial) for number, trial in known.items()}
        over = {number for number, trial in self.results.items() if trial.state != "complete"}
        running = set(self.runner.running)
        number: int | None = self.plan.scheduler.next(self.plan.rungs, standings_of(marks, running, over))
        return number

    def _marks(self, trial: Trial) -> dict[int, Mark]:
        """A trial's objectives at its rungs: the first as it was there, the others as they are known now."""
        rungs, now = self.plan.rungs, values_of(trial, self.plan.objectives, self.plan.directions) if trial.values else ()
        sign = -1.0 if self.plan.direction == "maximize" else 1.0
        places = {rungs.index(int(epochs)): sign * value for epochs, value in trial.rungs.items() if int(epochs) in rungs}
        return {place: Mark(values=(value, *now[1:]), violation=violation(trial)) for place, value in places.items()}

    def _cut_short(self, trial: Trial) -> Trial:
        """A resting trial at the end of the search."""
        reason = f"not carried on past epoch {self._epochs_of(trial)} of {self.plan.rungs[-1]}"
        return trial.replace(state="pruned", reason=reason)

    # ---- ends ----

    def _settle(self, outcome: Outcome) -> None:
        number = outcome.key
        left_behind = self.study.result(self.suggested[number])
        if left_behind and self._reached(number, left_behind):
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
        if outcome.kind != "died" or not was_killed(outcome.value):
            return False
        self.deaths[outcome.key] += 1
        return self.deaths[outcome.key] < LIVES

    def _failure(self, outcome: Outcome) -> Trial:
        state, cause, reason = explain(outcome)
        candidate = candidate_of(self.suggested[outcome.key])
        trial = Trial(number=outcome.key, candidate=candidate, state=state, cause=cause, reason=reason, seconds=outcome.seconds)
        if rested := self.resting.get(outcome.key):
            trial = trial.replace(rungs=rested.rungs, num_parameters=rested.num_parameters, seconds=rested.seconds + outcome.seconds)
        place = self.study.trial_folder(outcome.key)
        place.write(candidate, trial)
        if isinstance(outcome.value, WorkerBug):
            (place.path / "traceback.txt").write_text(outcome.value.trace)
        return trial

    def _finish(self, trial: Trial) -> None:
        """Takes in what came out: the trial rests if it has ended a rung but not the last, else it is over."""
        self.resting.pop(trial.number, None)
        if self._rests(trial):
            self.resting[trial.number] = trial
            self.study.report(trial.number, self._epochs_of(trial), trial.values[self.plan.objective])
            self._report(trial, event="trial.rested")
            return
        self.results[trial.number] = trial
        if self._climbs and trial.state == "complete" and trial.rungs:
            self.study.report(trial.number, self._epochs_of(trial), trial.values[self.plan.objective])
        self._tell(trial)
        self._report(trial)

    def _tell(self, trial: Trial) -> None:
        self.study.tell(trial, [trial.values[o] for o in self.plan.objectives] if trial.state == "complete" else None)

    def _stop_all(self) -> None:
        """Kills what runs. In the study these trials stay open: with more time they are run again."""
        self._is_stopped = True
        for number in self.runner.running:
            seconds = self.runner.cancel(number)
            finished = self.study.result(self.suggested[number])
            if finished and self._reached(number, finished):
                self._finish(finished)
                continue
            if number in self.resting:
                continue  # it rests where it was
            reason = f"the search's time ({self.work.seconds:.0f} s) was used up before this trial had ended"
            candidate = candidate_of(self.suggested[number])
            trial = Trial(number=number, candidate=candidate, state="killed", cause="timeout", reason=reason, seconds=seconds)
            self.results[number] = trial
            self._report(trial)

    # ---- telling ----

    def _best(self) -> Trial | None:
        """The best trial so far; while none is complete, the best of those that have come furthest."""
        best = best_of(self.results.values(), self.plan.objective, self.plan.direction)
        if best or not self.resting:
            return best
        furthest = max(self._epochs_of(trial) for trial in self.resting.values())
        near = [trial for trial in self.resting.values() if self._epochs_of(trial) == furthest]
        return best_of(near, self.plan.objective, self.plan.direction)

    def _forward(self, number: int, event: str, fields: dict[str, Any]) -> None:
        self.work.emit(f"trial.{event}", **{**fields, "number": number})

    def _report(self, trial: Trial, event: str = "") -> None:
        best = self._best()
        self.work.emit(
            event or ("trial.finished" if trial.state in ("complete", "pruned") else "trial.failed"),
            number=trial.number, round=self.plan.round, trials=self.plan.num_trials, finished=len(self.results),
            state=trial.state, cause=trial.cause, reason=trial.reason,
            objective=self.plan.objective, value=trial.values.get(self.plan.objective),
            best=best and best.values[self.plan.objective], best_number=best and best.number, seconds=round(trial.seconds, 3),
            num_parameters=trial.num_parameters, architecture=describe(trial.candidate.architecture), trial=trial.to_json(),
        )  # fmt: skip

    def _result(self) -> SearchResult:
        self._rest_for_good()
        leave(self.study.folder, self.plan, self.results.values(), self.suggested)
        trials = tuple(self.results[number] for number in sorted(self.results))
        trials = with_weights(trials, lambda number: self.study.trial_folder(number).path / WEIGHTS)
        best = self._best()
        if best is None:
            raise self._without_result(trials)
        many = len(self.plan.objectives) > 1
        front = front_of(trials, self.plan.objectives, self.plan.directions)
        if not violation(best):
            best = chosen_of(front, self.plan.objectives, self.plan.directions) if many else self._believed(best)
        return SearchResult(
            study=self.plan.name, objective=self.plan.objective, direction=self.plan.direction, trials=trials, best_number=best.number,
            objectives=self.plan.objectives if many else (), directions=self.plan.directions if many else (),
            front=tuple(trial.number for trial in front) if many else (), derived=self.asker.derived,
        )  # fmt: skip

    def _without_result(self, trials: Sequence[Trial]) -> AthanorError:
        if self.work.seconds is not None and all(trial.state == "killed" and trial.cause == "timeout" for trial in trials):
            had = f"the search had {self.work.seconds:.0f} s, too few for one trial"
            return NoTimeError(f"{had}; raise budget, or lower search.epochs or search.rows")
        return StageFailedError(f"none of {len(trials)} trials completed: {tally(trials)}")

    def _believed(self, best: Trial) -> Trial:
        """The trial that the strategy believes in, if it says so: the best of many noisy values is often a lucky one."""
        number = self.asker.recommended(self.study.history())
        believed = self.results.get(-1 if number is None else number)
        if believed is None or believed.state != "complete" or violation(believed) or believed.number == best.number:
            return best
        self.work.emit("search.believed", number=believed.number, value=believed.values[self.plan.objective], instead_of=best.number)
        return believed

    def _rest_for_good(self) -> None:
        """Resting trials are pruned in the result; in the study they stay open if it was the time that ended."""
        best = self._best()
        decided = not self._is_stopped and not self._more()  # else it was the time that ended
        for number, trial in sorted(self.resting.items()):
            only = best is not None and best.number == number  # nothing was trained to the end: the furthest stands for it
            reason = f"the time was used up at epoch {self._epochs_of(trial)} of {self.plan.rungs[-1]}"
            self.results[number] = trial.replace(reason=reason) if only else self._cut_short(trial)
            if decided and (not only or self.elsewhere):
                self._tell(self.results[number])
        self.resting.clear()


def nothing_fits(closest: Trial, plan: Plan) -> str:
    """What to say where no trial meets the constraints: which one comes closest, and by what."""
    missed = [name for name, by in closest.constraints.items() if by > 0]
    limits = ", ".join(f"constraint.{name}={_figure(plan.constraints[name])}" for name in missed)
    reached = ", ".join(f"{name} {_figure(closest.values[name])}" for name in missed)
    return f"no trial meets {limits}: the closest is trial {closest.number} with {reached}; loosen the limit or widen the space"


def describe(architecture: JSON) -> str:
    """An architecture in one short line.

    >>> describe({"depth": 3, "widths": [8, 16], "block": "plain"})
    'depth=3 widths=8-16 block=plain'
    """
    return " ".join(f"{name}={_short(value)}" for name, value in architecture.items())


def _figure(value: float) -> str:
    """A cost or a limit on it: counts are told whole.

    >>> _figure(54152.0), _figure(0.016251)
    ('54152', '0.01625')
    """
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + describe(value) + "}"
    if isinstance(value, list | tuple):
        return "-".join(_short(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
