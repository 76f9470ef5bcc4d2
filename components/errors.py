"""Every way Athanor says no, and the exit code each one ends a command with.

    AthanorError                 70  (never raised itself)
    ├── UsageError                2  the command or the configuration is wrong
    │   └── UnknownNameError      2  a key, group or value that does not exist; names the nearest one
    ├── DataError                65  the data is wrong: missing, unreadable, unfit
    │   └── CorruptArtifactError 65  stored bytes no longer match their digest and cannot be recomputed
    ├── TryAgainError            75  nothing is wrong but the moment: locked, busy, full
    └── StageFailedError         70  a stage's process died or our own code is at fault

A message is one sentence with the rule, the value and the remedy. Whatever is not an `AthanorError` is our own
bug: it ends with 70 and a traceback file (see `flows.cli`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AthanorError(Exception):
    """Base of every error that Athanor raises on purpose."""

    exit_code = 70


class UsageError(AthanorError):
    """The command line or the configuration asks for something impossible."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that does not exist; the message offers the nearest one that does.

    >>> str(UnknownNameError("space", "convnt", ["convnet", "mlp"]))
    "unknown space 'convnt'; did you mean 'convnet'? (choices: convnet, mlp)"
    """

    def __init__(self, kind: str, name: str, choices: Iterable[str]) -> None:
        self.kind, self.name, self.choices = kind, name, sorted(set(choices))
        close = difflib.get_close_matches(str(name), self.choices, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        listed = ", ".join(self.choices[:20]) + (", ..." if len(self.choices) > 20 else "")
        super().__init__(f"unknown {kind} {name!r}{hint} (choices: {listed or 'none'})")

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        return type(self), (self.kind, self.name, self.choices)


class DataError(AthanorError):
    """The data cannot be used as it is: the message names the file, row or column, the rule and the remedy."""

    exit_code = 65


class CorruptArtifactError(DataError):
    """Stored bytes do not match the digest that was recorded when they were published."""


class TryAgainError(AthanorError):
    """The same command may succeed later: a lock is held, a disk is full, a service is away."""

    exit_code = 75


class StageFailedError(AthanorError):
    """A stage's own process ended without a result (killed, out of memory) or with a bug of ours."""

    exit_code = 70
