"""The parents that work on one study in a PostgreSQL database: who suggests now, and who runs which trial.

Each parent holds an advisory lock of its own for as long as its connection lives. The server releases it when the
parent ends, in whatever way: the trials that it ran are then free for the others. A second lock lets one parent at a
time look at the history and add a suggestion to it. What came out of a trial lies beside it, for parents that do not
see the folder it was written to. (A proxy that pools transactions, such as PgBouncer's default, breaks session locks.)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from components.artifacts import JSON
from components.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

ASKING = 0  # the place of the lock to suggest with; parents have places of their own above it
TURN_SECONDS = 120  # how long a parent waits for its turn to suggest
# A server that has vanished from the network is noticed within half a minute.
CONNECTION = {
    "connect_timeout": 10, "keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 30_000, "application_name": "athanor",
}  # fmt: skip
TABLE = """
create table if not exists athanor_trials (
    study text not null, number integer not null, owner integer, result text, primary key (study, number)
)"""

HELD = """
select owner from athanor_trials where study = :study and number = :number and owner <> :me and exists (
    select 1 from pg_locks where locktype = 'advisory' and granted and objsubid = 2 and classid = :key and objid::bigint = owner
    and database = (select oid from pg_database where datname = current_database())
)"""


def url_of(storage: Any) -> str:
    """SQLAlchemy's URL of a storage. Raises `UsageError` for anything but PostgreSQL, and without its driver."""
    if not isinstance(storage, str) or urlsplit(storage).scheme not in ("postgresql", "postgres"):
        shown = masked(storage) if isinstance(storage, str) else repr(storage)
        raise UsageError(f"search.storage must be null or a PostgreSQL database, postgresql://user@host/database, got {shown}")
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise UsageError(f"search.storage needs psycopg ({error}); pip install 'athanor[postgresql]'") from error
    return "postgresql+psycopg" + storage[storage.index(":") :]


def masked(storage: str) -> str:
    """A storage as it may be shown: without its password.

    >>> masked("postgresql://ann:secret@db/studies")
    'postgresql://ann@db/studies'
    """
    parts = urlsplit(storage)
    user, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=user.partition(":")[0] + at + host, query="").geturl()


def apart(storage: str) -> tuple[str, str | None]:
    """A storage's address without its password, all else as it was, and the password if it holds one.

    >>> apart("postgresql://ann:s%40cret@db/studies?sslmode=require")
    ('postgresql://ann@db/studies?sslmode=require', 's@cret')
    >>> apart("postgresql://db/studies")
    ('postgresql://db/studies', None)
    """
    parts = urlsplit(storage)
    options = parse_qsl(parts.query, keep_blank_values=True)
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    secret = unquote(password) if colon else dict(options).get("password")
    if secret is None:
        return storage, None
    host = parts.netloc.rpartition("@")[2]
    kept = urlencode([(name, value) for name, value in options if name != "password"])
    return parts._replace(netloc=f"{user}@{host}" if user else host, query=kept).geturl(), secret


class Partners:
    """One parent among those that work on `study`. Raises SQLAlchemy's errors, and `ConnectionError` once its
    lock was lost with its connection."""

    def __init__(self, url: str, study: str) -> None:
        import sqlalchemy

        self.study = study
        self.key = int.from_bytes(hashlib.sha256(study.encode()).digest()[:4]) >> 1
        self.me = secrets.randbelow(2**31 - 2) + 1
        self._engine = sqlalchemy.create_engine(url, connect_args=CONNECTION, poolclass=sqlalchemy.NullPool)
        self._connection: Connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._execute(f"set lock_timeout = '{TURN_SECONDS}s'")
        self._execute("select pg_advisory_lock(:key, :me)", key=self.key, me=self.me)

    def prepare(self) -> None:
        """Makes what is kept beside Optuna's tables. To be called while `asking`."""
        self._execute(TABLE)

    def close(self) -> None:
        """Releases this parent's trials."""
        with contextlib.suppress(Exception):  # a connection that was lost has nothing left to release
            self._connection.close()
        self._engine.dispose()

    @contextlib.contextmanager
    def asking(self, everywhere: bool = False) -> Iterator[None]:
        """This parent's turn: no other parent of the study (with `everywhere`, of the database) is in it at the same time."""
        place = {"key": 0 if everywhere else self.key, "me": ASKING}
        self._execute("select pg_advisory_lock(:key, :me)", **place)
        try:
            yield
        finally:
            if not self._connection.invalidated:
                self._execute("select pg_advisory_unlock(:key, :me)", **place)

    def claim(self, number: int) -> bool:
        """Whether the trial is this parent's from now on: it is, unless a parent that lives has it."""
        if self._is_held_by_another(number):
            return False
        with self.asking():
            if self._is_held_by_another(number):
                return False
            self.take(number)
            return True

    def take(self, number: int) -> None:
        """Makes the trial this parent's. To be called while `asking`."""
        self._execute(
            "insert into athanor_trials (study, number, owner) values (:study, :number, :me) "
            "on conflict (study, number) do update set owner = excluded.owner",
            study=self.study, number=number, me=self.me,
        )  # fmt: skip

    def publish(self, number: int, result: JSON) -> None:
        """Keeps what came out of a trial; what was published first stays."""
        self._execute(
            "insert into athanor_trials (study, number, owner, result) values (:study, :number, :me, :result) "
            "on conflict (study, number) do update set result = coalesce(athanor_trials.result, excluded.result)",
            study=self.study, number=number, me=self.me, result=json.dumps(result),
        )  # fmt: skip

    def result(self, number: int) -> JSON | None:
        """What was published of a trial."""
        found = self._value("select result from athanor_trials where study = :study and number = :number", number=number)
        return None if found is None else json.loads(found)  # type: ignore[no-any-return]

    def _is_held_by_another(self, number: int) -> bool:
        return self._value(HELD, number=number, me=self.me, key=self.key) is not None

    def _value(self, statement: str, **values: Any) -> Any:
        return self._execute(statement, study=self.study, **values).scalar()

    def _execute(self, statement: str, **values: Any) -> Any:
        import sqlalchemy

        if self._connection.invalidated:  # SQLAlchemy would connect anew, without this parent's lock
            raise ConnectionError("the connection was lost")
        return self._connection.execute(sqlalchemy.text(statement), values)
