"""Numbers as people read them: the examples in the docstrings hold, and nothing comes out as a bare float."""

from __future__ import annotations

import doctest
import math
from types import ModuleType

import pytest

from components.artifacts import Estimate
from components.report import charts, words


@pytest.mark.parametrize("module", [words, charts])
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    """Every example runs and there are some."""
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_what_is_not_a_number_says_so() -> None:
    """A missing value is a dash, NaN is in words: neither looks like a measurement."""
    assert words.figure(None) == words.interval(None) == words.seconds(None) == words.kibibytes(None) == "–"
    assert words.figure(math.nan) == "not a number"


@pytest.mark.parametrize(("value", "text"), [(59.96, "1 min 00 s"), (3599.7, "1 h 00 min"), (0.9999, "1.0 s"), (119.6, "2 min 00 s")])
def test_durations_carry_over(value: float, text: str) -> None:
    """No 60 seconds and no 60 minutes."""
    assert words.seconds(value) == text


def test_sizes_and_latencies_carry_units() -> None:
    """KiB until a MiB, three digits of a latency."""
    assert [words.kibibytes(v) for v in (4.44, 210.0, 2048.0)] == ["4.4 KiB", "210 KiB", "2.0 MiB"]
    assert [words.milliseconds(v) for v in (0.0351, 1.5, 250.4)] == ["0.0351 ms", "1.50 ms", "250 ms"]


def test_interval_reads_low_to_high() -> None:
    """Lower bound first."""
    assert words.interval(Estimate(value=0.9, low=0.85, high=0.95)) == "0.8500 to 0.9500"


def test_moments_are_utc() -> None:
    """Seconds since the epoch in UTC; what is already in words stays."""
    assert words.moment(0) == "1970-01-01 00:00:00 UTC"
    assert words.moment("yesterday") == "yesterday"
