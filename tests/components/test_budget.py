"""The budget: durations, shares, reserve."""

from __future__ import annotations

import pytest

from components.budget import Budget, seconds_of
from components.errors import UsageError

SHARES = {"search": 2.0, "train": 1.0, "distill": 1.0}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("3m", 180), ("1h30m", 5400), ("1.5h", 5400), (45, 45), (None, None)]
)
def test_durations_are_read(text: str | int | None, seconds: float | None) -> None:
    """Numbers with s, m, h, d; plain numbers are seconds."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "3x", "3m!", "-5s", "0", "three", "nan", True])
def test_what_is_not_a_duration_is_refused_in_one_line(text: str) -> None:
    """The rule, an example and the value."""
    with pytest.raises(UsageError, match="duration"):
        seconds_of(text)


def test_shares_split_what_is_left_after_the_reserve() -> None:
    """An early stage's rest goes to those after it."""
    now = [0.0]
    budget = Budget(100, shares=SHARES, reserve=20, clock=lambda: now[0])
    assert budget.allot("search") == pytest.approx(40)
    now[0] = 10.0
    assert budget.allot("train", done=("search",)) == pytest.approx(35)
    now[0] = 20.0
    assert budget.allot("distill", done=("search", "train")) == pytest.approx(60)


def test_seconds_spent_before_a_kill_count() -> None:
    """A resumed run has what is left, and always at least its tail."""
    assert Budget(100, shares=SHARES, reserve=20, spent=70, clock=lambda: 0.0).left() == pytest.approx(30)
    late = Budget(100, shares=SHARES, reserve=20, spent=99, clock=lambda: 0.0)
    assert late.left() == pytest.approx(20)
    assert late.allot("search") == 0.0


def test_no_budget_means_no_limit() -> None:
    """None everywhere."""
    assert Budget(None, shares=SHARES).allot("search") is None


def test_a_budget_below_the_tail_names_the_least_that_works() -> None:
    """Refused before anything runs."""
    with pytest.raises(UsageError, match="the least that works is 20s"):
        Budget(5, shares=SHARES, reserve=20)
