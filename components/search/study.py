"""A study on disk: what was suggested in SQLite, what came out in one file a trial.

    study.db                     the Optuna study; a suggestion enters whole, in one transaction
    study.lock                   held by the one parent that writes to it
    trials/N/result.json  the Trial record, written by the trial's own process before anybody is told
    trials/N/work/        the trial's checkpoints while it runs

A result counts if its digest holds and it answers the suggestion that the database holds, so a kill between the file
and the database loses nothing, and a damaged file or database only costs what it held.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts import Candidate, Trial, digest_of
from components.errors import TryAgainError
from components.search.proposal import candidate_of, decision_of
from components.store import write_atomically

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

CONSTRAINTS = "constraints"  # the system attribute under which samplers of Optuna look for constraint values
LOCK_SECONDS = 20.0  # how long SQLite waits for another writer before it gives up


class TrialFolder:
    """Where one trial of one study keeps its checkpoints and leaves its result."""

    def __init__(self, folder: Path, study: str, number: int) -> None:
        self.study, self.number = study, number
        self.path = folder / "trials" / str(number)
        self.work = self.path / "work"

    def prepare(self, candidate: Candidate) -> Path:
        """The folder for the trial's checkpoints: as an interrupted run of the same candidate left it, else empty."""
        mark, owner = self.work / "owner", f"{self.study} {decision_of(candidate)}"
        if not mark.exists() or mark.read_text() != owner:
            shutil.rmtree(self.path, ignore_errors=True)
            self.work.mkdir(mode=0o700, parents=True)
            write_atomically(mark, owner)
        return self.work

    def write(self, candidate: Candidate, trial: Trial) -> None:
        """Leaves the result of `candidate` (as it was suggested), whole or not at all."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        body = {"study": self.study, "suggestion": decision_of(candidate), "trial": trial.to_json()}
        write_atomically(self.path / "result.json", json.dumps({"digest": digest_of(body), **body}))

    def read(self, candidate: Candidate) -> Trial | None:
        """The result of `candidate`, or None if there is none, it is damaged or it answers something else."""
        try:
            body = json.loads((self.path / "result.json").read_text())
            if body.pop("digest") != digest_of(body):
                return None
            trial = Trial.from_json(body["trial"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return trial if body["study"] == self.study and body["suggestion"] == decision_of(candidate) else None


class Study:
    """The one writer of a study. Raises `TryAgainError` when the database stays locked or its disk is full."""

    def __init__(self, folder: Path, name: str, directions: Sequence[str]) -> None:
        self.folder, self.name, self.directions = folder, name, tuple(directions)
        self.path = folder / "study.db"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._one_line_errors():
            if not is_sound(self.path):
                _set_aside(self.path)
            self._study = _open(self.path, name, self.directions)

    def history(self) -> list[FrozenTrial]:
        """Every trial that was suggested, in order; those without a result are running."""
        with self._one_line_errors():
            return self._study.get_trials(deepcopy=False)

    def add(self, proposal: FrozenTrial) -> FrozenTrial:
        """Stores a suggestion; returns it as it is read back."""
        with self._one_line_errors():
            self._study.add_trial(proposal)
        return self.history()[-1]

    def report(self, number: int, step: int, value: float) -> None:
        """Writes what a trial that goes on later has reached at a fidelity (of the first objective)."""
        with self._one_line_errors():
            storage = self._study._storage
            storage.set_trial_intermediate_value(self._id_of(number), step, value)

    def tell(self, trial: Trial, values: Sequence[float] | None) -> None:
        """Writes a trial's end into the database, unless it is there: its objectives, and by how much it misses each constraint."""
        from optuna.trial import TrialState

        ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        state = ends.get(trial.state, TrialState.FAIL)
        with self._one_line_errors():
            if trial.constraints and not self.history()[trial.number].state.is_finished():
                missed = [trial.constraints[name] for name in sorted(trial.constraints)]
                self._study._storage.set_trial_system_attr(self._id_of(trial.number), CONSTRAINTS, missed)
            told = list(values) if values is not None and state is TrialState.COMPLETE else None
            self._study.tell(trial.number, told, state, skip_if_finished=True)

    def _id_of(self, number: int) -> int:
        found: int = self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        return found

    def trial_folder(self, number: int) -> TrialFolder:
        return TrialFolder(self.folder, self.name, number)

    def result(self, trial: FrozenTrial) -> Trial | None:
        """What came out of a suggestion, if it did."""
        return self.trial_folder(trial.number).read(candidate_of(trial))

    @contextlib.contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        import optuna
        import sqlalchemy.exc

        try:
            yield
        except (sqlite3.OperationalError, sqlalchemy.exc.OperationalError, optuna.exceptions.StorageInternalError) as error:
            why = str(getattr(error, "orig", None) or error.__cause__ or error).splitlines()[0]
            raise TryAgainError(f"study database {self.path} cannot be used now ({why}); run the same command again") from error


def _open(path: Path, name: str, directions: Sequence[str]) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    engine = {"connect_args": {"timeout": LOCK_SECONDS}}
    return optuna.create_study(
        storage=optuna.storages.RDBStorage(f"sqlite:///{path.absolute()}", engine_kwargs=engine),
        study_name=name,
        directions=list(directions),
        sampler=optuna.samplers.RandomSampler(),  # never asked: suggestions are made by `proposal.propose`
        load_if_exists=True,
    )


def is_sound(path: Path) -> bool:
    """Whether a database is absent or undamaged. Raises `sqlite3.OperationalError` if it cannot be looked at now."""
    if not path.exists():
        return True
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as connection:
            return connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return False


def _set_aside(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))
    for suffix in ("-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
