"""`parent=`: a model to begin from, found once a run and handed to the stages as a record.

    parent=run:ID                     what a run of this state folder trained
    parent=file:PATH                  a folder that Athanor filed with a model version, or the weights in it
    parent=mlflow:models:/NAME@ALIAS  a registered version; also mlflow:models:/NAME/VERSION

A stage's key takes what the parent is (weights, architecture, data), not how it was named. What a run found is kept in
its folder until it has finished: an alias that moves meanwhile, as it does when the run promotes its own model, does not
make it begin anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.artifacts import JSON, DatasetVersion, TrainedModel
from components.build import build
from components.errors import UsageError
from components.models.enlarged import enlarged
from components.models.parent import Parent, adopting, require_alike, require_intact, require_kin, require_modality, same_answers, unpack
from components.store import write_atomically

KINDS = ("run:", "file:", "mlflow:models:/")
NO_GROWTH = {"width": 1, "blocks": 0}
KEPT = "parents.json"  # in a run's folder: what each name stood for


def adopted(section: JSON, folder: Path | None, stage: str) -> JSON:
    """A stage's section with the parent's record for its name and the parent's architecture for its space (made larger where
    `growth` says so), where it reads of a parent and there is one; `folder` is that of the run. With `inherit=stages` the
    space stays, and only the full training knows of the parent. The names of models that join a soup give way to their
    records, in `joining`."""
    if names := members_of(section):
        records = [find(name, folder).to_json() for name in names]
        section = {**section, "fusion": {**section["fusion"], "members": []}, "joining": records}
    has_parent = isinstance(section.get("parent"), str)
    if has_parent and section.get("inherit", "none") == "none":
        return adopting(section, find(section["parent"], folder))
    section = {name: value for name, value in section.items() if name != "growth"}  # of no use, and so in no key
    if not has_parent:
        return section
    if stage == "train":
        return {**section, "parent": find(section["parent"], folder).to_json()}
    return {**section, "parent": None, "inherit": "none"}


def find(reference: str, folder: Path | None) -> Parent:
    """The parent that a run uses under this name: what it found before, else what is found now and kept in `folder`.

    Raises `UsageError` for a name that leads nowhere, `DataError` for what cannot be used."""
    kept = _kept(folder / KEPT) if folder else {}
    if reference in kept:
        parent = Parent.from_json(kept[reference])
        require_intact(parent)
        return parent
    found = resolve(reference)
    if folder:
        write_atomically(folder / KEPT, json.dumps({**kept, reference: found.to_json()}))
    return found


def _kept(file: Path) -> JSON:
    try:
        found: JSON = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found


def members_of(values: JSON) -> list[str]:
    """The names of the models that the user wants in a soup."""
    members = (values.get("fusion") or {}).get("members")
    return list(members) if isinstance(members, list | tuple) else []


def resolve(reference: str) -> Parent:
    """What the name stands for now. Raises `UsageError` and `DataError`."""
    if mistake := problem(reference):
        raise UsageError(mistake)
    if reference.startswith("run:"):
        parent = of_run(reference.removeprefix("run:"), reference)
    elif reference.startswith("file:"):
        parent = unpack(Path(reference.removeprefix("file:")).expanduser().absolute(), reference=reference)
    else:
        from components.registry.parents import fetch

        parent = fetch(reference.removeprefix("mlflow:models:/"), reference)
    require_intact(parent)
    return parent


def problem(reference: Any, setting: str = "parent") -> str | None:
    """What is wrong with a name, in a sentence."""
    ways = "run:ID, file:PATH, mlflow:models:/NAME@ALIAS or mlflow:models:/NAME/VERSION"
    if not isinstance(reference, str) or not any(reference.startswith(kind) and len(reference) > len(kind) for kind in KINDS):
        return f"{setting} must be {ways}, got {reference!r}"
    return None


def of_run(name: str, reference: str) -> Parent:
    """What a run trained: the network that its chosen deployable was made from, else the last one that it trained."""
    from flows.status import records_of, run_folder

    records = records_of(run_folder(name))
    dataset, report = records.get("version"), records.get("evaluate")
    models = [model for record in records.values() for model in (record if isinstance(record, tuple) else (record,))]
    trained = [model for model in models if isinstance(model, TrainedModel)]
    if dataset is None or not trained:
        raise UsageError(f"parent={reference}: run {name} has no trained model in the store; run it again or name another parent")
    chosen = report.best.model.model if report else ""
    model = next((model for model in trained if model.identity == chosen), trained[-1])
    return Parent.of(model, dataset, reference=reference, run=name)


def judge(values: JSON, dataset: DatasetVersion | None) -> None:
    """What can be said of a parent, its fine-tuning and a soup's members before a run begins. Raises `UsageError`."""
    if not values.get("parent"):
        require_parent_of_members(values)
        if (methods := sorted(values["finetune"])) != ["full"]:
            raise UsageError(f"finetune={','.join(methods)} says how a parent's weights are trained on; add parent=run:ID, for one")
        return
    if values["inherit"] != "none":
        require_parent_of_members(values)
        judge_inheritance(values, dataset)
        return
    evaluator = str(values["evaluator"]["_target_"]).rpartition(".")[0].rpartition(".")[2]
    if not getattr(build(values["evaluator"]), "adopts", False):
        both = f"evaluator={evaluator} gives candidates weights of its own or none, parent={values['parent']} the parent's"
        raise UsageError(f"{both}; choose evaluator=train")
    parent = resolve(values["parent"])
    judge_growth(values, parent)
    if dataset is not None:
        require_kin(parent, dataset)
    elif modality := getattr(build(values["dataset"]), "modality", None):
        require_modality(parent, modality, "the dataset")
    judge_members(values, parent, dataset)


def grows(values: JSON) -> str:
    """The first setting by which a parent's network is to be made larger; empty for none."""
    return next((f"growth.{name}={values['growth'][name]}" for name, none in NO_GROWTH.items() if values["growth"][name] != none), "")


def judge_growth(values: JSON, parent: Parent) -> None:
    """Whether the parent's network can be made larger as asked, as far as its settings tell. Raises `UsageError`."""
    if not (asked := grows(values)):
        return
    if parent.model.members:
        several = f"parent {parent.name} is made of {', '.join(str(row['role']) for row in parent.model.members)}"
        raise UsageError(f"{asked} makes one network larger, {several}; name a run with fusion=none")
    enlarged(parent.model.candidate.architecture, **values["growth"])
    if names := members_of(values):
        raise UsageError(f"fusion.members are averaged with the teacher, which {asked} makes larger than {names[0]}; choose one of them")


def judge_inheritance(values: JSON, dataset: DatasetVersion | None) -> None:
    """Whether stages of the parent can be taken over at all. Raises `UsageError`."""
    if (methods := sorted(values["finetune"])) != ["full"]:
        both = f"finetune={','.join(methods)} trains the parent's own architecture on, inherit=stages puts its stages in another"
        raise UsageError(f"{both}; choose one of them")
    parent = resolve(values["parent"])
    if parent.dataset.modality != "image":
        kind = f"parent {parent.name} was trained on {parent.dataset.modality} data"
        raise UsageError(f"inherit=stages takes stages of networks for images, {kind}; choose inherit=none")
    if parent.model.members:
        several = f"parent {parent.name} is made of {', '.join(str(row['role']) for row in parent.model.members)}"
        raise UsageError(f"inherit=stages takes stages of one network, {several}; name a run with fusion=none")
    if dataset is not None:
        require_kin(parent, dataset)


def require_parent_of_members(values: JSON) -> None:
    """Raises `UsageError` for members of a soup where the search chooses the teacher's architecture."""
    if names := members_of(values):
        with_it = "with inherit=stages" if values.get("parent") else "without a parent"
        raise UsageError(
            f"fusion.members are averaged with the teacher, whose architecture the search chooses {with_it}; "
            f"take parent={names[0]} and inherit=none: then it is theirs"
        )


def judge_members(values: JSON, parent: Parent, dataset: DatasetVersion | None) -> None:
    """Whether the networks that are to join a soup are of the parent's architecture, which is the teacher's. Raises `UsageError`."""
    members = [resolve(name) for name in members_of(values)]
    for member in members:
        require_alike(parent if dataset is None or same_answers(parent, dataset) else members[0], member)
        if dataset is not None:
            require_kin(member, dataset)
