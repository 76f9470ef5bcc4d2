"""Architectures as numbers: what grows, by how much, and what cannot."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from components.errors import UsageError
from components.models.enlarged import changes, enlarged

CONVNET = {"width": 16, "growth": 2.0, "depths": [1, 2]}


@pytest.mark.parametrize(
    ("before", "how", "after"),
    [
        (CONVNET, {}, {}),
        (CONVNET, {"width": 1.5}, {"width": 24}),
        (CONVNET, {"width": 1.01}, {"width": 20}),
        (CONVNET, {"width": 2, "blocks": 1}, {"width": 32, "depths": [2, 3]}),
        ({"width": 10, "depth": 3}, {"width": 1.5, "blocks": 2}, {"width": 15, "depth": 5}),
        ({"channels": 8, "cells": 1}, {"width": 2.0, "blocks": 1}, {"channels": 16, "cells": 2}),
    ],
)
def test_what_grows(before: dict[str, Any], how: dict[str, Any], after: dict[str, Any]) -> None:
    """Always by something, and in steps of four where it was one."""
    assert enlarged(before, **how) == {**before, **after}


@pytest.mark.parametrize(
    ("before", "how", "words"),
    [
        (CONVNET, {"width": 0.5}, "growth.width must be a number of at least 1 and at most 16, got 0.5"),
        (CONVNET, {"blocks": -1}, "growth.blocks must be a whole number of at least 0, got -1"),
        ({"pieces": [], "bases": []}, {"width": 2}, "made wider by one of width, channels, this architecture has only bases, pieces"),
        ({"width": 8}, {"blocks": 1}, "made deeper by one of depths, depth, cells, this architecture has only width"),
    ],
)
def test_what_cannot_grow(before: dict[str, Any], how: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        enlarged(before, **how)


def test_changes_are_told_by_name() -> None:
    assert changes(CONVNET, enlarged(CONVNET, 1.5, 1)) == "width 16 to 24, depths [1, 2] to [2, 3]"


def test_torch_is_not_imported_for_it() -> None:
    code = "import sys, components.models.enlarged; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
