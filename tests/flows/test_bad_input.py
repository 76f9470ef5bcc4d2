"""What a user can get wrong or a machine can refuse: one line, the right exit code, and nothing half-written.

Mistakes that need no server go through the command line in this process (`athanor stage` is a stage's own door);
a few go through the whole pipeline as a user starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.data.dataset.idx import Idx
from components.data.dataset.image_folder import ImageFolder
from components.processes import WorkerBug
from flows.cli import VERBS, Command, explain, main
from flows.table import STAGES
from tests.flows.conftest import SMALL, Athanor

Finished = tuple[Athanor, dict[str, Any]]


def refused(capsys: pytest.CaptureFixture[str], *words: str, code: int) -> str:
    """The one line that `athanor` says, in this process, when it ends with `code`."""
    capsys.readouterr()
    ended = main(list(words))
    said = capsys.readouterr()
    assert ended == code, f"athanor {' '.join(words)} ended with {ended}, not {code}:\n{said.err}"
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("athanor: ")
    assert len(lines[0]) < 600
    return lines[0]


def artifacts(home: Path) -> list[Path]:
    """Whatever lies in the artifact store, temporary folders included."""
    return sorted(path for path in (home / "artifacts").glob("*/*"))


LOOKING = ("status", "leaderboard", "verify", "clean", "doctor", "ui")


# ---- the command line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("rnu", "unknown verb 'rnu'; did you mean 'run'? (choices: "),
        ("xyz", "unknown verb 'xyz' (choices: "),
        ("run --jsno", "unknown flag '--jsno'; did you mean '--json'? "),
        ("run seed", "athanor run does not take 'seed'; settings have the form key=value"),
        ("run dataset=csv", "dataset.path is needed: add dataset.path=PATH"),
        ("run dataset=idx", "dataset.path is needed: add dataset.path=PATH"),
        ("run sede=1", "unknown key 'sede'; did you mean 'seed'?"),
        ("plan space=convnt", "unknown space 'convnt'; did you mean 'convnet'?"),
        ("run gate=[]", "gate cannot be empty"),
        ("ci search.trials=many", "search.trials must be a whole number, at least 1, got 'many'"),
        ("deploy cron=99_*_*_*_*", "the minute of cron '99 * * * *' must be *, a number from 0 to 59, a-b, */n or a list, got '99'"),
        ("deploy cron=0_3_*_*_xyz", "the weekday of cron '0 3 * * xyz' must be *, a number from 0 to 7"),
        ("deploy cron=often", "cron must have five fields (minute hour day month weekday), such as '0 3 * * *', got 'often'"),
        ("deploy", "athanor deploy needs a schedule: cron='0 3 * * *'"),
        ("stage", "athanor stage needs the name of a stage"),
        ("stage trian", "unknown stage 'trian'; did you mean 'train'?"),
        ("stage train version", "athanor stage does not take 'version'"),
        ("report", "there are no runs yet; start one with: athanor run"),
        ("leaderboard", "no finished search yet; start one with: athanor run"),
        ("compare", "athanor compare needs two runs"),
        ("compare a", "athanor compare needs two runs"),
        ("compare a b", "there are no runs yet"),
        ("compare a b c", "athanor compare does not take 'c'"),
        ("predict", "athanor predict needs the path of new data"),
        ("predict rows.csv", "no model has a champion yet; make one with: athanor run"),
        ("predict rows.csv model=nope", "unknown model 'nope'"),
        ("predict rows.csv to=x.csv", "athanor predict does not take 'to=x.csv'"),
        ("promote", "athanor promote needs MODEL and VERSION"),
        ("promote digits", "athanor promote needs MODEL and VERSION"),
        ("promote digits 1 2", "athanor promote does not take '2'"),
        ("promote nope 1", "unknown model 'nope'"),
        ("rollback", "no model has a champion yet"),
        ("lineage", "athanor lineage needs MODEL [VERSION]"),
        ("lineage digits one", "a version is a whole number, got 'one'; the versions of 'digits' are none"),
        ("data", "athanor data needs add, push or pull"),
        ("data ad", "unknown word after data 'ad'; did you mean 'add'?"),
        ("data add", "athanor data needs NAME and PATH"),
        ("data add faces", "athanor data needs NAME and PATH"),
        ("data add faces a b", "athanor data does not take 'b'"),
        *((f"{verb} x", f"athanor {verb} does not take 'x'") for verb in LOOKING),
        *((f"{verb} x=1", f"athanor {verb} does not take 'x=1'") for verb in LOOKING),
    ],
)
def test_a_wrong_command_is_one_line(words: str, line: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown verbs, flags and words, and missing nouns: exit 2, and nothing was done."""
    said = refused(capsys, *(word.replace("_", " ") for word in words.split()), code=2)
    assert said.startswith(f"athanor: {line}"), said
    assert artifacts(home) == []
    assert not (home / "mlflow.db").exists() or "nope" in words


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("objective=acuracy", "unknown objective 'acuracy'; did you mean 'accuracy'?"),
        ("objective=[latency_ms]", "objective must begin with one of accuracy, auc, log_loss"),
        ("objective=[accuracy,latncy]", "unknown objective 'latncy'; did you mean 'latency_ms'?"),
        ("constraint.latency_ms=-1", "constraint.latency_ms must be a positive number, got -1"),
        ("target.accuracy=2", "target.accuracy must be at most 1, which is perfect, got 2"),
        ("rounds=0", "rounds must be a whole number of at least 1, got 0"),
        ("search.rows=0", "search.rows must be a whole number of at least 1, got 0"),
        ("search.proxies=maybe", "search.proxies must be true or false, got 'maybe'"),
        ("search.trial_seconds=0", "search.trial_seconds: a duration must be positive, got 0"),
        ("search.keep=-1", "search.keep must be a whole number of at least 0, got -1"),
        ("fusion=ensembel", "unknown fusion 'ensembel'; did you mean 'ensemble'?"),
        ("fusion=null", "fusion cannot be null (choices: ensemble, feature_fusion, greedy_soup, none, stacking, uniform_soup)"),
        ("fusion.members=1", "fusion.members must be a whole number of at least 2, got 1"),
        ("fusion=greedy_soup fusion.finetunes=-1", "fusion.finetunes must be a whole number of at least 0, got -1"),
        ("fusion=feature_fusion fusion.head=lat", "unknown fusion.head 'lat'; did you mean 'late'?"),
        ("search.warm_start=-1", "search.warm_start is a number of candidates (0: none), got -1"),
        ("search.storage=sqlite:///x.db", "search.storage must be null or a PostgreSQL database"),
        ("space.depths=[]", "space.depths must list at least one choice, got an empty list"),
        ("space.depths=2", "space.depths must be a list of choices, got 2; write space.depths=[2]"),
        ("space.widths=[24,many]", "each of space.widths must be a whole number, got 'many'"),
        ("space.widths=[true]", "each of space.widths must be a whole number, got True"),
        ("space.activations=[1]", "each of space.activations must be a name, got 1"),
        ("space.squeeze_excites=[2]", "each of space.squeeze_excites must be true or false, got 2"),
        ("space.largest_side=abc", "space.largest_side must be a whole number, got 'abc'"),
        ("space.dropout=abc", "space.dropout must be at least 0 and below 1, got 'abc'"),
        ("space=mlp space.dropout=2", "space.dropout must be at least 0 and below 1, got 2"),
        ("space=cell space.channels=[1.5]", "each of space.channels must be a whole number, got 1.5"),
        ("strategy.startup=-1", "strategy.startup must be a whole number of at least 2, got -1"),
        ("scheduler=asha scheduler.reduction=1", "scheduler.reduction must be a whole number of at least 2, got 1"),
        ("evaluator=zero_cost scheduler=asha", "scheduler=asha needs an evaluator that trains epoch by epoch, which evaluator=z"),
        ("evaluator=supernet", "evaluator=supernet needs a supernet that the strategy has trained"),
        ("strategy.startup=abc", "strategy.startup must be a whole number of at least 2, got 'abc'"),
        ("strategy=oneshot strategy.by=evolution", "strategy.by must be another strategy, as +strategy@strategy.by=evolution, got"),
        ("strategy=oneshot strategy.by=[a,b]", "strategy.by must be another strategy, as +strategy@strategy.by=evolution, got ['a', 'b']"),
        (
            "strategy=oneshot +strategy@strategy.by=evolution strategy.by.population=abc",
            "strategy.by.population must be a whole number of at least 1, got 'abc'",
        ),
        (
            "strategy=oneshot +strategy@strategy.by=evolution strategy.by.sample=20",
            "strategy.by.sample must be a whole number in 1..10 (strategy.by.population), got 20",
        ),
        ("strategy=oneshot +strategy@strategy.by=[a,b]", "unknown strategy 'a' (choices: darts, evolution"),
        ("strategy=oneshot +strategy@strategy.by=evolutoin", "unknown strategy 'evolutoin'; did you mean 'evolution'?"),
        ("strategy=oneshot +strategy@strategy.by=", "+strategy@strategy.by cannot be empty (choices: darts, evolution"),
        ("strategy=oneshot +strategy@strategy.by=[gp,tpe]", "+strategy@strategy.by takes one choice, got [gp,tpe]; write +str"),
        ("strategy=oneshot strategy@strategy.by=gp", "strategy@strategy.by has no choice yet that could be changed; write +str"),
        ("strategy=evolution strategy.population=???", "strategy.population must be given: add strategy.population=VALUE"),
        ("evaluator.keep_weights=abc", "evaluator.keep_weights must be true or false, got 'abc'"),
        ("objective=5", "objective must be a name or a list of names that begins with a metric, got 5; set objective=accuracy"),
        ("objective=true", "objective must be a name or a list of names that begins with a metric, got True"),
        ("objective=[[accuracy]]", "objective must be a name or a list of names that begins with a metric, got [['accuracy']]"),
        ("metrics.objective=5", "unknown metrics.objective 5 (choices: accuracy"),
        ("metrics.objective=[accuracy]", "unknown metrics.objective ['accuracy']; did you mean 'accuracy'?"),
        ("constraint=5", "constraint holds limits by name, got 5; write constraint.num_parameters=5"),
        ("target=0.9", "target holds values by the metric's name, got 0.9; write target.accuracy=0.9"),
        ("search=5", "search holds settings by name, got 5; write search.SETTING=VALUE, such as search.trials=16"),
        ("training=5", "training holds settings by name, got 5; write training.SETTING=VALUE"),
        ("plugins=5", "plugins must be a list of packages, got 5; write plugins=[5]"),
        ("evaluator=[train,inherit]", "evaluator takes one choice, got [train,inherit]; write evaluator=train"),
        ("target.accuracy=0.9 evaluator=zero_cost", "target.accuracy can never be met: evaluator=zero_cost gives naswot, synflow"),
        ("rounds=3", "rounds=3 aim at a target and none is set; add one, such as target.accuracy=0.99, or set rounds=1"),
        ("search.folds=5 evaluator=inherit", "search.folds=5 cross-validates trials, evaluator=inherit cannot; choose evaluator=train or"),
        ("search.folds=5 evaluator=zero_cost", "search.folds=5 cross-validates trials, evaluator=zero_cost cannot"),
        ("search.folds=1", "search.folds must be null, auto or a whole number of at least 2, got 1"),
        ("search.folds=foo", "search.folds must be null, auto or a whole number of at least 2, got 'foo'"),
        ("strategy=darts", "strategy=darts needs a supernet that can weigh operations against each other, which space=convnet and"),
        (
            "space=mlp strategy=oneshot evaluator=supernet",
            "strategy=oneshot needs a supernet, which shares weights between candidates, "
            "which space=mlp and evaluator=supernet do not offer; choose evaluator=inherit strategy=evolution or",
        ),
        ("budget=1s", "budget 1s is below what this pipeline's tail needs here; the least that works is 15s"),
    ],
)
def test_a_mistake_in_the_search_is_told_before_anything_is_started(
    words: str, line: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2 without a server, a worker or torch; the kindling is left out here, so whatever went on would fail."""
    monkeypatch.setattr("flows.launch.kindle", lambda: None)
    monkeypatch.setattr("flows.launch.prepare", lambda: pytest.fail("the servers were waited for"))
    for verb in ("run", "plan"):
        said = refused(capsys, verb, *words.split(), code=2)
        assert said.startswith(f"athanor: {line}"), said
    assert artifacts(home) == []


def test_ci_looks_ahead_too(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull request with a mistake in it is refused in a second."""
    monkeypatch.setattr("flows.launch.kindle", lambda: None)
    assert "did you mean 'accuracy'?" in refused(capsys, "ci", "objective=acuracy", code=2)


def test_every_verb_is_in_the_help_and_refuses_a_flag_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` after any verb is help."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in VERBS:
        assert f" {verb} " in text, verb
        assert "unknown flag '--forse'" in refused(capsys, verb, "--forse", code=2)
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert capsys.readouterr().out == text


def test_with_json_the_mistake_is_a_document_too(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One document on standard output, the line on standard error."""
    assert main(["report", "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out) == {"error": said.err.strip().removeprefix("athanor: "), "exit_code": 2}


def test_mistakes_about_models_and_files_that_exist(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a champion at hand: a wrong version, run, file or place for the answers."""
    athanor, document = finished
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "row.csv").write_text(",".join(["3"] * 64) + "\n")
    cases = [
        ("promote digits 99", 2, "model 'digits' has no version 99; it has 1"),
        ("promote digits one", 2, "a version is a whole number, got 'one'; the versions of 'digits' are 1"),
        ("lineage digits 99", 2, "model 'digits' has no version 99; it has 1"),
        ("lineage digit", 2, "unknown model 'digit'; did you mean 'digits'? (choices: digits)"),
        ("rollback digits", 2, "model 'digits' has no previous champion: version 1 is the first; name one with version=N"),
        ("rollback digits version=1", 2, "version 1 of 'digits' is champion already; name another with version=N"),
        ("rollback digit", 2, "unknown model 'digit'; did you mean 'digits'?"),
        ("predict rows.csv model=digit", 2, "unknown model 'digit'; did you mean 'digits'?"),
        (f"report {document['run'][:-1]}", 2, f"unknown run '{document['run'][:-1]}'; did you mean '{document['run']}'?"),
        ("predict rows.cvs", 65, "PATH 'rows.cvs' does not exist; did you mean 'rows.csv'?"),
        ("predict rows.csv", 65, "rows.csv is not lines of 64 comma-separated pixels"),
        ("predict row.csv out=nowhere/answers.csv", 2, f"out=nowhere/answers.csv: there is no folder {tmp_path}/nowhere"),
        (f"predict row.csv out={tmp_path}", 2, f"out={tmp_path} is a folder; name a file"),
    ]
    with contextlib.chdir(tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATHANOR_HOME", str(athanor.home))
        for words, code, line in cases:
            said = refused(capsys, *words.split(), code=code)
            assert said.startswith(f"athanor: {line}"), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["row.csv", "rows.csv"]


# ---- data -----------------------------------------------------------------------------------------------------


CHURN = ("dataset=csv", "dataset.path=churn.csv", "dataset.target=left")
IMAGES = ("dataset=image_folder", "dataset.path=pictures")
IDX = ("dataset=idx", "dataset.path=idx")
SOUND = [f"{i % 37}.5,{'abc'[i % 3]},{'yes' if i % 37 > 15 else 'no'}" for i in range(200)]
ONE_CLASS = [f"{i}.5,{'abc'[i % 3]},yes" for i in range(200)]
Prepare = Callable[[Path], object]


def table(folder: Path, rows: list[str], name: str = "churn.csv", encoding: str = "utf-8") -> None:
    (folder / name).write_text("\n".join(["usage,plan,left", *rows]) + "\n", encoding=encoding)


def with_row(row: str, encoding: str = "utf-8") -> Prepare:
    """A sound table, but for line 102."""
    return lambda folder: table(folder, [*SOUND[:100], row, *SOUND[100:]], encoding=encoding)


def sound(folder: Path) -> None:
    table(folder, SOUND)


def with_bytes(name: str, content: bytes) -> Prepare:
    return lambda folder: (folder / name).write_bytes(content)


def with_picture(change: Callable[[Path], object]) -> Prepare:
    def prepare(folder: Path) -> None:
        (folder / "pictures").mkdir()
        ImageFolder.example(folder / "pictures")
        change(folder / "pictures" / "dusk" / "007.png")

    return prepare


def idx_with_swapped_files(folder: Path) -> None:
    (folder / "idx").mkdir()
    Idx.example(folder / "idx")
    (folder / "idx" / "train-images-idx3-ubyte").write_bytes((folder / "idx" / "train-labels-idx1-ubyte").read_bytes())


def unreadable(folder: Path) -> None:
    sound(folder)
    (folder / "churn.csv").chmod(0)


MISTAKES: dict[str, tuple[Prepare, tuple[str, ...], str]] = {
    "empty folder of images": (lambda f: (f / "pictures").mkdir(), IMAGES, "pictures holds no images; put them in one folder per class"),
    "empty folder of idx files": (lambda f: (f / "idx").mkdir(), IDX, "idx has no file train-images-idx3-ubyte"),
    "truncated image": (
        with_picture(lambda f: f.write_bytes(f.read_bytes()[:-40])), IMAGES, "pictures/dusk/007.png is a truncated or damaged image",
    ),
    "not an image": (with_picture(lambda f: f.write_text("hello")), IMAGES, "pictures/dusk/007.png is not an image"),
    "wrong magic number": (idx_with_swapped_files, IDX, "train-images-idx3-ubyte is no idx file of images: its magic number must be"),
    "no target column": (sound, (*CHURN[:2], "dataset.target=lfet"), "has no column 'lfet' (dataset.target); did you mean 'left'?"),
    "no target named": (sound, CHURN[:2], "dataset.target must name the column to predict; the columns are usage, plan, left"),
    "ragged row": (with_row("1.5,a,yes,more"), CHURN, "churn.csv line 102 has 4 fields where the header has 3; correct the line"),
    "wrong encoding": (with_row("1.5,\u00e9,yes", "latin-1"), CHURN, "churn.csv line 102 is not utf-8"),
    "target of NaN": (with_row("1.5,a,NaN"), CHURN, "churn.csv line 102, column 'left': the target is missing (empty or NaN)"),
    "missing path": (lambda f: table(f, SOUND, "chrun.csv"), CHURN, "dataset.path 'churn.csv' does not exist; did you mean 'chrun.csv'?"),
    "folder for a file": (lambda f: (f / "churn.csv").mkdir(), CHURN, "dataset.path 'churn.csv' is a folder; dataset=csv reads one file"),
    "no rows": (lambda f: table(f, []), CHURN, "churn.csv has a header line but no rows; add rows"),
    "empty file": (with_bytes("churn.csv", b""), CHURN, "churn.csv is empty"),
    "damaged gzip": (with_bytes("churn.csv", b"\x1f\x8b junk"), CHURN, "churn.csv is a damaged gzip file"),
    "damaged archive": (with_bytes("pictures", b"PK\x03\x04 junk"), IMAGES, "pictures is neither a folder nor a .zip archive"),
    "unreadable file": (unreadable, CHURN, "churn.csv cannot be read (Permission denied); make it readable for this user"),
}  # fmt: skip


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that every mistake below is made in, so that each meets what the one before it left."""
    return tmp_path_factory.mktemp("used") / "home"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_data_are_one_line_and_leave_nothing(
    mistake: str, used: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 65 (2 where the command is at fault), no artifact, no damage: sound data are versioned right after it."""
    if mistake == "unreadable file" and os.geteuid() == 0:
        pytest.skip("root reads every file")
    monkeypatch.setenv("ATHANOR_HOME", str(used))
    monkeypatch.chdir(tmp_path)
    prepare, words, line = MISTAKES[mistake]
    prepare(tmp_path)
    before = artifacts(used)
    said = refused(capsys, "stage", "version", *words, code=2 if "must name" in line else 65)
    assert line in said
    assert artifacts(used) == before
    table(tmp_path, SOUND, "sound.csv")
    assert main(["stage", "version", CHURN[0], "dataset.path=sound.csv", CHURN[2]]) == 0
    assert len(artifacts(used)) == 1


def test_data_that_are_not_fit_stop_with_reasons(
    used: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One class only: the failing rows are the message, and no later stage finds a record to go on with."""
    monkeypatch.setenv("ATHANOR_HOME", str(used))
    monkeypatch.chdir(tmp_path)
    table(tmp_path, ONE_CLASS)
    assert main(["stage", "version", *CHURN]) == 0
    said = refused(capsys, "stage", "validate", *CHURN, code=65)
    assert "the data is not fit for training: classes: target 'left' has one class only ('yes')" in said
    assert not (used / "stages" / "validate.json").exists()


def test_a_wrong_path_and_a_wrong_column_are_said_before_anything_is_waited_for(fresh: Athanor) -> None:
    """No run is opened: a mistake must not cost the half minute that a server and a worker take to be ready."""
    sound(fresh.home.parent)
    line = fresh.fails("run", "dataset=csv", "dataset.path=chrun.csv", "dataset.target=left", code=65)
    assert line == "athanor: dataset.path 'chrun.csv' does not exist; did you mean 'churn.csv'?"
    line = fresh.fails("run", "dataset=csv", "dataset.path=churn.csv", "dataset.target=lfet", code=65)
    assert "has no column 'lfet' (dataset.target); did you mean 'left'?" in line
    assert not (fresh.home / "runs").exists()
    assert nothing_lives_in(fresh.home)


def test_unfit_data_stop_the_whole_pipeline(fresh: Athanor) -> None:
    """Through Prefect: exit 65, the run says failed and why, nothing is registered, and no process stays."""
    table(fresh.home.parent, ONE_CLASS)
    line = fresh.fails("run", *SMALL, *CHURN, code=65)
    assert "the data is not fit for training: classes: target 'left' has one class only" in line
    (row,) = fresh.json("status")["runs"]
    assert (row["state"], row["stage"]) == ("failed", "validate")
    assert "one class only" in row["why"]
    assert {path.parent.name for path in artifacts(fresh.home)} == {"version", "validate"}
    assert registered(fresh.home) == []
    with sqlite3.connect(fresh.home / "prefect.db") as database:
        attempts = dict(database.execute("select name, run_count from task_run").fetchall())
    assert {name.rpartition("-")[0]: count for name, count in attempts.items()} == {"version": 1, "validate": 1}  # no retry can help
    assert nothing_lives_in(fresh.home)


def registered(home: Path) -> list[int]:
    """The version numbers in MLflow's registry."""
    if not (home / "mlflow.db").exists():
        return []
    with sqlite3.connect(home / "mlflow.db") as database:
        return sorted(number for (number,) in database.execute("select version from model_versions"))


def nothing_lives_in(home: Path, patience: float = 8.0) -> bool:
    """Whether within a few seconds no process is left that was started with this state folder."""
    until = time.monotonic() + patience
    while living(home):
        if time.monotonic() > until:
            raise AssertionError(f"still alive: {living(home)}")
        time.sleep(0.2)
    return True


def living(home: Path) -> list[str]:
    """The command lines of processes whose environment names this state folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"ATHANOR_HOME={home}\0".encode() in (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found += [command] if command else []  # a zombie has none
    return found


# ---- the machine ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["a file", "below a file", "a read-only disk"])
def test_a_state_folder_that_is_not_writable(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the folder and ATHANOR_HOME; looking needs no writable folder."""
    (tmp_path / "file").write_text("mine")
    home = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "home", "a read-only disk": tmp_path / "disk" / "home"}[place]
    monkeypatch.setenv("ATHANOR_HOME", str(home))
    with disk(tmp_path / "disk", "ro") if "disk" in place else contextlib.nullcontext():
        for words in (["run", *SMALL], ["stage", "version", *SMALL], ["ui"], ["ci"]):
            line = refused(capsys, *words, code=2)
            assert line.startswith(f"athanor: state folder {home} cannot be written ("), line
            assert line.endswith("; set ATHANOR_HOME to one that can")
        assert main(["status"]) == 0
        assert main(["plan", *SMALL]) == 0
    assert (tmp_path / "file").read_text() == "mine"


@contextlib.contextmanager
def disk(folder: Path, options: str) -> Iterator[None]:
    """A small disk of one's own, where the machine allows it."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_before_a_run_is_said_at_once(tmp_path: Path) -> None:
    """Not after Prefect's server has failed to start on it."""
    with disk(tmp_path / "disk", "size=8m"):
        line = Athanor(tmp_path / "disk" / "home").fails("run", *SMALL, code=75)
    assert line.endswith("has 8 MB and a run needs 100; free some or move ATHANOR_HOME")


def test_a_disk_that_fills_up_within_a_stage(tmp_path: Path) -> None:
    """Exit 75, nothing half-written; with more space the same command works."""
    with disk(tmp_path / "disk", "size=120k"):
        athanor = Athanor(tmp_path / "disk" / "home")
        line = athanor.fails("stage", "version", *SMALL, code=75)
        assert "no space left to write" in line
        assert artifacts(athanor.home) == []
        subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path / "disk")], check=True)
        athanor("stage", "version", *SMALL)
        assert len(artifacts(athanor.home)) == 1
        athanor("verify")


@pytest.mark.parametrize("largest", [1_000, 30_000, 60_000])
def test_a_limit_on_the_size_of_files(fresh: Athanor, largest: int) -> None:
    """RLIMIT_FSIZE stands for a full disk where no disk can be mounted."""
    process = fresh.start("stage", "version", *SMALL, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert err.startswith("athanor: no space left to write")
    assert len(err.splitlines()) == 1
    assert out == ""
    assert artifacts(fresh.home) == []
    fresh("stage", "version", *SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("largest", [100_000, 2_000_000])
def test_a_limit_on_the_size_of_files_of_a_whole_run(fresh: Athanor, largest: int) -> None:
    """The databases of Prefect and MLflow meet it first; afterwards the same command works."""
    process = fresh.start("run", *SMALL, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)))
    _, err = process.communicate(timeout=200)
    assert process.returncode == 75, err
    assert [line for line in err.splitlines() if line.startswith("athanor: ")], err
    assert nothing_lives_in(fresh.home)
    assert fresh.json("run", *SMALL)["promoted"]


def test_a_locked_database_is_said_after_a_bounded_wait(copy_of_finished: Callable[[], Athanor]) -> None:
    """MLflow's while promoting and a study's while searching: 75, the database is named, and once it is free the command works."""
    athanor = copy_of_finished()
    for stage in ("version", "validate", "augment"):
        athanor("stage", stage, *SMALL)
    (study,) = athanor.home.glob("studies/*/study.db")
    more = ("stage", "search", *SMALL, "search.trials=3")
    with held(athanor.home / "mlflow.db"), held(study):
        started = time.monotonic()
        both = [athanor.start("promote", "digits", "1"), athanor.start(*more)]
        ended = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
        assert time.monotonic() - started < 60
    for (err, code), database in zip(ended, (athanor.home / "mlflow.db", study), strict=True):
        assert code == 75, err
        assert [line for line in err.splitlines() if line.startswith("athanor: ") and str(database) in line and "lock" in line], err
    athanor("promote", "digits", "1")
    assert registered(athanor.home) == [1]


@contextlib.contextmanager
def held(database: Path) -> Iterator[None]:
    """Somebody else's exclusive transaction."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


def test_a_flipped_bit_in_any_small_file_is_no_crash(
    copy_of_finished: Callable[[], Athanor], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memories, notes and journals: what is damaged is made again or left out; with the file gone all is as before."""
    athanor = copy_of_finished()
    monkeypatch.setenv("ATHANOR_HOME", str(athanor.home))
    monkeypatch.chdir(athanor.home.parent)
    assert main(["plan", *SMALL]) == 0
    assert capsys.readouterr().out.endswith("nothing to do\n")
    patterns = ("*.json", "compositions/*.json", "last/*/*.json", "runs/*/run.json", "runs/*/journal.jsonl", "champions/*.json", "stages/*")
    files = [file for pattern in patterns for file in sorted(athanor.home.glob(pattern))]
    assert len(files) > 15
    generator = random.Random(0)
    for file in files:
        content = file.read_bytes()
        for _ in range(3):
            place = generator.randrange(len(content))
            file.write_bytes(content[:place] + bytes([content[place] ^ 1 << generator.randrange(7)]) + content[place + 1 :])
            for words in (["plan", *SMALL], ["status"], ["leaderboard"], ["report"]):
                code = main(words)
                assert code in (0, 2), f"{words[0]} ended with {code} on {file.name} with byte {place} changed: {capsys.readouterr().err}"
        file.write_bytes(content)
    assert main(["plan", *SMALL]) == 0


# ---- two at once, and a bug of our own ------------------------------------------------------------------------


def test_two_identical_runs_at_once_make_one_version(copy_of_finished: Callable[[], Athanor]) -> None:
    """One computes and the other waits for it; both end well with the same version, registered once."""
    athanor = copy_of_finished()
    words = ("run", *SMALL, "quantization=dynamic", "--json")
    both = [athanor.start(*words), athanor.start(*words)]
    ended = [(*process.communicate(timeout=250), process.returncode) for process in both]
    assert [code for *_, code in ended] == [0, 0], ended
    documents = [json.loads(out) for out, *_ in ended]
    assert documents[0]["version"] == documents[1]["version"]
    assert registered(athanor.home) == [1, documents[0]["version"]]
    states = [document["stages"]["quantize"]["state"] for document in documents]
    assert sorted(states) == ["cached", "ran"]
    waiting = [err for _, err, _ in ended if "the same run is at work in another process; waiting for it" in err]
    assert len(waiting) == 1
    assert nothing_lives_in(athanor.home)


PLUGIN = """
class Broken:
    modalities = tasks = ("any",)

    def check(self, dataset):
        return 1 / 0
"""


def test_a_bug_of_our_own_is_70_with_a_traceback_file(copy_of_finished: Callable[[], Athanor]) -> None:
    """A class that fails in a worker process: one line, the file holds the worker's traceback, the run says failed."""
    athanor = copy_of_finished()
    folder = athanor.home.parent
    (folder / "conf" / "check").mkdir(parents=True)
    (folder / "conf" / "check" / "broken.yaml").write_text("# @package check.broken\n_target_: my_checks.Broken\n")
    (folder / "my_checks.py").write_text(PLUGIN)
    words = [*SMALL, f"conf_dir={folder / 'conf'}", "plugins=[my_checks]", "check=[broken]"]
    line = athanor.fails("run", *words, code=70)
    assert "our own bug: ZeroDivisionError: division by zero (traceback in " in line
    trace = Path(line.rpartition("traceback in ")[2].removesuffix(")")).read_text()
    assert "my_checks.py" in trace
    assert "return 1 / 0" in trace
    assert athanor.json("status")["runs"][0]["state"] == "failed"
    assert registered(athanor.home) == [1]
    assert nothing_lives_in(athanor.home)
    assert {row["state"] for row in athanor.json("run", *SMALL)["stages"].values()} == {"cached"}


def test_a_bug_in_the_command_itself_is_70_and_never_a_bare_traceback(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --debug the traceback is shown as well."""
    monkeypatch.setattr("flows.status.rows", lambda: 1 / 0)
    line = refused(capsys, "status", code=70)
    path = Path(line.rpartition("traceback in ")[2].removesuffix(")"))
    assert path.is_relative_to(home)
    assert "ZeroDivisionError" in path.read_text()
    assert main(["status", "--debug"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind", [OSError(28, "No space left on device"), WorkerBug("SafetensorError", "I/O error: No space left on device", "")]
)
def test_a_full_disk_is_told_alike_from_wherever_it_is_met(kind: Exception, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A library's own error in a worker process included: it is no bug of ours."""
    assert explain(kind, Command("run")) == 75
    assert capsys.readouterr().err == f"athanor: no space left to write below {home}; free some and run the same command again\n"


def test_the_door_says_which_stage_comes_first(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stage whose inputs were never made is the caller's mistake, not a bug."""
    for stage in STAGES.values():
        if stage.takes:
            line = refused(capsys, "stage", stage.name, *SMALL, code=2)
            assert line.endswith(f"stage '{stage.takes[0]}' has not run yet; run `athanor stage {stage.takes[0]}` first"), line


@pytest.mark.parametrize("seconds", [5.0])
def test_ctrl_c_is_130_and_says_that_the_run_can_go_on(fresh: Athanor, seconds: float) -> None:
    """While servers and workers start, to all processes as a terminal sends it: no traceback, no process left."""
    process = fresh.start("run", *SMALL, start_new_session=True)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted; the same command goes on where this stopped" in err
    assert "Traceback" not in err
    assert nothing_lives_in(fresh.home)
