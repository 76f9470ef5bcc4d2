"""Checkpoints without pickle: one safetensors file, its tensors as such and all the rest as JSON in its header.

Lightning's checkpoints are nested dictionaries of tensors and plain values. Written whole or not at all: temporary
file, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from components.errors import UsageError
from components.store import fsync

TENSOR, ITEMS, TUPLE = "__tensor__", "__items__", "__tuple__"


class SafeCheckpointIO(CheckpointIO):
    """Writes and reads Lightning's checkpoints as safetensors with a JSON header."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        tensors: dict[str, Tensor] = {}
        tree = _encode(checkpoint, tensors)
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        save_file(tensors, temporary, metadata={"tree": json.dumps(tree)})
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:  # fmt: skip
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The nested dictionary that was saved. Raises `ValueError` for a file that is not such a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            tree = json.loads(file.metadata()["tree"])
            return _decode(tree, file.get_tensor)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a checkpoint of ours: {error}") from error


def require_same(path: Path, made: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises `UsageError` that names the first setting, or tensor, by which a checkpoint's training differs from the one asked for."""
    made, asked = (json.loads(json.dumps({**facts, **_shapes(facts)})) for facts in (made, asked))
    for name in [*asked, *(name for name in made if name not in asked)]:
        if name != "weights" and made.get(name) != asked.get(name):
            told = f"{name} is {made.get(name, 'not there')} in it and {asked.get(name, 'not there')} here"
            raise UsageError(f"{path} is the checkpoint of another training: {told}; remove it, or train in another folder")


def _shapes(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"tensor {name}": shape for name, shape in facts.get("weights", {}).items()}


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {TENSOR: name}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return {key: _encode(item, tensors) for key, item in value.items()}
        return {ITEMS: [[_encode(key, tensors), _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {TUPLE: [_encode(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_encode(item, tensors) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values, got {type(value).__name__}")


def _decode(value: Any, tensor: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensor) for item in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensor(value[TENSOR])
    if ITEMS in value:
        return {_decode(key, tensor): _decode(item, tensor) for key, item in value[ITEMS]}
    if TUPLE in value:
        return tuple(_decode(item, tensor) for item in value[TUPLE])
    return {key: _decode(item, tensor) for key, item in value.items()}
