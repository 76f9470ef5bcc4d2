"""Which space, strategy, scheduler and evaluator go together: by what each needs and offers, before anything runs."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any

from components.artifacts import JSON
from components.build import build
from components.errors import UsageError
from components.models.declared import SPACES, Declared, declared, spaces

WORDS = {
    "supernet": "a supernet, which shares weights between candidates",
    "mixture supernet": "a supernet that can weigh operations against each other",
    "trained supernet": "a supernet that the strategy has trained",
    "epochs": "an evaluator that trains epoch by epoch",
}
# Who may offer what a member of a family needs.
GIVERS = {"strategy": ("space", "evaluator"), "scheduler": ("evaluator",), "evaluator": ("strategy", "space")}
CHANGED = ("evaluator", "scheduler", "space", "strategy")  # what a refusal would rather have changed comes first
MARKS = {"strategy": "sampler", "scheduler": "rungs", "evaluator": "evaluate"}  # what a member's class has
MOST = 3  # choices that a refusal names


class AnySpace:
    """Stands for a space that is not ours, or not known yet: it may offer whatever one can."""

    modality = None
    offers = frozenset({"supernet", "mixture supernet"})


Change = dict[str, tuple[str, Any]]  # another member for each family that changes, with its name
Members = dict[str, Any]  # one of each family, built or not: only class attributes are looked at


def check(config: JSON, space: Any = None, num_objectives: int = 1) -> None:
    """Raises `UsageError`, in one line with the nearest choice, for members that cannot work together.

    Without a space it is judged by what the configured one declares, which takes no torch."""
    members = {family: build(config[family]) for family in GIVERS if config.get(family)}
    members["space"] = _declared(config) if space is None else space
    missing = next(_missing(members, num_objectives), None)
    if missing is None:
        return
    family, need = missing
    name = name_of(config, family)
    remedy = " or ".join(_remedies(members, num_objectives)[:MOST]) or "a combination of your own"
    if need == "objectives":
        raise UsageError(f"{family}={name} pursues one objective, objective lists {num_objectives}; choose {remedy}, or one objective")
    now = [f"{giver}={name_of(config, giver)}" for giver in GIVERS[family] if config.get(giver)]
    offer = "does not offer" if len(now) == 1 else "do not offer"
    raise UsageError(f"{family}={name} needs {WORDS.get(need, need)}, which {' and '.join(now)} {offer}; choose {remedy}")


def _declared(config: JSON) -> Any:
    """What the configured space says of itself; a parent's space is known only with the parent."""
    found = None if config.get("parent") else declared(str(config["space"].get("_target_")))
    return found or AnySpace


def name_of(config: JSON, family: str) -> str:
    """The name a user types for a member: the stem of the module that holds it."""
    return str(config[family]["_target_"]).rpartition(".")[0].rpartition(".")[2]


def offers_of(found: Any) -> frozenset[str]:
    """What a member offers to those of other families."""
    return frozenset(getattr(found, "offers", ()) or ())


def needs_of(found: Any) -> frozenset[str]:
    """What a member asks of those of other families."""
    return frozenset(getattr(found, "needs", ()) or ())


def _missing(members: Members, num_objectives: int) -> Iterator[tuple[str, str]]:
    """What is needed and not offered, by the family that needs it."""
    if num_objectives > 1 and getattr(members.get("strategy"), "objectives", "many") == "one":
        yield "strategy", "objectives"
    for family, givers in GIVERS.items():
        offered = {offer for giver in givers for offer in offers_of(members.get(giver))}
        for need in sorted(needs_of(members.get(family)) - offered):
            yield family, need


def _remedies(members: Members, num_objectives: int) -> list[str]:
    """The single changes that mend all, those that keep the strategy and the space first; the pairs if no single one does."""
    single = [{family: (name, found)} for family in CHANGED for name, found in _others(family, members)]
    pairs = (one | other for one, other in itertools.combinations(single, 2) if one.keys() != other.keys())
    for changes in (single, pairs):
        if found := [_words(change) for change in changes if not any(_missing(members | _members(change), num_objectives))]:
            return found
    return []


def _words(change: Change) -> str:
    return " ".join(f"{family}={name}" for family, (name, _) in change.items())


def _members(change: Change) -> dict[str, Any]:
    return {family: found for family, (_, found) in change.items()}


def _others(family: str, members: Members) -> Iterator[tuple[str, Any]]:
    """Our own members of a family that are not chosen already; none of a family that is not known."""
    chosen = members.get(family)
    if chosen is None or chosen is AnySpace:
        return
    if family == "space":
        found: Iterable[tuple[str, Any]] = ((space.name, space) for space in spaces(getattr(chosen, "modality", None)))
        yield from ((name, space) for name, space in found if name != _stem(chosen))
        return
    yield from ((name, other) for name, other in _family(family) if not isinstance(chosen, other))


def _stem(space: Any) -> str:
    """The name of one of our spaces, declared or built; empty for another's."""
    if isinstance(space, Declared):
        return space.name
    package, _, name = type(space).__module__.rpartition(".")
    return name if package == SPACES else ""


def _family(family: str) -> Iterator[tuple[str, Any]]:
    """Our own members of a family of the search, by name."""
    package = importlib.import_module(f"components.search.{family}")
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for found in vars(module).values():
            if isinstance(found, type) and found.__module__ == module.__name__ and hasattr(found, MARKS[family]):
                yield info.name, found
                break
