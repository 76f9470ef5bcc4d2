"""The verb promote: gates decide, aliases move by compare-and-set, the ledger tells, a hand can roll back."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts import Decision, ModelVersion, StoredFile
from components.errors import TryAgainError, UsageError
from components.registry import champions, ledger, versions
from components.registry import promote as promotion
from components.registry.connection import connect
from components.registry.contender import challenger_of, champion_of
from components.registry.promote import promote, rollback
from components.registry.versions import Standing
from components.workspace import Workspace
from tests.components.registry import small_models
from tests.components.registry.conftest import Reports

Decide = Callable[..., Decision]


def test_first_model_must_beat_the_majority_class(decide: Decide) -> None:
    """With no champion, shuffled labels are refused and a model that learned is promoted."""
    refused = decide("shuffled")
    assert not refused.promoted
    assert refused.champion == 0
    assert "without a model" in refused.words
    assert "there is still no champion" in refused.words
    assert decide("poor").promoted
    assert versions.standing("digits") == Standing(champion=2)


def test_shuffled_refused_equal_kept_better_promoted(decide: Decide) -> None:
    """Against a champion: shuffled labels are refused, an equal model is kept out, a better one is promoted."""
    assert decide("poor").promoted
    shuffled, better, equal = decide("shuffled"), decide("good"), decide("equal")
    assert not shuffled.promoted
    assert "may be worse by more than 0.5 points" in shuffled.words
    assert better.promoted
    assert "better" in better.words
    assert (better.champion, better.previous) == (3, 1)
    assert not equal.promoted
    assert "about as good, but neither 20% smaller nor faster" in equal.words
    assert versions.standing("digits") == Standing(champion=3, challenger=4, previous=1)


def test_as_good_and_smaller_is_promoted(decide: Decide, reports: Reports) -> None:
    """The same answers from far fewer bytes win."""
    assert reports["smaller"].best.size_kb < 0.8 * reports["good"].best.size_kb
    assert decide("good").promoted
    decision = decide("smaller")
    assert decision.promoted
    assert "smaller" in decision.words


def test_decision_is_tagged_and_told(decide: Decide) -> None:
    """What each gate said is a tag of the version, a row of the ledger and part of the decision."""
    decision = decide("poor")
    tags = connect().get_model_version("digits", "1").tags
    assert tags["athanor.gate.beats_baseline"].startswith("passed: accuracy")
    assert tags["athanor.decision"] == decision.words
    (row,) = ledger.history("digits")
    assert (row["action"], row["version"], row["before"], row["after"], row["applied"]) == ("promote", 1, 0, 1, True)
    assert Decision.from_json(row["decision"]) == decision


def test_promoting_the_champion_again_changes_nothing(decide: Decide) -> None:
    """The same call returns the same decision, writes no second row and keeps the previous champion."""
    decide("poor")
    first, again = decide("good"), decide("good")
    assert first == again
    assert len(ledger.history("digits")) == 2
    assert versions.standing("digits") == Standing(champion=2, previous=1)


@pytest.mark.parametrize("step", ["_tag_gates", "_move_aliases", "_drop_challenger", "point_at"])
def test_killed_while_promoting(decide: Decide, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Wherever a promotion is cut off, the same call finishes it: right aliases, one champion, the ledger says done."""
    decide("poor")

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(champions if step == "point_at" else promotion, step, die)
        with pytest.raises(KeyboardInterrupt):
            decide("good")
    decision = decide("good")
    assert decision.promoted
    assert versions.standing("digits") == Standing(champion=2, previous=1)
    assert champions.champion("digits").version == 2
    assert ledger.history("digits")[-1]["applied"]


def test_forced_promotion_says_so(decide: Decide) -> None:
    """A hand may promote against the gates; the words say that it did."""
    decide("good")
    decision = decide("poor", force=True)
    assert decision.promoted
    assert decision.champion == 2
    assert "by force, against:" in decision.words


def test_promotion_by_hand_without_gates(file_version: Callable[..., ModelVersion], tmp_path: Path) -> None:
    """What `athanor promote MODEL VERSION` does: no gate is asked, and the words say so."""
    decision = promote(file_version("poor"), {"gate": {}, "force": True}, Workspace(out=tmp_path / "out"))
    assert decision.words == "version 1 of digits is champion: by hand"


def test_rollback_and_back_again(decide: Decide) -> None:
    """Rolling back swaps champion and previous, moves the pointer and is a row of the ledger."""
    decide("poor"), decide("good")
    assert rollback("digits").words == "rolled back from version 2 to version 1"
    assert versions.standing("digits") == Standing(champion=1, previous=2)
    assert champions.champion("digits").version == 1
    rollback("digits")
    assert versions.standing("digits") == Standing(champion=2, previous=1)
    assert [row["action"] for row in ledger.history("digits")] == ["promote", "promote", "rollback", "rollback"]


def test_impossible_rollbacks(decide: Decide) -> None:
    """No champion, no previous one, the champion itself, an unknown version: one line each."""
    decide("shuffled")
    with pytest.raises(UsageError, match="no champion to roll back from; its versions are 1"):
        rollback("digits")
    decide("poor")
    with pytest.raises(UsageError, match="no previous champion: version 2 is the first"):
        rollback("digits")
    with pytest.raises(UsageError, match="champion already"):
        rollback("digits", to=2)
    with pytest.raises(UsageError, match="no version 9; it has 1, 2"):
        rollback("digits", to=9)


def test_champion_changed_by_another(decide: Decide, file_version: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare and set: when the alias moved while the gates decided, nothing is overwritten."""
    decide("poor")
    file_version("equal")
    judge = promotion._judge

    def judge_while_another_promotes(*given: Any) -> Any:
        results = judge(*given)
        connect().set_registered_model_alias("digits", "champion", "2")
        return results

    monkeypatch.setattr(promotion, "_judge", judge_while_another_promotes)
    with pytest.raises(TryAgainError, match="became version 2 while this was decided"):
        decide("good")
    assert versions.standing("digits").champion == 2


def test_answers_that_are_no_numbers(
    reports: Reports, file_version: Callable[..., ModelVersion], gates: dict[str, Any], tmp_path: Path
) -> None:
    """One NaN among the test answers keeps a model out, even with no gate configured."""
    version = file_version("good")
    answers = np.load(version.report.predictions.path)
    answers[3, 2] = np.nan
    np.save(tmp_path / "nan.npy", answers)
    broken = version.replace(report=version.report.replace(predictions=StoredFile.of(tmp_path / "nan.npy")))
    for configured in ({}, gates):
        decision = promote(broken, {"gate": configured}, Workspace(out=tmp_path / "out"))
        assert not decision.promoted
        assert "1 of 360 test rows" in decision.words


def test_champion_answers_new_test_rows(decide: Decide, reports: Reports, tmp_path: Path) -> None:
    """When the data changed, the champion is run on the challenger's test rows and judged there."""
    decide("poor")
    data = small_models.dataset(tmp_path / "new", seed=1)
    report = small_models.report(tmp_path / "model", data, *small_models.weights(), name="new")
    champion = versions.load("digits", 1)
    shown = champion_of(champion, challenger_of(champion.replace(version=2, report=report)))
    assert "answered the new test rows" in shown.note
    accuracy = float((shown.outputs.argmax(1) == shown.targets).mean())
    assert 0.8 < accuracy < 0.97
    assert len(shown.outputs) == len(np.load(data.files["test/target"].path))


def test_champion_with_other_inputs_is_not_comparable(decide: Decide, reports: Reports, tmp_path: Path) -> None:
    """A champion that cannot be fed the new rows is not beaten by default: a hand has to decide."""
    decide("poor")
    report = reports["good"]
    other = report.dataset.replace(digest="0" * 64, inputs=(report.dataset.inputs[0].replace(shape=(3, 8, 8)),))
    champion = versions.load("digits", 1)
    shown = champion_of(champion, challenger_of(champion.replace(version=2, report=report.replace(dataset=other))))
    assert "of shape [1, 8, 8], the data have [3, 8, 8]" in shown.incomparable


def test_a_gate_must_be_a_gate(file_version: Callable[..., ModelVersion], tmp_path: Path) -> None:
    """Something else under `gate` is a usage error."""
    node = {"_target_": "components.registry.contender.Contender", "version": 1, "report": None, "outputs": None, "targets": None}
    with pytest.raises(UsageError, match="which has no judge"):
        promote(file_version("good"), {"gate": {"odd": node}}, Workspace(out=tmp_path / "out"))


def test_ledger_survives_a_torn_line(decide: Decide) -> None:
    """A line cut in the middle by a power cut is dropped, the others stay, and writing goes on."""
    decide("poor")
    with ledger.ledger_file("digits").open("ab") as file:
        file.write(b'0badc0de {"event": "decision.fini')
    decide("good")
    assert [row["version"] for row in ledger.history("digits")] == [1, 2]


def _promote_many(home: str, versions_of: list[ModelVersion], rounds: int, out: str, errors: Any) -> None:
    import os

    os.environ["ATHANOR_HOME"] = home
    for number in range(rounds):
        try:
            version = versions_of[(number + os.getpid()) % len(versions_of)]
            promote(version, {"gate": {}}, Workspace(out=Path(out)))
        except TryAgainError:
            continue
        except Exception as error:
            errors.put(f"{type(error).__name__}: {error}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_processes_promote_at_once(home: Path, file_version: Callable[..., ModelVersion], tmp_path: Path) -> None:
    """8 processes, 25 promotions each: no error, and each decision begins where the one before it ended."""
    filed = [file_version(name) for name in ("good", "poor", "equal", "smaller")]
    context = multiprocessing.get_context("spawn")
    errors = context.Queue()
    arguments = (str(home), filed, 25, str(tmp_path / "out"), errors)
    workers = [context.Process(target=_promote_many, args=arguments) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(560)
    assert errors.empty(), errors.get()
    assert [worker.exitcode for worker in workers] == [0] * 8
    rows = ledger.history("digits")
    assert len(rows) > 50
    assert all(row["applied"] for row in rows)
    assert all(later["before"] == earlier["after"] for earlier, later in itertools.pairwise(rows))
    assert versions.standing("digits").champion == rows[-1]["after"] == champions.champion("digits").version
