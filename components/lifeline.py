"""Importing this module ties the process to its parent: when the parent dies, the kernel kills this process.

It is the first module that the forkserver preloads, so that nothing outlives a killed run (Linux only). A Ctrl-C in a
terminal reaches every process of the command: it is the parent's to answer, so it is ignored here.
"""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Asks the kernel for SIGKILL when the thread that started this process ends. Kept by exec, not by fork."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


die_with_parent()
