"""A parent: a trained model that another training begins from, with what it was trained on.

A parent travels as a folder of two files: `weights.safetensors` as it was trained, and `model.json`, the record of the
model and of its data (without rows), with a digest. Nothing here imports torch, and nothing that could run code when it
is opened is ever opened: a file is looked at by its first bytes, compared with its digest, and only then read, as
safetensors.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.artifacts import JSON, DatasetVersion, Record, TrainedModel, digest_of, digest_of_file, observed
from components.errors import DataError, UsageError
from components.models.enlarged import enlarged
from components.models.tensors import difference
from components.store import fsync, write_atomically

WEIGHTS, RECORD = "weights.safetensors", "model.json"
PICKLE = re.compile(
    rb"PK\x03\x04|PK\x05\x06"  # the archive that torch.save makes of one
    rb"|\x80"  # protocols from 2 on
    rb"|\([dl]p\d+\n|[]}]q\x00"  # a mapping or a list in the older two
    rb"|\(S'|\(*[ci][\w.]+\n\w+\n(p\d+\n|q\x00|[()])"  # what is to be called, and with what
)
ADOPTED = "components.models.adopted.Adopted"
HEADER_LENGTH = 8  # bytes of a safetensors file that say how long its JSON header is
BEGINNING = 256  # bytes by which a file is told


@dataclass(frozen=True, kw_only=True)
class Parent(Record):
    """A trained model, its dataset without rows, and how it was found: `origin` holds `reference` and, where they are
    known, the registered `model` and `version` or the `run`."""

    model: TrainedModel
    dataset: DatasetVersion
    origin: JSON = observed(default_factory=dict)

    @classmethod
    def of(cls, model: TrainedModel, dataset: DatasetVersion, **origin: object) -> Parent:
        """The parent that a trained model and its dataset make."""
        return cls(model=model.replace(history=()), dataset=dataset.replace(files={}, source={}, notes=()), origin=dict(origin))

    @property
    def name(self) -> str:
        """As a user typed it, or by its data."""
        return str(self.origin.get("reference") or self.dataset.name)


def adopting(config: JSON, parent: Parent) -> JSON:
    """A configuration whose trainings begin from the parent: its architecture, made larger by the section `growth`, is all
    there is to draw of the space."""
    architecture = enlarged(parent.model.candidate.architecture, **config.get("growth", {}))
    node = {"_target_": ADOPTED, "space": own_space(parent.model), "architecture": architecture}
    return {**{name: value for name, value in config.items() if name != "growth"}, "space": node, "parent": parent.to_json()}


def own_space(model: TrainedModel) -> JSON:
    """The space that a model's architecture is of, whether it was searched there or adopted from a parent."""
    return dict(model.space["space"] if model.space["_target_"] == ADOPTED else model.space)


def pack(model: TrainedModel, dataset: DatasetVersion, folder: Path) -> Path:
    """Writes the two files that another state folder, or another machine, can take as `parent=file:FOLDER`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model.weights.path, folder / WEIGHTS)
    fsync(folder / WEIGHTS)
    placed = model.replace(weights=model.weights.replace(path=folder / WEIGHTS))
    body = Parent.of(placed, dataset).to_json(folder)
    write_atomically(folder / RECORD, json.dumps({"parent": body, "digest": digest_of(body)}))
    return folder


def unpack(path: Path, **origin: object) -> Parent:
    """The parent in a folder, or of its weights' file. Raises `DataError` for what we did not write, or not like this."""
    weights = path / WEIGHTS if path.is_dir() else path
    if not weights.is_file():
        what = f"the folder {path} holds no {WEIGHTS}" if path.is_dir() else f"there is no file {path}"
        raise DataError(f"parent=file: {what}; give the folder that Athanor files with a model version")
    require_safetensors(weights)
    record = weights.with_name(RECORD)
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        body, digest = found["parent"], found["digest"]
    except FileNotFoundError:
        raise DataError(f"{weights} has no {RECORD} beside it, which says what network it is of; keep the two together") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{record} cannot be read as the record of a model ({error}); take the folder from the registry again") from error
    if digest_of(body) != digest:
        raise DataError(f"{record} was changed since it was written (its digest differs); take the folder from the registry again")
    try:
        parent = Parent.from_json(body, weights.parent)
    except ValueError as error:
        raise DataError(f"{record} was written by another version of Athanor ({error}); register the model again with this one") from error
    if not isinstance(parent.model.space.get("_target_"), str):
        raise DataError(f"{record} names no space that its network is of; take the folder from the registry again")
    parent = parent.replace(model=parent.model.replace(weights=parent.model.weights.replace(path=weights)), origin=dict(origin))
    require_intact(parent)
    return parent


def require_safetensors(file: Path) -> None:
    """Raises `DataError` for a file that does not begin as safetensors do; it is not opened otherwise."""
    with file.open("rb") as opened:
        head = opened.read(BEGINNING)
    length = int.from_bytes(head[:HEADER_LENGTH], "little")  # which may well begin as a pickle does
    if head.startswith(b"{", HEADER_LENGTH) and length <= file.stat().st_size - HEADER_LENGTH:
        return
    if PICKLE.match(head):
        raise DataError(f"{file} is a pickle, which can run code when it is opened, so it is not; give safetensors that Athanor wrote")
    raise DataError(f"{file} is no safetensors file; give the weights that Athanor wrote, with their {RECORD} beside them")


def require_alike(one: Parent, other: Parent) -> None:
    """Raises `UsageError` that names the first tensor in which two networks differ; only the files' headers are read."""
    first, second = (shapes(parent.model.weights.path) for parent in (one, other))
    require_same_shapes(first, second, one.name, other.name)


def require_same_shapes(first: Mapping[str, list[int]], second: Mapping[str, list[int]], name: str, other: str) -> None:
    """Raises `UsageError` for networks whose weights have no mean: it names the first tensor in which they differ."""
    if differing := difference(first, second, name, other):
        raise UsageError(f"soup members must have the same tensors, {differing}")


def shapes(weights: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a safetensors file, from its header. Raises `DataError` for another file."""
    require_safetensors(weights)
    with weights.open("rb") as opened:
        text = opened.read(int.from_bytes(opened.read(HEADER_LENGTH), "little"))
    try:
        return {name: list(tensor["shape"]) for name, tensor in json.loads(text).items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{weights} has a damaged header ({type(error).__name__}: {error}); take the file from its source again") from error


def require_intact(parent: Parent) -> None:
    """Raises `DataError` for weights that are gone, or not those of the record."""
    weights = parent.model.weights
    if not weights.path.is_file():
        raise DataError(f"the weights {weights.path} of parent {parent.name} are gone; train it again or name another parent")
    if (found := digest_of_file(weights.path)) != weights.sha256:
        wrong = f"their sha256 is {found[:12]}, the record says {weights.sha256[:12]}"
        raise DataError(f"the weights {weights.path} are not those of parent {parent.name}: {wrong}; take the file from its source again")


def require_modality(parent: Parent, modality: str, whose: str) -> None:
    """Raises `UsageError` for a parent of data of another kind."""
    if (theirs := parent.dataset).modality != modality:
        raise UsageError(
            f"parent {parent.name} was trained on {theirs.modality} data ({theirs.name}), {whose} is {modality}; "
            f"name a parent of {modality} data or none"
        )


def require_kin(parent: Parent, dataset: DatasetVersion) -> None:
    """Raises `UsageError`, naming both, for a parent of another modality or of inputs that have nothing in common."""
    theirs, ours = parent.dataset, dataset
    require_modality(parent, ours.modality, f"dataset {ours.name!r}")
    if _layout(theirs) != _layout(ours):
        both = f"parent {parent.name} takes {_words(theirs)}, dataset {ours.name!r} has {_words(ours)}"
        raise UsageError(f"{both}; name another parent or none")
    if _columns(ours) and not _columns(theirs) & _columns(ours):
        both = f"parent {parent.name} knows the columns {_listed(_columns(theirs))}, dataset {ours.name!r} has {_listed(_columns(ours))}"
        raise UsageError(f"{both}: none in common; name another parent or none")


def same_answers(parent: Parent, dataset: DatasetVersion) -> bool:
    """Whether the two predict the same classes, in the same order, or the same number: then the parent's head serves."""
    ours, theirs = dataset, parent.dataset
    return (ours.task, ours.classes) == (theirs.task, theirs.classes) and (bool(ours.classes) or ours.target == theirs.target)


def may_share_rows(parent: Parent, dataset: DatasetVersion) -> bool:
    """Whether the parent may have been trained on rows of this dataset: it knows some of its classes, or predicts numbers too."""
    if parent.dataset.task != dataset.task:
        return False
    return not dataset.classes or bool(set(dataset.classes) & set(parent.dataset.classes))


def _layout(dataset: DatasetVersion) -> list[int]:
    """How many axes each input has; a table's fields are compared by their columns instead."""
    return [] if _columns(dataset) else [len(field.shape) for field in dataset.inputs]


def _columns(dataset: DatasetVersion) -> set[str]:
    return {column.name for field in dataset.inputs for column in field.columns}


def _words(dataset: DatasetVersion) -> str:
    return ", ".join(f"{field.name} {list(field.shape)}" for field in dataset.inputs)


def _listed(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")
