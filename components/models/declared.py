"""What our search spaces declare of themselves, read from their source: to import one takes torch, which takes seconds."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPACES = "components.models.space"
FOLDER = Path(__file__).parent / "space"


@dataclass(frozen=True, slots=True)
class Declared:
    """A space's module, class and class attributes, and the type of each of its settings, as it writes it."""

    name: str
    class_name: str
    modality: str
    offers: frozenset[str]
    settings: dict[str, str]


def declared(target: str) -> Declared | None:
    """The space that a `_target_` names; None if it is not one of ours."""
    return next((space for space in spaces() if f"{SPACES}.{space.name}.{space.class_name}" == target), None)


def spaces(modality: str | None = None) -> Iterator[Declared]:
    """Our own spaces, by name; those of a modality."""
    return (space for space in _all() if modality in (None, space.modality))


@functools.cache
def _all() -> tuple[Declared, ...]:
    return tuple(space for file in sorted(FOLDER.glob("*.py")) for space in _read(file))


def _read(file: Path) -> Iterator[Declared]:
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found = dict(_attributes(node))
            if "modality" in found:
                yield Declared(file.stem, node.name, str(found["modality"]), frozenset(found.get("offers", ())), _settings(node))


def _attributes(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    """`modality` and `offers` of a class, as it writes them: a literal, or a frozenset of one."""
    for line in node.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name) and line.targets[0].id in ("modality", "offers"):
            value = line.value.args[0] if isinstance(line.value, ast.Call) else line.value
            yield line.targets[0].id, ast.literal_eval(value)


def _settings(node: ast.ClassDef) -> dict[str, str]:
    """The keyword arguments of a class and their types."""
    made = [line for line in node.body if isinstance(line, ast.FunctionDef) and line.name == "__init__"]
    return {word.arg: ast.unparse(word.annotation) for line in made for word in line.args.kwonlyargs if word.annotation}
