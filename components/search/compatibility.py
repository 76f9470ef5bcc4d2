"""Which space, strategy, scheduler and evaluator go together: by what each needs and offers, before anything runs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

from components.artifacts import JSON
from components.build import build
from components.errors import UsageError

WORDS = {
    "supernet": "a supernet, which shares weights between candidates",
    "mixture supernet": "a supernet that can weigh operations against each other",
    "trained supernet": "a supernet that the strategy has trained",
    "epochs": "an evaluator that trains epoch by epoch",
}
# Who may offer what a member of a family needs.
GIVERS = {"strategy": ("space", "evaluator"), "scheduler": ("evaluator",), "evaluator": ("strategy", "space")}
MARKS = {"space": "modality", "strategy": "sampler", "scheduler": "rungs", "evaluator": "evaluate"}  # what a member's class has
MOST = 3  # choices that a refusal names


class AnySpace:
    """Stands for a space that has not been looked at yet, which takes torch: it may offer whatever one can."""

    modality = None
    offers = frozenset({"supernet", "mixture supernet"})


Members = Mapping[str, Any]  # one of each family, built or not: only class attributes are looked at


def check(config: JSON, space: Any = AnySpace, num_objectives: int = 1) -> None:
    """Raises `UsageError`, in one line with the nearest choice, for members that cannot work together.

    Without a space only what no space could mend is refused."""
    members = {"space": space} | {family: build(config[family]) for family in GIVERS if config.get(family)}
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
    """The single changes after which the least is missing, those that keep the strategy and the space first."""
    found = []
    for place, family in enumerate(("evaluator", "scheduler", "space", "strategy")):
        if family not in members or members[family] is AnySpace:
            continue
        for name, other in _family(family, getattr(members["space"], "modality", None)):
            left = len(list(_missing({**members, family: other}, num_objectives)))
            found.append((left, place, name, f"{family}={name}"))
    least = min((row[0] for row in found), default=0)
    return [words for left, _, _, words in sorted(found) if left == least]


def _family(family: str, modality: str | None) -> Iterator[tuple[str, Any]]:
    """Our own members of a family, by name; of spaces, those of a modality."""
    package = importlib.import_module(f"components.{'models' if family == 'space' else 'search'}.{family}")
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for found in vars(module).values():
            own = isinstance(found, type) and found.__module__ == module.__name__ and hasattr(found, MARKS[family])
            if own and (family != "space" or modality in (None, getattr(found, "modality", None))):
                yield info.name, found
                break
