"""A study: what was suggested in a database, what came out in one file a trial.

    study.db                     the Optuna study in SQLite; a suggestion enters whole, in one transaction
    study.lock                   held by the one parent that writes here
    trials/N/result.json  the Trial record, written by the trial's own process before anybody is told
    trials/N/work/        the trial's checkpoints while it runs

A result counts if its digest holds and it answers the suggestion that the database holds, so a kill between the file
and the database loses nothing, and a damaged file or database only costs what it held.

With a PostgreSQL database in the place of study.db several parents, each with a folder of its own, work on one study:
see components/search/partners.py.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from components.artifacts import JSON, Candidate, Trial, digest_of
from components.errors import TryAgainError, UsageError
from components.search.interface import CONSTRAINTS
from components.search.partners import CONNECTION, Partners, masked, url_of
from components.search.proposal import candidate_of, decision_of
from components.search.ranking import shares_missed
from components.store import write_atomically

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

REFUSED = re.compile(  # what PostgreSQL says when trying again is no help
    r"authentication failed|no password supplied|(role|database) .* does not exist|no pg_hba\.conf entry|permission denied"
)
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
        write_atomically(self.path / "result.json", json.dumps(_answer(self.study, candidate, trial)))

    def read(self, candidate: Candidate) -> Trial | None:
        """The result of `candidate`, or None if there is none, it is damaged or it answers something else."""
        try:
            return _trial_in(json.loads((self.path / "result.json").read_text()), self.study, candidate)
        except (OSError, ValueError):
            return None


def _answer(study: str, candidate: Candidate, trial: Trial) -> JSON:
    body = {"study": study, "suggestion": decision_of(candidate), "trial": trial.to_json()}
    return {"digest": digest_of(body), **body}


def _trial_in(answer: Any, study: str, candidate: Candidate) -> Trial | None:
    try:
        body = {name: value for name, value in answer.items() if name != "digest"}
        if answer["digest"] != digest_of(body) or body["study"] != study or body["suggestion"] != decision_of(candidate):
            return None
        return Trial.from_json(body["trial"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class Study:
    """A study as its parent sees it: the only one on SQLite, one of several on PostgreSQL (`storage`).

    Use as a context manager: its end frees the trials of this parent that have no result for the others. Raises
    `TryAgainError` when the database is locked, full or away, `UsageError` for one that cannot be used at all.
    """

    def __init__(self, folder: Path, name: str, directions: Sequence[str], storage: str | None = None) -> None:
        self.folder, self.name, self.directions = folder, name, tuple(directions)
        self.path = folder / "study.db"
        self._where = masked(storage) if storage else str(self.path)
        self._partners: Partners | None = None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._one_line_errors():
            self._study = self._join(url_of(storage)) if storage else self._alone()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._partners:
            self._partners.close()

    @property
    def is_shared(self) -> bool:
        """Whether other parents may work on it: history then grows, and trials end, without this one."""
        return self._partners is not None

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """While this parent looks at the history and adds a suggestion to it, no other one does."""
        if self._partners is None:
            yield
            return
        with self._one_line_errors(), self._partners.asking():
            yield

    def history(self) -> list[FrozenTrial]:
        """Every trial that was suggested, in order; those without a result are running."""
        with self._one_line_errors():
            return self._study.get_trials(deepcopy=False)

    def add(self, proposal: FrozenTrial) -> FrozenTrial:
        """Stores a suggestion, which is this parent's to run; returns it as it is read back. To be called while `asking`."""
        with self._one_line_errors():
            trial_id = self._storage.create_new_trial(self._study._study_id, template_trial=proposal)
            stored = self._storage.get_trial(trial_id)
            if self._partners:
                self._partners.take(stored.number)
            return stored

    def claim(self, number: int) -> bool:
        """Whether a trial without a result is this parent's to run: unless another one that lives has it."""
        with self._one_line_errors():
            return self._partners is None or self._partners.claim(number)

    def report(self, number: int, step: int, value: float) -> None:
        """Writes what a trial that goes on later has reached at a fidelity (of the first objective)."""
        with self._one_line_errors(), _unless_it_is_over():
            self._storage.set_trial_intermediate_value(self._id_of(number), step, value)

    def tell(self, trial: Trial, values: Sequence[float] | None) -> None:
        """Writes a trial's end into the database, unless it is there: its objectives, and by which share of its limit it misses
        each constraint, for samplers sum these."""
        from optuna.trial import TrialState

        ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        state = ends.get(trial.state, TrialState.FAIL)
        told = list(values) if values is not None and state is TrialState.COMPLETE else None
        with self._one_line_errors(), _unless_it_is_over():
            if self._partners:
                self._partners.publish(trial.number, _answer(self.name, candidate_of(self._read(trial.number)), trial))
            if trial.constraints:
                missed = [share for _, share in sorted(shares_missed(trial).items())]
                self._storage.set_trial_system_attr(self._id_of(trial.number), CONSTRAINTS, missed)
            self._study.tell(trial.number, told, state, skip_if_finished=True)

    def trial_folder(self, number: int) -> TrialFolder:
        return TrialFolder(self.folder, self.name, number)

    def result(self, trial: FrozenTrial) -> Trial | None:
        """What came out of a suggestion, if it did, here or at another parent."""
        candidate = candidate_of(trial)
        here = self.trial_folder(trial.number).read(candidate)
        if self._partners is None or (here and not trial.state.is_finished()):
            return here
        with self._one_line_errors():
            published = self._partners.result(trial.number)
        return _trial_in(published, self.name, candidate) or here

    @property
    def _storage(self) -> optuna.storages.BaseStorage:
        return self._study._storage

    def _id_of(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)

    def _read(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._id_of(number))

    def _alone(self) -> optuna.Study:
        if not is_sound(self.path):
            _set_aside(self.path)
        return _open(f"sqlite:///{self.path.absolute()}", {"timeout": LOCK_SECONDS}, self.name, self.directions)

    def _join(self, url: str) -> optuna.Study:
        self._partners = Partners(url, self.name)
        with self._partners.asking(everywhere=True):  # Optuna makes its tables without regard to others
            self._partners.prepare()
            return _open(url, CONNECTION, self.name, self.directions)

    def _one_line_errors(self) -> contextlib.AbstractContextManager[None]:
        return _one_line_errors(self._where)


def reach(storage: str) -> None:
    """Connects once: what is wrong with an address is told before anything is begun. Raises as `Study` does."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url_of(storage), connect_args=CONNECTION, poolclass=sqlalchemy.NullPool)
    with _one_line_errors(masked(storage)), engine.connect():
        pass


@contextlib.contextmanager
def _one_line_errors(where: str) -> Iterator[None]:
    import optuna
    import sqlalchemy.exc

    try:
        yield
    except (sqlite3.OperationalError, sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError, ConnectionError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        why = str(getattr(cause, "orig", None) or cause or error).strip().splitlines()[0]
        if REFUSED.search(why):
            raise UsageError(f"search.storage={where} cannot be used ({why}); mend the address or the rights") from error
        if isinstance(cause, sqlalchemy.exc.IntegrityError | sqlalchemy.exc.ProgrammingError | sqlalchemy.exc.DataError):
            raise
        raise TryAgainError(f"study database {where} cannot be used now ({why}); run the same command again") from error


@contextlib.contextmanager
def _unless_it_is_over() -> Iterator[None]:
    """Another parent may have told a trial's end in the meantime: the first one counts."""
    import optuna

    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
        yield


def _open(url: str, connection: Mapping[str, Any], name: str, directions: Sequence[str]) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": dict(connection)}),
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
