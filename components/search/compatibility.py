"""Which space, strategy, scheduler and evaluator go together: by what each needs and offers, before anything runs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from components.artifacts import JSON
from components.build import build
from components.errors import UsageError

WORDS = {
    "supernet": "a supernet, which shares weights between candidates",
    "epochs": "an evaluator that trains epoch by epoch",
    "weights": "weights of earlier trials",
}


def check(config: JSON, space: Any, num_objectives: int = 1) -> None:
    """Raises `UsageError`, in one line with the nearest choice, for members that cannot work together."""
    strategy, scheduler, evaluator = (member(config, family) for family in ("strategy", "scheduler", "evaluator"))
    if num_objectives > 1 and strategy is not None and getattr(strategy, "objectives", "many") == "one":
        choices = _members("strategy", lambda found: getattr(found, "objectives", "") == "many")
        raise UsageError(
            f"strategy={name_of(config, 'strategy')} pursues one objective, objective lists {num_objectives}; "
            f"choose strategy={' or '.join(choices)}, or one objective"
        )
    _require("strategy", strategy, {"space": space, "evaluator": evaluator}, config)
    _require("scheduler", scheduler, {"evaluator": evaluator}, config)
    _require("evaluator", evaluator, {"strategy": strategy, "space": space}, config)


def member(config: JSON, family: str) -> Any:
    """The built member of a family, or None where the configuration names none."""
    node = config.get(family)
    return build(node) if node else None


def name_of(config: JSON, family: str) -> str:
    """The name a user types for a member: the stem of the module that holds it."""
    return str(config[family]["_target_"]).rpartition(".")[0].rpartition(".")[2]


def offers_of(found: Any) -> frozenset[str]:
    return frozenset(getattr(found, "offers", ()) or ())


def needs_of(found: Any) -> frozenset[str]:
    return frozenset(getattr(found, "needs", ()) or ())


def _require(family: str, found: Any, others: dict[str, Any], config: JSON) -> None:
    for need in sorted(needs_of(found)):
        if any(need in offers_of(other) for other in others.values()):
            continue
        giving = [
            f"{other}={name}"
            for other in others
            for name in _members(other, lambda m, need=need: need in offers_of(m), modality=getattr(others.get("space"), "modality", None))
        ]
        without = [f"{family}={name}" for name in _members(family, lambda m, need=need: need not in needs_of(m))]
        remedy = " or ".join(giving[:3] or without[:3])
        now = " and ".join(f"{other}={name_of(config, other)}" for other in others if config.get(other))
        raise UsageError(f"{family}={name_of(config, family)} needs {WORDS.get(need, need)}, which {now} do not offer; choose {remedy}")


def _members(family: str, fits: Any, modality: str | None = None) -> list[str]:
    """The names of our own members of a family whose class fits."""
    package = importlib.import_module(f"components.{'models' if family == 'space' else 'search'}.{family}")
    found = []
    for name, module in _modules(package):
        classes = [m for m in vars(module).values() if isinstance(m, type) and m.__module__ == module.__name__]
        suited = [c for c in classes if fits(c) and (family != "space" or modality in (None, getattr(c, "modality", None)))]
        marked = [c for c in suited if hasattr(c, {"space": "modality", "evaluator": "evaluate"}.get(family, "needs"))]
        found += [name] if marked else []
    return found


def _modules(package: ModuleType) -> Iterator[tuple[str, ModuleType]]:
    for module in pkgutil.iter_modules(package.__path__):
        yield module.name, importlib.import_module(f"{package.__name__}.{module.name}")
