"""A stage's verb, imported by its name and called: what a worker process is asked to do."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from components.artifacts import JSON
from components.build import expose_plugins
from components.workspace import Workspace


def call_verb(verb: str, inputs: tuple[Any, ...], section: JSON, work: JSON, extra: JSON, *, emit: Callable[..., Any]) -> Any:
    """Imports a stage's verb and calls it."""
    expose_plugins(section.get("plugins", ()))
    return load_verb(verb)(*inputs, section, Workspace(**work, emit=emit), **extra)


def load_verb(verb: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, _, function = verb.partition(":")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
