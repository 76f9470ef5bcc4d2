"""Turns a configuration node with a `_target_` into the object it names, if it is on the allow-list.

Configuration is input: a `_target_` can name anything that Python can import, so the *resolved* object is judged,
by the module that defines it, and nested nodes are judged before anything is called. Our own packages are allowed;
a library's class is allowed by its full name in `ALLOWED`; a user's package by `allow(package)`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from components.errors import UnknownNameError, UsageError

OWN_PACKAGES = ("components",)
ALLOWED = frozenset(
    {
        "torch.optim.sgd.SGD",
        "torch.optim.adam.Adam",
        "torch.optim.adamw.AdamW",
        "torch.optim.rmsprop.RMSprop",
        "torch.optim.adagrad.Adagrad",
        "optuna.samplers._random.RandomSampler",
        "optuna.samplers._tpe.sampler.TPESampler",
    }
)
_plugins: set[str] = set()


def allow(package: str) -> None:
    """Lets `build` resolve classes defined below a user's own package (`plugins=[package]`)."""
    _plugins.add(package)


def expose_plugins(packages: Iterable[str]) -> None:
    """Allows a user's packages and lets them be found in the current folder."""
    for package in packages:
        allow(package)
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())


def resolve(target: str) -> Any:
    """The class or function that a dotted path names. Raises `UsageError` if it is missing or not allowed."""
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise UsageError(f"_target_ must be a dotted path to a class or function, got {target!r}")
    if not _may_import(module_name):
        raise UsageError(f"_target_ {target!r} is not allowed: it is neither ours, a plugin's nor listed in components.build")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise UsageError(f"_target_ {target!r} cannot be imported: {error}") from error
    except AttributeError as error:
        module = importlib.import_module(module_name)
        raise UnknownNameError(f"_target_ in {module_name}", name, [n for n in vars(module) if not n.startswith("_")]) from error
    if not _is_allowed(found):
        raise UsageError(f"_target_ {target!r} is not allowed: it resolves to {_full_name(found)!r}")
    return found


def build(config: Any, **extra: Any) -> Any:
    """The object a node describes: nested `_target_` nodes first, then the node itself called with its keys.

    `_partial_: true` returns a callable that waits for the rest. `extra` is added to the outermost call. Raises
    `UsageError` for a target off the allow-list or for an argument the target does not take.
    """
    _judge(config)
    return _build(config, extra)


def _judge(config: Any) -> None:
    if isinstance(config, Mapping):
        if "_target_" in config:
            resolve(str(config["_target_"]))
        for value in config.values():
            _judge(value)
    elif isinstance(config, list | tuple):
        for value in config:
            _judge(value)


def _build(config: Any, extra: Mapping[str, Any]) -> Any:
    if isinstance(config, list | tuple):
        return [_build(value, {}) for value in config]
    if not isinstance(config, Mapping):
        return config
    arguments = {str(k): _build(v, {}) for k, v in config.items() if k not in ("_target_", "_partial_")}
    if "_target_" not in config:
        return {**arguments, **extra}
    target = resolve(str(config["_target_"]))
    arguments |= extra
    _check_arguments(target, str(config["_target_"]), arguments)
    if config.get("_partial_"):
        return lambda *args, **kwargs: target(*args, **{**arguments, **kwargs})
    return target(**arguments)


def _check_arguments(target: Any, name: str, arguments: Mapping[str, Any]) -> None:
    parameters = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in arguments:
        if key not in parameters:
            raise UnknownNameError(f"argument of {name.rpartition('.')[2]}", key, [p for p in parameters if p != "self"])


def _may_import(module: str) -> bool:
    top = module.split(".")[0]
    return top in OWN_PACKAGES or top in _plugins or any(full.split(".")[0] == top for full in ALLOWED)


def _full_name(found: Any) -> str:
    return f"{getattr(found, '__module__', '?')}.{getattr(found, '__qualname__', '?')}"


def _is_allowed(found: Any) -> bool:
    if not callable(found):
        return False
    module = str(getattr(found, "__module__", ""))
    return module.split(".")[0] in {*OWN_PACKAGES, *_plugins} or _full_name(found) in ALLOWED
