"""Configuration: composed by Hydra from `conf/`, judged, and handed on as plain containers.

A composition is remembered under the digest of `conf/` and the overrides, so that a second run of the same command
does not import Hydra (0.6 s). Everything a user can get wrong ends in one `UsageError` that names the nearest choice.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts import JSON, digest_of
from components.budget import seconds_of
from components.build import build, expose_plugins
from components.errors import UnknownNameError, UsageError
from components.home import home
from components.models.enlarged import require_growth
from components.training.searched import mistakes

CONF = Path(__file__).resolve().parent.parent / "conf"
UNDECIDED = ("budget",)  # says how long, not what: a run with another budget continues the same work


@dataclass(frozen=True)
class Config:
    """A judged composition: `values` (plain containers), the `choices` by family, and the words typed."""

    values: JSON
    choices: JSON
    overrides: tuple[str, ...]

    @property
    def model(self) -> str:
        """Name in the registry: `model=`, else the data set's own name, else its file's or folder's."""
        dataset = self.values["dataset"]
        name = self.values["model"] or dataset.get("name") or Path(str(dataset.get("path"))).name.partition(".")[0]
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", str(name)).strip("-") or "model"

    @property
    def budget(self) -> float | None:
        """Seconds for the whole run, or None."""
        return seconds_of(self.values["budget"])

    @property
    def identity(self) -> str:
        """Digest of everything but the budget: the same command is the same run."""
        return digest_of({k: v for k, v in self.values.items() if k not in UNDECIDED})

    def section(self, keys: Iterable[str]) -> JSON:
        """The part of the configuration that one stage reads."""
        return {key: self.values[key] for key in keys}


def load(overrides: Iterable[str] = (), *, conf: Path | None = None) -> Config:
    """The composed and judged configuration. Raises `UsageError` with one line for any mistake in it."""
    words, folder = _split_conf_dir(conceal(overrides), conf or CONF)
    memo = home() / "compositions" / f"{_conf_digest(folder, words)}.json"
    found = _remembered(memo)
    if found is None:
        found = _compose(words, folder)
        _judge(found)
        _name_the_metric(found["values"])
        if not _conceal_storage(found["values"]["search"]):
            _remember(memo, found)
    expose_plugins(found["values"]["plugins"])
    return Config(values=found["values"], choices=found["choices"], overrides=tuple(words))


def conceal(words: Iterable[str]) -> list[str]:
    """The words without the password of `search.storage`, which goes into this process's environment, where PostgreSQL's
    client looks for it: what is composed is written into journals, reports, databases and the models' lineage."""
    found = []
    for word in words:
        key, _, value = word.partition("=")
        settings: JSON = {"storage": value.strip("'\"")}
        concealed = key.lstrip("+") == "search.storage" and _conceal_storage(settings)
        quote = value[:1] if value[:1] in ("'", '"') else ""
        found.append(f"{key}={quote}{settings['storage']}{quote}" if concealed else word)
    return found


def _conceal_storage(settings: JSON) -> bool:
    """Whether there was a password to take out."""
    storage = settings.get("storage")
    if not isinstance(storage, str) or "://" not in storage:
        return False
    from components.search.partners import apart

    settings["storage"], password = apart(storage)
    if password is not None:
        os.environ["PGPASSWORD"] = password
    return password is not None


def _name_the_metric(values: JSON) -> None:
    """Where `objective` is set, its first entry is what every stage judges by. Raises `UsageError` if another was named."""
    asked = values.get("objective")
    first = asked[0] if isinstance(asked, list) and asked else asked
    if not isinstance(first, str):
        return
    from components.metrics import METRICS

    if first not in METRICS:
        return
    if values["metrics"].get("objective") not in (None, first):
        raise UsageError(f"objective begins with {first}, metrics.objective is {values['metrics']['objective']}; set one of them")
    values["metrics"] = {**values["metrics"], "objective": first}


def _split_conf_dir(overrides: Iterable[str], conf: Path) -> tuple[list[str], list[Path]]:
    words, folders = [], [conf]
    for word in overrides:
        key, equals, value = word.partition("=")
        if key == "parent":
            word = f"parent={_quoted(value)}"
        if key.lstrip("+").startswith("training.class_weights"):
            words += _class_weights(key.lstrip("+"), value)
            continue
        if key == "conf_dir" and equals:
            folder = Path(value).absolute()
            if not folder.is_dir():
                raise UsageError(f"conf_dir {value!r} is not a folder")
            folders.append(folder)
        elif not equals and not key.startswith("~"):
            raise UsageError(f"an override has the form key=value, got {word!r}")
        else:
            words.append(word)
    return words, folders


def _class_weights(key: str, value: str) -> list[str]:
    """The words that set weights of classes: their keys are data, which Hydra must be told to add. Raises `UsageError`."""
    import yaml

    index = key.removeprefix("training.class_weights").removeprefix(".")
    try:
        given = yaml.safe_load(value)
    except yaml.YAMLError:
        given = value
    weights = {index: given} if index else given
    if not isinstance(weights, dict):
        raise UsageError(f"training.class_weights maps class indices to positive numbers, as in {{1: 2.0}}, got {value}")
    return [f"++training.class_weights.{name}={weight}" for name, weight in weights.items()]


def _quoted(value: str) -> str:
    """A value as Hydra takes it whole: names and paths hold characters that mean something to it."""
    plain = not value or value == "null" or value[0] in "'\"" or re.fullmatch(r"[\w:/.@-]+", value)
    return value if plain else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _conf_digest(folders: list[Path], words: list[str]) -> str:
    rows = []
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            stat = file.stat()
            rows.append([str(file), stat.st_size, stat.st_mtime_ns, stat.st_ino])
    return digest_of([rows, words, os.environ.get("ATHANOR_DATA", ""), os.getcwd()])


def _remembered(memo: Path) -> JSON | None:
    try:
        found = json.loads(memo.read_text())
        return dict(found["composition"]) if found["digest"] == digest_of(found["composition"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(memo: Path, found: JSON) -> None:
    try:
        memo.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = memo.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"digest": digest_of(found), "composition": found}))
        temporary.replace(memo)
    except OSError:  # a state folder that cannot be written is reported by the store, in its own words
        return


def _compose(words: list[str], folders: list[Path]) -> JSON:
    """The composition. Raises `UsageError` that names the word which is in the way."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    _check_groups(words, folders)
    try:
        plain, choices = _composed(words, folders)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise _explained(error, words, folders) from error
    _check_sections(plain)
    plain["training"]["class_weights"] = {str(index): weight for index, weight in (plain["training"].get("class_weights") or {}).items()}
    lists = {group: list(plain[group]) for group in _groups(folders) if group in plain and group not in choices}
    return {"values": plain, "choices": {k: v for k, v in choices.items() if not k.startswith("hydra")} | lists}


def _composed(words: list[str], folders: list[Path], *, whole: bool = True) -> tuple[JSON, JSON]:
    """Values and choices as Hydra has them; what must be given may be missing if not `whole`. Raises what Hydra and OmegaConf do."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    extra = [f"hydra.searchpath=[{','.join('file://' + str(f) for f in folders[1:])}]"] if folders[1:] else []
    with initialize_config_dir(str(folders[0]), version_base="1.3"):
        full = compose("pipeline", overrides=[*words, *extra], return_hydra_config=True)
        HydraConfig.instance().set_config(full)
        choices = dict(HydraConfig.get().runtime.choices)
    values = OmegaConf.create({k: v for k, v in full.items() if k != "hydra"})
    plain: JSON = OmegaConf.to_container(values, resolve=True, throw_on_missing=whole)  # type: ignore[assignment]
    return plain, choices


def _check_groups(words: list[str], folders: list[Path]) -> None:
    """The choices of a family, also where one is put in another's settings: `+strategy@strategy.by=evolution`."""
    groups = _groups(folders)
    for word in words:
        key, _, value = word.lstrip("~").partition("=")
        group = key.lstrip("+").partition("@")[0]
        if group not in groups:
            continue
        if value in ("", "null") and group in REQUIRED:
            raise UsageError(f"{key} cannot be {value or 'empty'} (choices: {', '.join(sorted(groups[group]))})")
        names = [name for name in re.split(r"[\[\],\s]+", value) if name]
        for name in names:
            if name != "null" and name not in groups[group]:
                raise UnknownNameError(group, name, groups[group])
        if len(names) > 1 and group in REQUIRED and group not in LISTS:
            raise UsageError(f"{key} takes one choice, got {value}; write {key}={names[0]}")


def _check_sections(values: JSON) -> None:
    """A whole section that was given a value leaves nothing to judge the rest by; a setting that nobody reads (Hydra takes
    any after a `+`) would be ignored. Raises `UsageError` and `UnknownNameError`."""
    import yaml

    known = yaml.safe_load((CONF / "pipeline.yaml").read_text())
    for name, setting in SECTIONS.items():
        if not isinstance(values[name], Mapping):
            rule = f"write {name}.SETTING=VALUE, such as {name}.{setting}"
            raise UsageError(f"{name} holds settings by name, got {values[name]!r}; {rule}")
        for unknown in values[name].keys() - known[name].keys():
            raise UnknownNameError(f"{name} setting", unknown, known[name])
    if not isinstance(values["plugins"], list):
        raise UsageError(f"plugins must be a list of packages, got {values['plugins']!r}; write plugins=[{values['plugins']}]")


def _groups(folders: list[Path]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for folder in folders:
        for file in folder.glob("*/*.yaml"):
            found.setdefault(file.parent.name, []).append(file.stem)
    return found


def _explained(error: Exception, words: list[str], folders: list[Path]) -> UsageError:
    missing = "Missing mandatory value" in str(error) and re.search(r"full_key: (\S+)", str(error))
    if missing:
        return UsageError(f"{missing[1]} must be given: add {missing[1]}=VALUE")
    groups = _groups(folders)
    before: list[str] = []
    for word in sorted(words, key=lambda word: word.lstrip("+~").partition("=")[0].partition("@")[0] not in groups):
        try:  # choices come first, since settings are those of what was chosen
            _composed([*before, word], folders, whole=False)
        except Exception as wrong:
            return _explain_word(word, _composed(before, folders, whole=False)[0], folders, wrong)
        before.append(word)
    first = str(error).strip().splitlines()[0]
    return UsageError(f"the configuration cannot be composed: {first}")


def _explain_word(word: str, others: JSON, folders: list[Path], error: Exception) -> UsageError:
    """What is wrong with a word, given what the others make without it."""
    key, _, value = word.lstrip("+~").partition("=")
    if "@" in key and not word.startswith(("+", "~")):
        return UsageError(f"{key} has no choice yet that could be changed; write +{word}")
    node: Any = others
    path: list[str] = []
    for part in key.split("."):
        if not isinstance(node, Mapping):
            return UsageError(f"{'.'.join(path)} has no keys, so {key!r} cannot be set")
        if part not in node:
            where = f"key in {'.'.join(path)}" if path else "key"
            choices = [*node, *(_groups(folders) if not path else ())]
            return UnknownNameError(where, part, [c for c in choices if c != "_target_"])
        node, path = node[part], [*path, part]
    return UsageError(f"{key}={value}: {str(error).strip().splitlines()[0]}")


# ---- rules for plain settings ---------------------------------------------------------------------------------

RULES: dict[str, tuple[type | tuple[type, ...], str, Any]] = {
    "seed": (int, "a whole number from 0 to 2**31", lambda v: 0 <= v < 2**31),
    "split.validation": ((int, float), "between 0 and 0.5", lambda v: 0 < v <= 0.5),
    "split.test": ((int, float), "between 0 and 0.5", lambda v: 0 < v <= 0.5),
    "search.trials": (int, "a whole number, at least 1", lambda v: v >= 1),
    "search.epochs": ((int, str), "auto or a whole number, at least 1", lambda v: v == "auto" or (isinstance(v, int) and v >= 1)),
    "training.epochs": ((int, str), "auto or a whole number, at least 1", lambda v: v == "auto" or (isinstance(v, int) and v >= 1)),
    "training.threads": ((int, str), "auto or a whole number, at least 1", lambda v: v == "auto" or (isinstance(v, int) and v >= 1)),
    "training.workers": ((int, str), "auto or a whole number, at least 0", lambda v: v == "auto" or (isinstance(v, int) and v >= 0)),
    "training.memory_format": (str, "auto, contiguous or channels_last", lambda v: v in ("auto", "contiguous", "channels_last")),
    "training.precision": (str, "auto, fp32 or bf16", lambda v: v in ("auto", "fp32", "bf16")),
    "training.data": (str, "auto, memory or stream", lambda v: v in ("auto", "memory", "stream")),
    "training.patience": ((int, type(None)), "null or a whole number, at least 1", lambda v: v is None or v >= 1),
    "inherit": (str, "none or stages", lambda v: v in ("none", "stages")),
    "selection.tolerance": ((int, float), "between 0 and 1", lambda v: 0 <= v <= 1),
}
SECTIONS = {  # whose settings are set one by one, with an example
    "split": "test=0.2",
    "search": "trials=16",
    "training": "epochs=20",
    "growth": "width=1.5",
    "selection": "tolerance=0.005",
}
LISTS = ("check", "optimizer", "schedule", "loss", "finetune", "gate")
REQUIRED = (
    "check",
    "augmentation",
    "space",
    "strategy",
    "scheduler",
    "evaluator",
    "runner",
    "trainer",
    "optimizer",
    "schedule",
    "loss",
    "finetune",
    "fusion",
    "distillation",
    "exporter",
    "quantization",
    "metrics",
    "gate",
    "dataset",
)


def _judge(found: JSON) -> None:
    """Collects every problem of the composed values, then raises once."""
    values = found["values"]
    problems = [f"{name} cannot be {'null' if name in values else 'empty'}" for name in REQUIRED if not values.get(name)]
    for name, (kind, rule, holds) in RULES.items():
        value = _at(values, name)
        if isinstance(value, bool) or not isinstance(value, kind) or not holds(value):
            problems.append(f"{name} must be {rule}, got {value!r}")
    problems += mistakes(values["training"])
    problems += _parent_problems(values)
    problems += _soup_problems(values)
    problems += _member_problems(values)
    problems += _duration_problems(values)
    if values["search"]["workers"] != "auto" and not _is_count(values["search"]["workers"]):
        problems.append(f"search.workers must be auto or a whole number, at least 1, got {values['search']['workers']!r}")
    if problems:
        raise UsageError("; ".join(problems))


def _member_problems(values: JSON) -> list[str]:
    return [
        f"{group}.{name} must hold a _target_ (a yaml of a list opens with `# @package {group}.NAME`)"
        for group in LISTS
        for name, node in (values.get(group) or {}).items()
        if node is not None and not (isinstance(node, Mapping) and "_target_" in node)
    ]


def _parent_problems(values: JSON) -> list[str]:
    from flows.parents import grows, problem

    try:
        require_growth(**values["growth"])
    except UsageError as error:
        return [str(error)]
    stages, asked = values.get("inherit") == "stages", grows(values)
    if values.get("parent") is None:
        missing = "add parent=run:ID, for one"
        found = [f"inherit=stages takes stages of a parent's; {missing}"] if stages else []
        return [*found, f"{asked} makes a parent's network larger; {missing}"] if asked else found
    both = f"inherit=stages puts the parent's stages in another network, {asked} makes its own larger; choose one of them"
    return [words for words in (problem(values["parent"]), both if stages and asked else None) if words]


def _soup_problems(values: JSON) -> list[str]:
    from flows.parents import members_of, problem

    fusion = values.get("fusion") or {}
    if "members" in fusion and not isinstance(fusion["members"], int):  # which are of an ensemble
        if isinstance(fusion["members"], str):
            return [f"fusion.members must be a list, got {fusion['members']!r}; write [{fusion['members']}]"]
        build(fusion)
    return [found for name in members_of(values) if (found := problem(name, "a name in fusion.members"))]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _duration_problems(values: JSON) -> list[str]:
    problems = []
    for name in ("budget", "search.trial_seconds"):
        try:
            seconds_of(_at(values, name))
        except UsageError as error:
            problems.append(f"{name}: {error}")
    return problems


def _at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values
