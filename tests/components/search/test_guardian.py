"""The guardian: what a library's servers leave behind ends with the process that asked for them, in whatever way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from components.fingerprint import ROOT
from components.search.guardian import family_of, guarding

CALLER = """
import subprocess, sys
from components.search.guardian import guarding
servant = subprocess.Popen(["sleep", "300"], start_new_session=True)
with guarding([servant.pid], sys.argv[1]):
    print(servant.pid, flush=True)
    sys.stdin.read()
"""


def is_gone(pid: int, seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_killed_caller_takes_its_servants_and_their_folder_along(tmp_path: Path) -> None:
    """SIGKILL to the caller: a process in a session of its own is gone too."""
    folder = tmp_path / "servants"
    folder.mkdir()
    command = [sys.executable, "-c", CALLER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as caller:
        assert caller.stdout
        servant = int(caller.stdout.readline())
        assert folder.exists()
        caller.send_signal(signal.SIGKILL)
    assert is_gone(servant)
    until = time.monotonic() + 20
    while folder.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not folder.exists()


def test_the_end_of_the_block_ends_what_it_guards_and_nothing_else(tmp_path: Path) -> None:
    """Of two processes the one that is not named lives on."""
    with subprocess.Popen(["sleep", "300"]) as named, subprocess.Popen(["sleep", "301"]) as other:
        with guarding([named.pid]):
            assert named.poll() is None
        assert named.wait(20) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


def test_a_family_is_the_marked_children_and_their_descendants(tmp_path: Path) -> None:
    """A grandchild without the mark belongs to it; a child without the mark does not."""
    mark = str(tmp_path)
    with (
        subprocess.Popen(["sh", "-c", f"sleep 300 & echo $!; : {mark}; wait"], stdout=subprocess.PIPE, text=True) as marked,
        subprocess.Popen(["sleep", "300"]) as stranger,
    ):
        assert marked.stdout
        grandchild = int(marked.stdout.readline())
        assert family_of(mark, os.getpid()) == {marked.pid, grandchild}
        for pid in (grandchild, marked.pid, stranger.pid):
            os.kill(pid, signal.SIGKILL)
