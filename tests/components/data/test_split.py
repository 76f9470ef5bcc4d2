"""Rows find their split by their content."""

from __future__ import annotations

import numpy as np
import pytest

from components.data.reader import row_digest
from components.data.split import assign
from components.errors import DataError, UsageError

SPLIT = {"validation": 0.15, "test": 0.2}


def digests(count: int, start: int = 0) -> list[bytes]:
    return [row_digest(str(number).encode()) for number in range(start, start + count)]


def test_fractions_are_met_on_average() -> None:
    """About a fifth goes to test, and 15 % of the rest to validation."""
    splits = assign(digests(20_000), [""] * 20_000, SPLIT)
    assert np.mean(splits == "test") == pytest.approx(0.2, abs=0.01)
    assert np.mean(splits == "validation") == pytest.approx(0.8 * 0.15, abs=0.01)


def test_new_rows_never_move_old_ones() -> None:
    """The first thousand rows are split alike whether or not another thousand stands before and after them."""
    alone = assign(digests(1000), [""] * 1000, SPLIT)
    among = assign([*digests(500, 5000), *digests(1000), *digests(500, 9000)], [""] * 2000, SPLIT)
    assert (among[500:1500] == alone).all()


def test_equal_rows_share_a_split() -> None:
    """A row that occurs twice is never on both sides."""
    rows = digests(300)
    splits = assign(rows + rows, [""] * 600, SPLIT)
    assert (splits[:300] == splits[300:]).all()


def test_given_test_split_is_kept() -> None:
    """A data set's own test rows stay the test rows, all of them and no others; validation is cut from the rest."""
    given = ["train"] * 800 + ["test"] * 200
    splits = assign(digests(1000), given, SPLIT)
    assert (splits[800:] == "test").all()
    assert not (splits[:800] == "test").any()
    assert np.mean(splits[:800] == "validation") == pytest.approx(0.15, abs=0.05)


def test_given_validation_split_is_kept() -> None:
    """With validation rows given too, nothing is drawn."""
    given = ["train"] * 10 + ["validation"] * 5 + ["test"] * 5
    assert assign(digests(20), given, SPLIT).tolist() == given


def test_empty_split_is_refused() -> None:
    """Two rows cannot fill three splits."""
    with pytest.raises(DataError, match=r"split has no rows: 2 .* too few"):
        assign(digests(2), ["", ""], SPLIT)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, "0.2", None, True])
def test_fraction_must_be_a_fraction(value: object) -> None:
    """What is no fraction is refused by name and value."""
    with pytest.raises(UsageError, match=r"split\.test must be a fraction between 0 and 1"):
        assign(digests(10), [""] * 10, {"validation": 0.15, "test": value})  # type: ignore[dict-item]
