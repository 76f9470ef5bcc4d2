"""What every scheduler must keep, whichever yaml names it; and that schedulers which do not keep it are found out.

Each rule plays whole studies of a few dozen trials against the scheduler, in memory: a trial has a quality, and its cost
at a rung is that quality, a little blurred at short rungs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import build
from components.errors import UsageError
from components.search.interface import Scheduler, Standing
from components.search.standings import Mark, standings_of

CONF = Path(__file__).resolve().parents[2] / "conf" / "scheduler"
MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
BROKEN = "tests.contracts.broken.scheduler"
FULL = 27
Config = dict[str, Any]
Make = Callable[[], Scheduler]


def config_of(name: str) -> Config:
    found: Config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return found


@pytest.fixture(autouse=True)
def _broken_members_are_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


class Game:
    """A study: trials are started and carried on by the scheduler's word, until `num_trials` have come as far as they go.

    `fails(number, place)` ends a trial there. With several `workers` that many trials run at once and end in an order
    of their own. Every decision is kept with what it was made from.
    """

    def __init__(self, make: Make, num_trials: int, full: int = FULL, *, workers: int = 1, fails=None, costs=None) -> None:
        self.scheduler, self.num_trials, self.workers = make(), num_trials, workers
        self.rungs = self.scheduler.rungs(full)
        self.costs = costs or _blurred
        self.fails = fails or (lambda number, place: False)
        self.reached: dict[int, dict[int, float]] = {}
        self.running: dict[int, int] = {}
        self.over: set[int] = set()
        self.decisions: list[tuple[list[Standing], int | None]] = []
        self.epochs = 0

    def play(self) -> Game:
        rng = random.Random(3)
        while True:
            while len(self.running) < self.workers and self.start_next():
                assert len(self.decisions) < 50 * self.num_trials, "the study does not come to an end"
            if not self.running:
                return self
            self.end(rng.choice(sorted(self.running)))

    def standings(self) -> list[Standing]:
        return [
            Standing(number=n, costs=dict(costs), is_running=n in self.running, is_over=n in self.over)
            for n, costs in sorted(self.reached.items())
        ]

    def start_next(self) -> bool:
        standings = self.standings()
        number = self.scheduler.next(self.rungs, standings)
        self.decisions.append((standings, number))
        if number is None:
            if len(self.reached) == self.num_trials:
                return False
            number = len(self.reached)
            self.reached[number] = {}
            self.running[number] = self.scheduler.first_rung(number, self.rungs)
            return True
        assert number in self.reached, f"trial {number} was never started"
        place = max(self.reached[number], default=-1) + 1
        assert number not in self.running, f"trial {number} runs already and was to be carried on"
        assert number not in self.over, f"trial {number} has failed and was to be carried on"
        assert place < len(self.rungs), f"trial {number} is fully trained and was to be carried on"
        self.running[number] = place
        return True

    def end(self, number: int) -> None:
        place = self.running.pop(number)
        before = self.rungs[max(self.reached[number])] if self.reached[number] else 0
        self.epochs += self.rungs[place] - before
        if self.fails(number, place):
            self.over.add(number)
        else:
            self.reached[number][place] = self.costs(number, place)

    def full(self) -> list[int]:
        return [number for number, costs in self.reached.items() if len(self.rungs) - 1 in costs]


def quality(number: int) -> float:
    return random.Random(number).random()


def _blurred(number: int, place: int) -> float:
    return quality(number) + random.Random(f"{number}/{place}").gauss(0.0, 0.1 / (1 + place))


# ---- the contract ----


def its_rungs_end_with_the_full_length(make: Make) -> None:
    """Whole numbers of epochs, ascending, at least 1; the last is the full length; every trial starts at one of them."""
    scheduler = make()
    for full in range(1, 121):
        rungs = scheduler.rungs(full)
        assert list(rungs) == sorted(set(rungs)), f"rungs {rungs} do not ascend"
        assert rungs[0] >= 1, f"rungs {rungs} begin before the first epoch"
        assert rungs[-1] == full, f"rungs {rungs} do not end with the full length {full}"
        assert all(scheduler.first_rung(number, rungs) in range(len(rungs)) for number in range(60)), "a first rung that is none"


def it_carries_on_only_what_rests(make: Make) -> None:
    """Neither running, failed nor fully trained trials, with one worker and with four; each study comes to its end."""
    for workers in (1, 4):
        Game(make, 30, workers=workers, fails=lambda number, place: number % 5 == 1 or (number % 2 == 0 and place > 0)).play()


def a_study_of_any_length_has_a_fully_trained_trial(make: Make) -> None:
    """Also if every other trial fails at its first rung."""
    for num_trials in range(1, 31):
        assert Game(make, num_trials).play().full(), f"none of {num_trials} trials was trained to the end"
        game = Game(make, num_trials, fails=lambda number, place, last=num_trials - 1: number % 2 == 0 and number < last).play()
        assert game.full(), f"none of {num_trials} trials was trained to the end, half of them having failed"


def it_is_a_pure_function(make: Make) -> None:
    """The same standings get the same answer, from another object, in another order, and after other questions."""
    game = Game(make, 30, workers=2).play()
    asked = make()
    for standings, answer in reversed(game.decisions):
        for shown in (standings, standings[::-1]):
            assert asked.next(game.rungs, shown) == answer, "the same standings got two answers"
    firsts = [make().first_rung(number, game.rungs) for number in range(30)]
    assert firsts == [game.scheduler.first_rung(number, game.rungs) for number in range(30)], "the same number got two answers"


def it_prefers_the_better(make: Make) -> None:
    """Of the resting trials that began at one rung and rest at one rung, the best is carried on; and what is trained to
    the end is better than the rest, if anything is left out."""
    game = Game(make, 60).play()
    first = game.scheduler.first_rung
    for standings, answer in game.decisions:
        chosen = next((s for s in standings if s.number == answer), None)
        if chosen is None:
            continue
        alike = [
            s for s in standings if not s.is_running and not s.is_over and s.costs and max(s.costs) == max(chosen.costs)
            and first(s.number, game.rungs) == first(chosen.number, game.rungs)
        ]  # fmt: skip
        place = max(chosen.costs)
        assert chosen.costs[place] == min(s.costs[place] for s in alike), "a worse trial was carried on before a better one"
    full, all_trials = game.full(), list(game.reached)
    if len(full) < len(all_trials):
        mean = sum(map(quality, full)) / len(full)
        assert mean < sum(map(quality, all_trials)) / len(all_trials) - 0.1, "trained to the end were not the better ones"


def it_saves_epochs_if_it_asks_for_them(make: Make) -> None:
    """What needs an evaluator that trains by parts trains less than half of what everything at full length would cost."""
    game = Game(make, 60).play()
    everything = game.num_trials * FULL
    if "epochs" in game.scheduler.needs:
        assert game.epochs < 0.5 * everything, f"saved nothing: {game.epochs} of {everything} epochs were trained"
    else:
        assert game.rungs == (FULL,), "has rungs, and does not say that it needs epochs"


def it_never_carries_on_the_undefined(make: Make) -> None:
    """A trial whose cost is infinite is not carried on."""
    game = Game(make, 20, costs=lambda number, place: quality(number) if number % 8 == 0 else float("inf")).play()
    infinite = [answer for _, answer in game.decisions if answer is not None and answer % 8]
    assert not infinite, f"trials {infinite} were carried on with an infinite cost"


CONTRACT = [
    its_rungs_end_with_the_full_length,
    it_carries_on_only_what_rests,
    a_study_of_any_length_has_a_fully_trained_trial,
    it_is_a_pure_function,
    it_prefers_the_better,
    it_saves_epochs_if_it_asks_for_them,
    it_never_carries_on_the_undefined,
]


def test_family_is_not_empty() -> None:
    """None, ASHA and Hyperband are there, each a yaml beside a module of the same name."""
    assert {"none", "asha", "hyperband"} <= set(MEMBERS)
    for name in MEMBERS:
        target = config_of(name)["_target_"]
        assert not target.startswith("components.") or target.split(".")[-2] == name


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_member_keeps_the_contract(name: str, rule: Callable[[Make], None]) -> None:
    """Each rule holds for each member."""
    rule(lambda: build.build(config_of(name)))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("StopsShort", its_rungs_end_with_the_full_length),
        ("CarriesOnTheRunning", it_carries_on_only_what_rests),
        ("CarriesOnTheFailed", it_carries_on_only_what_rests),
        ("WaitsForThree", a_study_of_any_length_has_a_fully_trained_trial),
        ("DrawsLots", it_is_a_pure_function),
        ("Remembers", it_is_a_pure_function),
        ("FirstComeFirstServed", it_prefers_the_better),
        ("CarriesOnAll", it_saves_epochs_if_it_asks_for_them),
        ("TrustsInfinity", it_never_carries_on_the_undefined),
    ],
)
def test_broken_member_fails_the_contract(name: str, rule: Callable[[Make], None]) -> None:
    """A scheduler that breaks a rule is caught by it."""
    with pytest.raises(AssertionError, match=_MEANT[rule]):
        rule(lambda: build.build({"_target_": f"{BROKEN}.{name}"}))


_MEANT: dict[Callable[[Make], None], str] = {
    its_rungs_end_with_the_full_length: "full length",
    it_carries_on_only_what_rests: "runs already|has failed",
    a_study_of_any_length_has_a_fully_trained_trial: "trained to the end",
    it_is_a_pure_function: "two answers",
    it_prefers_the_better: "worse trial|better ones",
    it_saves_epochs_if_it_asks_for_them: "saved nothing",
    it_never_carries_on_the_undefined: "infinite cost",
}


# ---- several objectives ----


@pytest.mark.parametrize("name", [name for name in MEMBERS if "epochs" in build.build(config_of(name)).needs])
def test_of_several_objectives_the_undominated_go_on_first(name: str) -> None:
    """At equal fidelity a trial is not carried on while one that is better in both objectives rests at the same rung; what
    others have reached with more epochs does not matter."""
    scheduler = build.build(config_of(name))
    rungs, rng = scheduler.rungs(FULL), random.Random(0)
    in_one_bracket = [n for n in range(200) if scheduler.first_rung(n, rungs) == 0][:24]
    shown = {n: {0: Mark((rng.random(), rng.random()))} for n in in_one_bracket}
    shown[in_one_bracket[0]] |= {place: Mark((-9.0, -9.0)) for place in range(1, len(rungs))}  # reached with more epochs
    carried = _carried_on(scheduler, rungs, shown)
    assert len(carried) >= len(shown) // scheduler.reduction - 1
    waiting = set(shown) - {in_one_bracket[0]}
    for number in carried:
        waiting.discard(number)
        mine = shown[number][0].values
        assert not any(all(a < b for a, b in zip(shown[other][0].values, mine)) for other in waiting)


def _carried_on(scheduler: Any, rungs: Sequence[int], marks: dict[int, dict[int, Mark]]) -> list[int]:
    """Who leaves the first rung, in order, if all that are carried on run and none ends."""
    running: list[int] = []
    while True:
        number = scheduler.next(rungs, standings_of(marks, running))
        if number is None:
            return running
        running.append(number)


@pytest.mark.parametrize("name", [name for name in MEMBERS if "epochs" in build.build(config_of(name)).needs])
def test_infeasible_trials_go_last(name: str) -> None:
    """A trial that misses a constraint is not carried on while a feasible one rests at its rung, however good it is."""
    scheduler = build.build(config_of(name))
    rungs = scheduler.rungs(FULL)
    numbers = [n for n in range(200) if scheduler.first_rung(n, rungs) == 0][:12]
    marks = {n: {0: Mark((float(n),), violation=1.0 if place < 6 else 0.0)} for place, n in enumerate(numbers)}
    assert (
        _carried_on(scheduler, rungs, marks)[: len(numbers) // scheduler.reduction] == numbers[6 : 6 + len(numbers) // scheduler.reduction]
    )


# ---- settings ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reduction": 1}, "scheduler.reduction must be a whole number of at least 2, got 1"),
        ({"reduction": 2.5}, "scheduler.reduction must be a whole number"),
        ({"least": 0}, "scheduler.least must be a whole number of at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_impossible_settings_are_refused_in_one_line(name: str, settings: Config, message: str) -> None:
    """A ladder that cannot be built is a usage error that names key, rule, value and remedy."""
    with pytest.raises(UsageError, match=message):
        build.build({**config_of(name), **settings})


def test_hyperband_gives_its_brackets_their_shares() -> None:
    """Over a whole round 27, 12, 6 and 4 trials start at the four rungs, as in the paper, and any stretch of it has its part."""
    scheduler = build.build(config_of("hyperband"))
    rungs = scheduler.rungs(52)
    firsts = [scheduler.first_rung(number, rungs) for number in range(49)]
    assert [firsts.count(rung) for rung in range(4)] == [27, 12, 6, 4]
    assert {rung: firsts[:16].count(rung) for rung in range(4)} == {0: 9, 1: 4, 2: 2, 3: 1}
