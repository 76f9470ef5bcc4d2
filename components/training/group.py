"""A full training on several devices: a process for each, started together by torchrun, apart from the run that asked.

The caller writes a request, starts the processes, passes rank 0's events on and reads the record that it leaves. Every
process calls the same verb; a rank that fails or is killed ends them all, and the caller starts them again where that
helps: from the last checkpoint after a kill, with halved batches where memory ran out. They meet at a file, talk over the
loopback interface, and die with their caller.

    python -m components.training.group REQUEST      what torchrun starts, once a device
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components import artifacts, errors, processes
from components.artifacts import JSON, Record
from components.build import build, expose_plugins
from components.errors import AthanorError, StageFailedError
from components.fingerprint import ROOT
from components.processes import WorkerBug, WorkerDied
from components.store import write_atomically
from components.training import memory, ranks
from components.training.devices import require
from components.training.failure import DivergedError, cause_of
from components.workspace import Workspace

LIVES = 3  # times the processes are started when one of them is killed from outside
# What a rank says that another left alone (gloo, NCCL).
LOST = ("connection closed by peer", "connection reset", "connection refused", "broken pipe", "nccl error", "remote process")
GRACE = 6.0  # seconds to save a checkpoint in when they are asked to stop: less than the run gives its workers (flows/stopping.py)
# torchrun, tied to the process that starts it.
AGENT = "import components.lifeline; from torch.distributed.run import main; main()"
# torchrun's own TCPStore, which nobody here needs, would listen on all interfaces.
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}


# ---- the caller -----------------------------------------------------------------------------------------------


def in_group(verb: str, inputs: tuple[Record, ...], config: JSON, work: Workspace) -> Any:
    """What the verb (`module:function`) returns, run by `trainer.devices` processes. Raises what it raised, or
    `StageFailedError` when a process was killed too often."""
    trainer = build(config["trainer"])
    require(trainer)
    with _scratch_of(work) as scratch:
        deaths = 0
        while True:
            folder = _request(verb, inputs, config, work, scratch, trainer.accelerator)
            if _run(folder, trainer.devices, work.emit) == 0:
                return artifacts.load(json.loads((folder / "result.json").read_text()))
            deaths += _recover(folder, scratch, deaths, work.emit)


@contextmanager
def _scratch_of(work: Workspace) -> Iterator[Path]:
    """The folder that checkpoints are kept in; without one, a temporary one."""
    if work.scratch is not None:
        work.scratch.mkdir(parents=True, exist_ok=True)
        yield work.scratch
        return
    with tempfile.TemporaryDirectory(prefix="athanor-group-") as folder:
        yield Path(folder)


def _request(verb: str, inputs: tuple[Record, ...], config: JSON, work: Workspace, scratch: Path, accelerator: str) -> Path:
    """A fresh folder with all that the processes need to know."""
    folder = scratch / "group"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    given = {"out": str(work.out), "scratch": str(scratch), "seed": work.seed, "seconds": work.seconds, "started": work.started}
    request = {"verb": verb, "inputs": artifacts.dump(inputs), "config": config, "work": given, "accelerator": accelerator}
    write_atomically(folder / "request.json", json.dumps(request))
    return folder


def _run(folder: Path, devices: int, emit: Callable[..., Any]) -> int:
    """Starts the processes, passes events on until they have ended, and returns torchrun's exit code."""
    meeting = ["--nnodes=1", f"--nproc-per-node={devices}", "--rdzv-backend=c10d", f"--rdzv-endpoint={folder / 'agents'}"]
    command = [sys.executable, "-c", AGENT, *meeting, "--rdzv-conf=store_type=file", "--rdzv-id=athanor", "--local-addr=127.0.0.1"]
    command += ["-m", "components.training.group", str(folder / "request.json")]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    events, told = folder / "events.jsonl", 0
    with (folder / "log.txt").open("wb") as log:
        agent = subprocess.Popen(
            command, env={**os.environ, **LOOPBACK, "PYTHONPATH": path}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )  # fmt: skip
    try:
        with processes.heeding_stop():
            while agent.poll() is None:
                told = _pass_on(events, told, emit)
                if processes.is_asked_to_stop():
                    _stop(agent)
                    processes.leave()
                time.sleep(0.05)
    finally:
        agent.kill()
        agent.wait()
    _pass_on(events, told, emit)
    return agent.returncode


def _stop(agent: subprocess.Popen[bytes]) -> None:
    """Has the processes save a checkpoint; torchrun hands SIGTERM on to them."""
    agent.terminate()
    try:
        agent.wait(GRACE)
    except subprocess.TimeoutExpired:
        agent.kill()


def _pass_on(events: Path, told: int, emit: Callable[..., Any]) -> int:
    """Emits the events that were written since the byte `told`; returns where they end."""
    if not events.exists():
        return told
    with events.open("rb") as file:
        file.seek(told)
        lines = file.read().rpartition(b"\n")[0]
    for line in lines.splitlines():
        name, fields = json.loads(line)
        emit(name, **fields)
    return told + len(lines) + (1 if lines else 0)


def _recover(folder: Path, scratch: Path, deaths: int, emit: Callable[..., Any]) -> bool:
    """Returns where starting again can help, and whether a process was killed; raises what ended the training otherwise."""
    error = _first_error(folder)
    if error is None:
        killed = _killed_by(folder)
        if deaths + 1 >= LIVES:
            raise StageFailedError(f"a process of the training was killed ({killed}) {LIVES} times; see {folder / 'log.txt'}")
        emit("group.restarted", reason=f"a process was killed ({killed})")
        return True
    if error["cause"] == "oom" and (halvings := memory.halve(scratch)) is not None:
        emit("group.restarted", reason=f"memory ran out: batches are halved {halvings} times", halvings=halvings)
        return False
    raise _as_raised(error)


def _first_error(folder: Path) -> JSON | None:
    """What the first rank to fail left; the others fail because of it, and because of one that left nothing."""
    rows = [json.loads(path.read_text()) for path in folder.glob("error-*.json")]
    found = [row for row in rows if row["is_ours"] or not any(words in row["message"].lower() for words in LOST)]
    return min(found, key=lambda row: row["time"], default=None)


def _killed_by(folder: Path) -> str:
    """The signal that torchrun says ended a process."""
    codes = re.findall(r"exitcode\s*:\s*-(\d+)", (folder / "log.txt").read_text(errors="replace"))
    return str(WorkerDied(-int(codes[0])) if codes else "no trace of why")


def _as_raised(error: JSON) -> Exception:
    kinds = {"DivergedError": DivergedError} | {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    kind = kinds.get(error["kind"])
    if kind is not None and issubclass(kind, AthanorError) and kind is not errors.UnknownNameError:
        return kind(error["message"])
    if error["is_ours"]:
        return errors.UsageError(error["message"]) if error["exit_code"] == 2 else StageFailedError(error["message"])
    return WorkerBug(error["kind"], error["message"], error["trace"])


# ---- one of the processes -------------------------------------------------------------------------------------


def main(path: Path) -> int:
    """Runs the request's verb as one rank; rank 0 writes its result and its events beside the request."""
    processes.listen_for_stop()
    request, folder = json.loads(path.read_text()), path.parent
    try:
        record = _call(request, folder)
    except BaseException as error:
        _leave_error(folder, error)
        raise
    if ranks.own().rank == 0:
        write_atomically(folder / "result.json", json.dumps(artifacts.dump(record)))
    return 0


def _call(request: JSON, folder: Path) -> Any:
    given, config = request["work"], request["config"]
    expose_plugins(config.get("plugins", ()))
    group = ranks.join(folder / "ranks", request["accelerator"])
    out = Path(given["out"]) if group.rank == 0 else folder / f"rank{group.rank}"
    work = Workspace(
        out=out, scratch=Path(given["scratch"]), seed=given["seed"], seconds=given["seconds"], started=given["started"],
        emit=_teller(folder / "events.jsonl") if group.rank == 0 else lambda event, **fields: None,
    )  # fmt: skip
    module, _, name = request["verb"].partition(":")
    return getattr(importlib.import_module(module), name)(*artifacts.load(request["inputs"]), config, work)


def _teller(path: Path) -> Callable[..., None]:
    """Writes events as lines that the caller follows."""

    def tell(event: str, **fields: Any) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([event, fields]) + "\n")

    return tell


def _leave_error(folder: Path, error: BaseException) -> None:
    row = {
        "time": time.time(), "kind": type(error).__name__, "message": str(error), "cause": cause_of(error),
        "is_ours": isinstance(error, AthanorError), "exit_code": getattr(error, "exit_code", 70), "trace": traceback.format_exc(),
    }  # fmt: skip
    write_atomically(folder / f"error-{os.environ['RANK']}.json", json.dumps(row))


if __name__ == "__main__":
    import components.lifeline  # noqa: F401  # dies with torchrun, which dies with the caller

    code = 1
    try:
        code = main(Path(sys.argv[1]))
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # at once: what is left of a group must not wait for a rank that is gone
