"""The stage door: one stage on the saved records of the stages before it.

python -m flows.stage NAME [key=value ...]     what dvc.yaml calls; trainer=ddp trainer.devices=N starts its N processes itself
python -m flows.stage                          prints the dvc.yaml that fits the table of stages
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from components import artifacts
from components.artifacts import QualityReport, Record
from components.errors import UsageError
from components.home import home
from components.store import write_atomically
from flows import stopping
from flows.execution import require_fit, run_stage
from flows.failure import in_words
from flows.run import Outcome, Run
from flows.table import arguments, stage_named


def saved(name: str) -> Path:
    """Where the door keeps a stage's record for the next one."""
    return home() / "stages" / f"{name}.json"


def enter(name: str, overrides: list[str]) -> Outcome:
    """Runs one stage on the saved records of the stages before it, in this process, and saves its own."""
    from flows.ahead import judge
    from flows.config import load

    stage = stage_named(name)
    config = load(overrides)
    judge(config, None)
    records = {needed: _load_saved(needed) for needed in stage.takes}
    with Run.open(config, listeners=()) as run:
        run.inline = True
        outcome = run_stage(name, arguments(stage, records), config.section(stage.reads), run, lineage=run.lineage())
        run.finish("door")  # the door's seconds are not those of a later run of the same configuration
    if isinstance(outcome.record, QualityReport):
        require_fit(outcome.record)
    _save(name, outcome.record)
    return outcome


def _load_saved(name: str) -> Any:
    try:
        return artifacts.load(json.loads(saved(name).read_text()), home())
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"stage {name!r} has not run yet; run `athanor stage {name}` first") from None


def _save(name: str, record: Record | tuple[Record, ...]) -> None:
    saved(name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(saved(name), json.dumps(artifacts.dump(record, home()), indent=1, sort_keys=True))
    if not isinstance(record, tuple):
        from flows.dvc import write_extras

        write_extras(name, record)


def _refuse_torchrun(words: list[str]) -> None:
    """A stage is one process that starts others for its training: torchrun around it would open the run several times."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = [] if any(word.startswith("trainer.devices=") for word in words) else [f"trainer.devices={os.environ['WORLD_SIZE']}"]
        raise UsageError(f"a training starts torchrun itself; leave it out: python -m flows.stage {' '.join([*words, *devices])}")


def main(words: list[str]) -> int:
    """The command: without a name, dvc.yaml's text."""
    if not words:
        from flows.dvc import render

        print(render(), end="")
        return 0
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0":
        return 0  # rank 0 says what there is to say
    stopping.listen()
    try:
        _refuse_torchrun(words)
        print(f"{words[0]} {enter(words[0], words[1:]).state}")
    except (Exception, KeyboardInterrupt) as error:
        if ended := stopping.ended(error):
            print(ended[0], file=sys.stderr)
            return ended[1]
        line, code = in_words(error)
        print(f"athanor: {line}", file=sys.stderr)
        return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
