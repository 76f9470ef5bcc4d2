"""A training that rests at an epoch on its way goes on as if it had never rested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.artifacts import DatasetVersion
from components.errors import UsageError
from components.training.checkpoint import read_checkpoint
from tests.components.models import tiny
from tests.components.training.test_fit import Killed, equal, told, train, weights


@pytest.fixture(params=["image", "table"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> DatasetVersion:
    return tiny.stripes(tmp_path) if request.param == "image" else tiny.table(tmp_path)


@pytest.mark.parametrize("rests", [(1,), (1, 2, 3)])
def test_rested_and_carried_on_bit_for_bit(dataset: DatasetVersion, tmp_path: Path, rests: tuple[int, ...]) -> None:
    """The schedule is that of the full length from the first epoch on, and every rung's metrics are those of that epoch."""
    whole = train(dataset, epochs=4)
    for rest in rests:
        part = train(dataset, epochs=4, until=rest, scratch=tmp_path / "s")
        assert (part.epochs, part.truncated) == (rest, False)
        assert told(part) == told(whole)[:rest]
        assert part.metrics["accuracy"] in [row["accuracy"] for row in part.history]
    carried_on = train(dataset, epochs=4, scratch=tmp_path / "s")
    assert equal(carried_on, whole)
    assert told(carried_on) == told(whole)


def test_a_rest_is_judged_even_where_no_epoch_is_due(tmp_path: Path) -> None:
    """Validation is due only every few epochs of this one; judging at rest must not change what training goes on from."""
    dataset = tiny.table(tmp_path, rows={"train": 240, "validation": 400, "test": 80})
    whole = train(dataset, epochs=8)
    assert sum("accuracy" in row for row in whole.history) < 8
    rested = train(dataset, epochs=8, until=1, scratch=tmp_path / "s")
    assert "accuracy" in rested.history[-1]
    assert "accuracy" not in whole.history[0]
    carried_on = train(dataset, epochs=8, scratch=tmp_path / "s")
    assert equal(carried_on, whole)
    assert told(carried_on) == told(whole)


def test_killed_on_the_way_to_a_rest(dataset: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the rest it goes on to it; after it, nothing is trained again and the same metrics are found."""
    monkeypatch.setattr("components.training.fit.CHECKPOINT_SECONDS", 0.0)

    def kill_at_the_second(event: str, **fields: Any) -> None:
        if fields["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        train(dataset, epochs=6, until=3, scratch=tmp_path / "s", emit=kill_at_the_second)
    first = train(dataset, epochs=6, until=3, scratch=tmp_path / "s")
    epochs: list[int] = []
    again = train(dataset, epochs=6, until=3, scratch=tmp_path / "s", emit=lambda event, **fields: epochs.append(fields["epoch"]))
    assert epochs == []
    assert again.metrics == first.metrics
    assert equal(again, first)
    assert equal(first, train(dataset, epochs=6, until=3))


def test_a_rest_within_a_time_limit_leaves_the_rest_of_the_schedule(tmp_path: Path) -> None:
    """With time for a fraction of the way, the schedule has come as far as the rest, and the next session completes it."""
    dataset = tiny.stripes(tmp_path)
    rested = train(dataset, epochs=20_000, until=10_000, seconds=1.0, scratch=tmp_path / "s")
    assert rested.truncated
    assert read_checkpoint(tmp_path / "s" / "last.ckpt")["learner"]["progress"] == 0.5
    ended = train(dataset, epochs=20_000, seconds=1.0, scratch=tmp_path / "s")
    assert read_checkpoint(tmp_path / "s" / "last.ckpt")["learner"]["progress"] == 1.0
    assert [row["epoch"] for row in ended.history] == list(range(1, len(ended.history) + 1))
    assert ended.steps > rested.steps


def test_a_rest_must_lie_within_the_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="got 5 of 4"):
        train(tiny.stripes(tmp_path), epochs=4, until=5)


def test_weights_at_rest_are_those_that_were_judged(tmp_path: Path) -> None:
    dataset = tiny.stripes(tmp_path)
    at_one, at_two = (train(dataset, epochs=4, until=rest) for rest in (1, 2))
    assert any((a != b).any() for a, b in zip(weights(at_one), weights(at_two)))
