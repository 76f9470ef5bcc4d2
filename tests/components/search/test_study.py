"""A study's database: one writer on SQLite, several parents on PostgreSQL, and a server that goes away."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial

from components import build
from components.artifacts import DatasetVersion, Trial
from components.errors import TryAgainError, UsageError
from components.fingerprint import ROOT
from components.search.partners import masked, url_of
from components.search.proposal import candidate_of, decision_of, propose
from components.search.study import Study, reach
from tests import postgres
from tests.components.search import standin


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A server of this module's own."""
    if postgres.MISSING:
        pytest.skip(postgres.MISSING)
    with postgres.server() as running:
        yield running


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A study of the test's own."""
    return str(request.node.name)


def suggest(study: Study, dataset: DatasetVersion) -> FrozenTrial:
    """What a parent does to get its next trial."""
    with study.asking():
        proposal = propose(study.history(), dataset, standin.config(), direction="minimize", seed=0)
        assert proposal is not None
        return study.add(proposal)


def outcome(trial: FrozenTrial, value: float, **fields: Any) -> Trial:
    return Trial(number=trial.number, candidate=candidate_of(trial), state="complete", values={"rmse": value}, **fields)


# ---- alone ----


def test_on_sqlite_a_study_is_its_parents_alone(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Every trial may be run, nobody else changes it, and a result is a file."""
    with Study(tmp_path, "s", ["minimize"]) as study:
        trial = suggest(study, dataset)
        assert not study.is_shared
        assert study.claim(trial.number)
        assert study.result(trial) is None
        study.trial_folder(0).write(candidate_of(trial), outcome(trial, 0.5))
        study.tell(outcome(trial, 0.5), [0.5])
        assert study.result(trial) == outcome(trial, 0.5)
        assert [t.value for t in study.history()] == [0.5]


def test_told_with_constraints_and_rungs_optuna_sees_them(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Several objectives, constraints by name as shares of their limits, a value a rung; the first telling counts."""
    with Study(tmp_path, "s", ["minimize", "minimize"]) as study:
        trial = suggest_many(study, dataset)
        study.report(0, 3, 0.7)
        told = outcome(trial, 0.5, constraints={"size_kb": -1.0, "macs": 2.0}).replace(values={"size_kb": 9.0, "macs": 102.0})
        study.tell(told, [0.5, 10.0])
        study.tell(told, [0.1, 1.0])
        study.report(0, 4, 0.1)
    found = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/study.db").trials[0]
    assert found.values == [0.5, 10.0]
    assert found.system_attrs["constraints"] == [0.02, -0.1]
    assert found.intermediate_values == {3: 0.7}


def suggest_many(study: Study, dataset: DatasetVersion) -> FrozenTrial:
    proposal = propose(study.history(), dataset, standin.config(), direction=["minimize", "minimize"], seed=0)
    assert proposal is not None
    return study.add(proposal)


# ---- several parents ----


def test_two_parents_at_once_never_get_the_same_suggestion(
    server: postgres.Server, dataset: DatasetVersion, tmp_path: Path, name: str
) -> None:
    """They ask by turns: numbers without a gap, no candidate twice, and each parent's study is the same in the end."""
    found: dict[str, list[FrozenTrial]] = {"a": [], "b": []}

    def work(parent: str) -> None:
        with Study(tmp_path / parent, name, ["minimize"], server.url) as study:
            assert study.is_shared
            for _ in range(6):
                found[parent].append(suggest(study, dataset))

    threads = [threading.Thread(target=work, args=(parent,)) for parent in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [*found["a"], *found["b"]]
    assert sorted(trial.number for trial in everything) == list(range(12))
    assert len({decision_of(candidate_of(trial)) for trial in everything}) == 12
    with Study(tmp_path / "c", name, ["minimize"], server.url) as study:
        assert {t.number: t.params for t in study.history()} == {t.number: t.params for t in everything}


def test_while_one_asks_the_other_waits(server: postgres.Server, tmp_path: Path, name: str) -> None:
    """The turn is exclusive between parents."""
    entered = threading.Event()
    with Study(tmp_path / "a", name, ["minimize"], server.url) as a, Study(tmp_path / "b", name, ["minimize"], server.url) as b:

        def wait_for_turn() -> None:
            with b.asking():
                entered.set()

        thread = threading.Thread(target=wait_for_turn)
        with a.asking():
            thread.start()
            assert not entered.wait(0.3)
        assert entered.wait(20)
        thread.join()


def test_a_trial_is_run_by_one_parent_and_free_when_that_ends(
    server: postgres.Server, dataset: DatasetVersion, tmp_path: Path, name: str
) -> None:
    """A living parent keeps what it suggested; what an ended one left is for who comes first."""
    with Study(tmp_path / "b", name, ["minimize"], server.url) as b, Study(tmp_path / "c", name, ["minimize"], server.url) as c:
        with Study(tmp_path / "a", name, ["minimize"], server.url) as a:
            number = suggest(a, dataset).number
            assert a.claim(number)
            assert not b.claim(number)
        until = time.monotonic() + 20  # the server frees what a closed connection held when it notices
        while not (taken := b.claim(number)) and time.monotonic() < until:
            time.sleep(0.05)
        assert taken
        assert not c.claim(number)


HOLDER = """
import sys
from pathlib import Path
from components.search.study import Study
with Study(Path(sys.argv[1]), sys.argv[2], ["minimize"], sys.argv[3]) as study:
    print(study.claim(0), flush=True)
    sys.stdin.read()
"""


def test_trials_of_a_killed_parent_can_be_taken_over(server: postgres.Server, dataset: DatasetVersion, tmp_path: Path, name: str) -> None:
    """SIGKILL to a parent: the server notices by itself."""
    with Study(tmp_path / "a", name, ["minimize"], server.url) as study:
        suggest(study, dataset)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "b"), name, server.url]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder,
        Study(tmp_path / "c", name, ["minimize"], server.url) as study,
    ):
        assert holder.stdout
        assert holder.stdout.readline() == "True\n"
        assert not study.claim(0)
        holder.send_signal(signal.SIGKILL)
        until = time.monotonic() + 20
        while not (mine := study.claim(0)) and time.monotonic() < until:
            time.sleep(0.02)
        assert mine


def test_a_result_is_known_to_parents_that_do_not_see_its_folder(
    server: postgres.Server, dataset: DatasetVersion, tmp_path: Path, name: str
) -> None:
    """The whole record, as the first one told it; a second opinion changes nothing, at neither parent."""
    with Study(tmp_path / "a", name, ["minimize"], server.url) as a, Study(tmp_path / "b", name, ["minimize"], server.url) as b:
        trial = suggest(a, dataset)
        assert b.result(b.history()[0]) is None
        first = outcome(trial, 0.5, history=({"epoch": 1, "rmse": 0.6},), seconds=1.5)
        a.trial_folder(0).write(candidate_of(trial), first)
        a.tell(first, [0.5])
        assert b.result(b.history()[0]) == first
        second = outcome(trial, 0.4)
        b.trial_folder(0).write(candidate_of(trial), second)
        b.tell(second, [0.4])
        assert [study.history()[0].value for study in (a, b)] == [0.5, 0.5]
        assert [study.result(study.history()[0]) for study in (a, b)] == [first, first]


# ---- a server that is away ----


def test_a_server_that_goes_away_is_one_line_and_nothing_is_lost(dataset: DatasetVersion, tmp_path: Path, name: str) -> None:
    """`TryAgainError` (75) without the password from everything that is tried; when it is back, the file tells what came out."""
    if postgres.MISSING:
        pytest.skip(postgres.MISSING)
    with postgres.server() as own:
        with Study(tmp_path / "a", name, ["minimize"], own.url) as study:
            trial = suggest(study, dataset)
            own.stop()
            study.trial_folder(0).write(candidate_of(trial), outcome(trial, 0.5))
            tries = (lambda: study.tell(outcome(trial, 0.5), [0.5]), study.history, lambda: study.claim(0), lambda: suggest(study, dataset))
            for attempt in tries:
                with pytest.raises(TryAgainError, match=r"study database postgresql://athanor@127.* cannot be used now") as caught:
                    attempt()
                assert "\n" not in str(caught.value)
                assert own.password not in str(caught.value)
        with pytest.raises(TryAgainError, match="cannot be used now"):
            Study(tmp_path / "a", name, ["minimize"], own.url)
        own.start()
        with Study(tmp_path / "a", name, ["minimize"], own.url) as study:
            known = study.result(study.history()[0])
            assert known == outcome(trial, 0.5)
            assert study.claim(0)
            study.tell(known, [0.5])
            assert study.history()[0].value == 0.5


@pytest.mark.parametrize(
    "storage", ["sqlite:///x.db", "mysql://u@h/d", "h/d", 5, "redis://h"], ids=["sqlite", "mysql", "no scheme", "a number", "redis"]
)
def test_storage_that_is_no_postgresql_is_refused(storage: Any) -> None:
    """The key, what is possible, and the value."""
    with pytest.raises(UsageError, match=r"search\.storage must be null or a PostgreSQL database, postgresql://user@host/database, got "):
        url_of(storage)


def test_a_wrong_database_or_password_is_a_usage_error(server: postgres.Server, tmp_path: Path) -> None:
    """Trying again would not help; the password is not shown."""
    for url, why in (
        (server.url.replace("/postgres", "/nowhere"), 'database "nowhere" does not exist'),
        (server.url.replace(server.password, "guessed"), "password authentication failed"),
    ):
        with pytest.raises(UsageError, match=why):
            reach(url)
        with pytest.raises(UsageError, match=why) as caught:
            Study(tmp_path, "s", ["minimize"], url)
        assert server.password not in str(caught.value)
        assert "guessed" not in str(caught.value)


def test_a_database_can_be_reached_or_not(server: postgres.Server) -> None:
    """Nothing is said of one that answers; one that does not may do so later."""
    reach(server.url)
    with pytest.raises(TryAgainError, match=r"study database postgresql://ann@127\.0\.0\.1:1/studies cannot be used now"):
        reach("postgresql://ann:secret@127.0.0.1:1/studies")


def test_a_password_is_never_shown() -> None:
    """Neither in the address nor among its options."""
    assert masked("postgresql://ann:secret@db:5432/studies?password=secret") == "postgresql://ann@db:5432/studies"
    assert masked("postgresql://db/studies") == "postgresql://db/studies"
