"""The command `athanor VERB [NOUN ...] [key=value ...] [--json] [--debug]`: one grammar for every verb.

Nothing heavy is imported before a verb needs it. A mistake is one line on standard error and an exit code
(`components.errors`); a bug of our own is one line, a traceback file and 70; `--debug` shows the traceback.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UnknownNameError, UsageError
from components.home import home
from flows import stopping
from flows.failure import in_words

if TYPE_CHECKING:
    from components.artifacts import DatasetVersion
    from flows.config import Config


@dataclass
class Command:
    """A command line taken apart: the verb, its nouns, `key=value` words, and the two flags."""

    verb: str
    nouns: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    json: bool = False
    debug: bool = False
    started: float = field(default_factory=time.time)

    def option(self, name: str, default: str | None = None) -> str | None:
        """The value of `name=value`, taken out of the words."""
        for word in list(self.words):
            key, _, value = word.partition("=")
            if key == name:
                self.words.remove(word)
                return value
        return default

    def noun(self, position: int, what: str) -> str:
        """The noun at a position. Raises `UsageError` that says what is missing."""
        if position >= len(self.nouns):
            raise UsageError(f"athanor {self.verb} needs {what}; see athanor --help")
        return self.nouns[position]

    def no_more(self, nouns: int, *, words: bool = False) -> None:
        """Raises `UsageError` for what the verb does not take."""
        if len(self.nouns) > nouns:
            raise UsageError(f"athanor {self.verb} does not take {self.nouns[nouns]!r}; settings have the form key=value")
        if self.words and not words:
            raise UsageError(f"athanor {self.verb} does not take {self.words[0]!r}")


HELP = """athanor VERB [NOUN ...] [key=value ...] [--json] [--debug]

  run                     data to a promoted ONNX model; the same command again resumes
                          athanor run dataset=csv dataset.path=F dataset.target=COL budget=10m
  plan                    what run would do, why, and how long
  stage NAME              one stage on the saved records of those before it (dvc repro calls this)
  status                  runs, what each is doing, trials so far
  leaderboard             trials and model versions, best first
  report [RUN]            a run's HTML report
  compare RUN RUN         two runs side by side
  predict PATH            the champion's predictions for new files      model=NAME out=FILE.csv
  promote MODEL VERSION   make a version champion by hand
  rollback MODEL          make the previous champion champion again     version=N
  data add NAME PATH      pin data by data/NAME.dvc      data push, data pull      remote=PATH
  deploy                  serve the pipeline on a schedule      cron='0 3 * * *'
  ci                      run experiment=ci and print Markdown with the metrics beside the champion's
  verify                  read every stored byte; clean   free what no model, study or recent run refers to
  lineage MODEL [VERSION] where a model version comes from
  doctor                  what this machine has, and what is wrong with it
  ui                      Prefect's and MLflow's web pages on loopback

State is kept in ATHANOR_HOME (default .athanor). Exit codes: 0 done, 2 usage, 65 data, 70 our bug, 75 try again,
130 interrupted, 143 stopped by SIGTERM.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("--help", "-h", "help"):
        print(HELP, end="")
        return 0 if words else 2
    if words[0] == "--version":
        print("athanor 0.1.0")
        return 0
    command = Command("")
    stopping.listen()
    try:
        command = parse(words)
        return VERBS[command.verb](command) or 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if ended := stopping.ended(error):
            print(ended[0], file=sys.stderr)
            return _leave(ended[1])
        return explain(error, command)


def parse(words: list[str]) -> Command:
    """Takes a command line apart. Raises `UsageError` for an unknown verb or flag."""
    if words[0] not in VERBS:
        raise UnknownNameError("verb", words[0], VERBS)
    command = Command(words[0])
    for word in words[1:]:
        if word in ("--json", "--debug"):
            setattr(command, word[2:], True)
        elif word in ("--help", "-h"):
            print(HELP, end="")
            raise SystemExit(0)
        elif word.startswith("--"):
            raise UnknownNameError("flag", word, ["--json", "--debug", "--help"])
        elif "=" in word or word.startswith("~"):
            command.words.append(word)
        else:
            command.nouns.append(word)
    if any("search.storage=" in word for word in command.words):
        from flows.config import conceal

        command.words = conceal(command.words)
    return command


def explain(error: BaseException, command: Command) -> int:
    """Says in one line what went wrong and returns the exit code."""
    if command.debug:
        traceback.print_exception(error)
    line, code = in_words(error)
    if command.json:
        print(json.dumps({"error": line, "exit_code": code}))
    print(f"athanor: {line}", file=sys.stderr)
    return code


def emit(command: Command, document: Any, text: str) -> None:
    """Prints the document (`--json`) or its text for a person."""
    print(json.dumps(document, ensure_ascii=False, default=str) if command.json else text, flush=True)


# ---- verbs ----------------------------------------------------------------------------------------------------


def run(command: Command) -> int:
    """From data to a promoted model; says so at once when there is nothing to do."""
    from flows import plan, summary
    from flows.config import load

    command.no_more(0, words=True)
    config = load(command.words)
    steps = plan.make(config)
    nothing_to_do = plan.is_done(steps) and not summary.is_unfinished(config.identity)
    if nothing_to_do:
        records, run_id = plan.records(steps), summary.last_run_of(config.identity, config.model)
        stages = {step.stage: {"state": "cached", "seconds": 0.0} for step in steps}
    else:
        run_id, records, stages = _synthesize(command, config, steps[0].record)
    report = records["evaluate"]
    document = summary.document(
        run=run_id, model=config.model, decision=records["promote"], report=report, seconds=time.time() - command.started, stages=stages
    )
    emit(command, document, summary.text(document, report.objective, nothing_to_do=nothing_to_do))
    return 0 if nothing_to_do else _leave()


def _synthesize(command: Command, config: Config, dataset: DatasetVersion | None) -> tuple[str, dict[str, Any], dict[str, Any]]:
    from flows import screen
    from flows.ahead import look_ahead

    screen.use(quiet=False)
    from flows.run import begin

    begin(time.monotonic() - (time.time() - command.started))
    from flows.launch import kindle

    kindle()
    look_ahead(config, dataset)
    screen.say("starting Prefect's server and the workers")
    from flows.pipeline import synthesize
    from flows.reporting import finished

    synthesize(command.words)
    done = finished[-1]
    return done.id, done.records, {name: {k: row[k] for k in ("state", "seconds")} for name, row in done.stages.items()}


def _leave(code: int = 0) -> int:
    """Ends the process without waiting for Prefect's client threads, whose own shutdown prints tracebacks."""
    import multiprocessing.util

    if "prefect.events.worker" in sys.modules:
        from flows.reporting import deliver

        deliver()
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]  # gives semaphores back, which `_exit` alone would leak
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def plan(command: Command) -> int:
    """What a run would do, and why."""
    from flows import plan as planning
    from flows.ahead import judge
    from flows.config import load

    command.no_more(0, words=True)
    config = load(command.words)
    steps = planning.make(config)
    judge(config, steps[0].record)
    document = {
        "model": config.model, "budget": config.budget,
        "stages": {s.stage: {"state": s.state, "why": list(s.why), "seconds": None if s.state == "cached" else s.seconds} for s in steps},
    }  # fmt: skip
    lines = [f"{s.stage:<9} {s.state:<8} {'' if s.state == 'cached' else _about(s.seconds):<8} {'; '.join(s.why)}".rstrip() for s in steps]
    total = sum(s.seconds or 0.0 for s in steps if s.state != "cached")
    ending = (
        "nothing to do"
        if planning.is_done(steps)
        else f"about {total:.0f} s of work" + (f" within a budget of {config.budget:.0f} s" if config.budget else "")
    )
    emit(command, document, "\n".join([*lines, ending]))
    return 0


def _about(seconds: float | None) -> str:
    return "" if seconds is None else f"~{seconds:.0f} s"


def stage(command: Command) -> int:
    """One stage through the door."""
    from flows.stage import enter

    command.no_more(1, words=True)
    outcome = enter(command.noun(0, "the name of a stage"), command.words)
    document = {"stage": command.nouns[0], "state": outcome.state, "seconds": round(outcome.seconds, 3), "why": list(outcome.why)}
    emit(command, document, f"{command.nouns[0]} {outcome.state} in {outcome.seconds:.1f} s")
    return 0


def status(command: Command) -> int:
    """Runs, newest first, and what each is doing."""
    from flows.status import rows, table

    command.no_more(0)
    found = rows()
    emit(command, {"runs": found}, table(found))
    return 0


def leaderboard(command: Command) -> int:
    """Trials of the newest study and versions of its model."""
    from flows.status import leaderboard as board

    model = command.option("model")
    command.no_more(0)
    document, text = board(model)
    emit(command, document, text)
    return 0


def report(command: Command) -> int:
    """Where a run's HTML report is."""
    from flows.status import run_folder

    command.no_more(1)
    folder = run_folder(command.nouns[0] if command.nouns else None)
    path = folder / "report.html"
    if not path.exists():
        raise UsageError(f"run {folder.name} has no report yet; it is written when the run ends")
    emit(command, {"run": folder.name, "report": str(path)}, str(path))
    return 0


def compare(command: Command) -> int:
    """Two runs side by side."""
    from flows.status import compare as side_by_side

    command.no_more(2)
    document, text = side_by_side(command.noun(0, "two runs"), command.noun(1, "two runs"))
    emit(command, document, text)
    return 0


def predict(command: Command) -> int:
    """The champion's predictions for new rows, on ONNX Runtime alone."""
    from flows.promotion import predict as predict_with_champion

    path = command.noun(0, "the path of new data")
    model, out = command.option("model"), command.option("out")
    command.no_more(1)
    document = predict_with_champion(Path(path), model, Path(out) if out else None)
    emit(command, document, document.pop("text"))
    return 0


def promote(command: Command) -> int:
    """Makes a version champion by hand."""
    from flows.promotion import promote as by_hand

    command.no_more(2)
    document = by_hand(command.noun(0, "MODEL and VERSION"), command.noun(1, "MODEL and VERSION"))
    emit(command, document, document["words"])
    return 0


def rollback(command: Command) -> int:
    """Makes the previous champion champion again, or the version that is named."""
    from flows.promotion import rollback as back

    model, to = command.option("model"), command.option("version")
    command.no_more(1)
    document = back(command.nouns[0] if command.nouns else model, to)
    emit(command, document, document["words"])
    return 0


def lineage(command: Command) -> int:
    """Where a model version comes from."""
    from flows.promotion import lineage as walk

    command.no_more(2)
    document = walk(command.noun(0, "MODEL [VERSION]"), command.nouns[1] if len(command.nouns) > 1 else None)
    lines = [f"{row['kind']:<18} {row['name']:<34} {str(row.get('digest', ''))[:16]}" for row in document["lineage"]]
    emit(command, document, "\n".join(lines))
    return 0


def data(command: Command) -> int:
    """Pins data with DVC, pushes and pulls it."""
    from components.data import pins

    action = command.noun(0, "add, push or pull")
    if action == "add":
        command.no_more(3)
        found: Any = pins.add(command.noun(1, "NAME and PATH"), Path(command.noun(2, "NAME and PATH")))
    elif action in ("push", "pull"):
        remote = command.option("remote")
        command.no_more(1)
        found = pins.push(remote=remote) if action == "push" else pins.pull()
    else:
        raise UnknownNameError("word after data", action, ["add", "push", "pull"])
    emit(command, {"action": action, "result": str(found)}, f"data {action}: {found}")
    return 0


def deploy(command: Command) -> int:
    """Serves the pipeline on a schedule until it is stopped."""
    from flows.deployments import serve

    cron = command.option("cron")
    command.no_more(0, words=True)
    if not cron:
        raise UsageError("athanor deploy needs a schedule: cron='0 3 * * *'")
    return serve(cron, command.words)


def ci(command: Command) -> int:
    """Runs small and prints Markdown for a pull request."""
    from flows.ci import run as run_ci

    command.no_more(0, words=True)
    document = run_ci(command.words)
    emit(command, document, document["markdown"])
    return _leave()


def verify(command: Command) -> int:
    """Reads every stored byte."""
    from components.store import Store

    command.no_more(0)
    store = Store(home())
    bad = [str(folder) for folder in store.verify()]
    document = {"artifacts": len(store.folders()), "damaged": bad}
    ending = "; ".join(f"damaged: {path} (the next run computes it again)" for path in bad)
    emit(command, document, ending or f"all {document['artifacts']} artifacts are intact")
    return 65 if bad else 0


def clean(command: Command) -> int:
    """Frees what no model, study or recent run refers to."""
    from flows.status import clean as free

    command.no_more(0)
    document = free()
    emit(command, document, f"removed {document['removed']} artifacts, {document['bytes'] / 1e6:.1f} MB")
    return 0


def doctor(command: Command) -> int:
    """What this machine has, and what is wrong with it."""
    from flows.doctor import examine, table

    command.no_more(0)
    rows = examine()
    emit(command, {"rows": rows}, table(rows))
    return 0 if all(row["ok"] for row in rows) else 75


def ui(command: Command) -> int:
    """Starts both web pages and prints their addresses; stays until interrupted."""
    from flows.ui import serve

    command.no_more(0)
    return serve(as_json=command.json)


VERBS: dict[str, Callable[[Command], int]] = {
    verb.__name__: verb
    for verb in (
        run, plan, stage, status, leaderboard, report, compare, predict, promote, rollback, lineage, data, deploy, ci, verify, clean,
        doctor, ui,
    )
}  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
