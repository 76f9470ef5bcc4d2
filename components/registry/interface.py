"""What a gate is.

Add one as `components/registry/gate/<name>.py` and `conf/gate/<name>.yaml`; tests/contracts/test_gate.py then judges it.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from components.artifacts import GateResult
from components.registry.contender import Contender


@runtime_checkable
class Gate(Protocol):
    """Decides from figures alone: the same two contenders always get the same answer, and neither is changed."""

    def judge(self, challenger: Contender, champion: Contender | None) -> GateResult:
        """Whether the challenger may pass, with its figures in words; `champion` is None while there is none.

        A figure that is not finite never passes."""
        ...
