"""The nouns of the pipeline: frozen records that say where bytes are and never hold them.

Each stage takes records and returns one. A record is small JSON (`to_json`, `from_json`), refers to bytes by
`StoredFile` (path, sha256, size) and to other records by their `identity`, so lineage is a walk over records.

    version ─▶ DatasetVersion ─▶ validate ─▶ QualityReport
                     │─▶ augment ─▶ AugmentationPolicy
                     └─▶ search ─▶ SearchResult(Trial(Candidate)…) ─▶ train, fuse, distill ─▶ TrainedModel
                                     export, quantize ─▶ ExportedModel ─▶ evaluate ─▶ EvaluationReport
                                                            register ─▶ ModelVersion ─▶ promote ─▶ Decision

`identity` is the digest of what was decided. Fields made with `observed()` (seconds, latency, hosts) and the
place of a file on disk are left out of it, so a recomputed record that decides the same has the same identity.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

JSON = dict[str, Any]
T = TypeVar("T")


def observed(default: Any = dataclasses.MISSING, *, default_factory: Any = dataclasses.MISSING) -> Any:
    """A field that was measured, not decided: kept in the record, left out of its identity."""
    if default_factory is not dataclasses.MISSING:
        return field(default_factory=default_factory, metadata={"observed": True})
    return field(default=default, metadata={"observed": True})


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no blanks, floats by `repr`, so equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Any) -> str:
    """sha256 (hex) of a JSON value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Record:
    """A frozen, keyword-only value with a JSON round trip."""

    def to_json(self, base: Path | None = None) -> JSON:
        """Plain JSON; paths below `base` are written relative to it, so that a folder can be renamed or moved."""
        return {f.name: _encode(getattr(self, f.name), base) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], base: Path | None = None) -> Self:
        """The inverse of `to_json`. Raises `ValueError` that names a missing or unknown field."""
        known = _field_types(cls)  # type: ignore[arg-type]
        unknown = set(data) - set(known)
        if unknown:
            raise ValueError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}")
        try:
            return cls(**{name: _decode(known[name], value, base) for name, value in data.items()})
        except TypeError as error:
            raise ValueError(f"{cls.__name__} cannot be read: {error}") from error

    @functools.cached_property
    def identity(self) -> str:
        """sha256 of what this record decided: observed fields and places on disk do not count."""
        return digest_of({"kind": type(self).__name__, **_decided(self)})

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@functools.cache
def _field_types(cls: type[Record]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _encode(value: Any, base: Path | None) -> Any:
    if isinstance(value, Record):
        return value.to_json(base)
    if isinstance(value, Path):
        return str(value.relative_to(base) if base and value.is_relative_to(base) else value)
    if isinstance(value, Mapping):
        return {str(key): _encode(item, base) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item, base) for item in value]
    return value


def _decode(kind: Any, value: Any, base: Path | None) -> Any:
    if value is None or kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode(next(a for a in arguments if a is not type(None)), value, base)
    if isinstance(kind, type) and issubclass(kind, Record):
        return value if isinstance(value, kind) else kind.from_json(value, base)
    if kind is Path:
        return base / value if base else Path(value)
    if origin is tuple:
        return tuple(_decode(arguments[0], item, base) for item in value)
    if origin is dict:
        return {key: _decode(arguments[1], item, base) for key, item in value.items()}
    return value


def _decided(value: Any) -> Any:
    if isinstance(value, StoredFile):
        return value.sha256
    if isinstance(value, Record):
        kept = [f for f in dataclasses.fields(value) if not f.metadata.get("observed")]
        return {f.name: _decided(getattr(value, f.name)) for f in kept}
    if isinstance(value, Mapping):
        return {str(key): _decided(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_decided(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True, kw_only=True)
class StoredFile(Record):
    """A file by place, digest (sha256 hex) and size (bytes); its identity is the digest alone."""

    path: Path
    sha256: str
    size: int

    @classmethod
    def of(cls, path: Path) -> StoredFile:
        """Reads the file once to digest it."""
        return cls(path=path, sha256=digest_of_file(path), size=path.stat().st_size)


# ---- data -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Column(Record):
    """One column of a table: a `number` (mean, std, quantiles of the training split, NaN where missing) or a
    `category` (its vocabulary; code 0 is a value never seen in training, code i is `vocabulary[i - 1]`)."""

    name: str
    kind: str
    vocabulary: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InputField(Record):
    """One input of a model: what the rows look like in memory and what the exported graph is fed.

    `dtype` and `shape` (without the batch axis) describe the stored array. A field whose columns are categories
    is stored as int64 codes and fed to the exported graph as strings. `mean` and `std` are per channel, over the
    training split, in the array's own unit (an image's 0..255).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    columns: tuple[Column, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class DatasetVersion(Record):
    """A dataset as it was at one moment: content digest, splits, input spec and where its arrays are.

    `files` maps `"<split>/<field>"` and `"<split>/target"` to .npy files (C order, first axis the rows) for the
    splits train, validation and test; images kept encoded are `"<split>/<field>.bytes"` (uint8, one file after another)
    and `"<split>/<field>.ends"` (int64 [N]). `components.data.arrays` reads both. `source` is the reader's own
    configuration, enough to read new rows.
    Targets are int64 class indices into `classes` (classification) or float32 (regression).
    """

    name: str
    digest: str
    modality: str
    task: str
    inputs: tuple[InputField, ...]
    target: str
    classes: tuple[str, ...]
    splits: dict[str, int]
    files: dict[str, StoredFile]
    source: JSON
    target_mean: float = 0.0
    target_std: float = 1.0
    notes: tuple[str, ...] = ()

    @property
    def num_outputs(self) -> int:
        """Width of the model's last layer: one per class, or 1 for regression."""
        return len(self.classes) if self.task == "classification" else 1


@dataclass(frozen=True, kw_only=True)
class CheckResult(Record):
    """One row of the quality report: `status` is pass, warn or fail, `reason` one sentence with the figures."""

    name: str
    status: str
    reason: str
    figures: JSON = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class QualityReport(Record):
    """What the checks said of one dataset version."""

    dataset: str
    rows: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """True when no row fails (warnings pass)."""
        return all(row.status != "fail" for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class AugmentationPolicy(Record):
    """How training rows are varied: a buildable `config` (`_target_` and arguments) that takes a `strength` in 0..1."""

    name: str
    modality: str
    config: JSON
    preview: StoredFile | None = observed(None)


# ---- search ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Candidate(Record):
    """A point of a search space: an architecture and hyper-parameters, both plain JSON.

    `hyperparameters` holds optimizer, learning_rate, batch_size, weight_decay, dropout, label_smoothing,
    augmentation_strength and epochs. `numerics` (threads, memory_format) is written down once measured, because
    bit-identity holds for one choice of them only.
    """

    space: str
    architecture: JSON
    hyperparameters: JSON
    numerics: JSON = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trial(Record):
    """One evaluated candidate. `state` is complete, pruned, failed or killed; `cause` tells a failure's kind
    (oom, nan, timeout, bug, killed), `reason` says it in a sentence. `values` are validation metrics and measured
    costs; `constraints` say by how much each limit is missed (0 or less: kept); `rungs` are the values of the first
    objective by epochs, where a scheduler compared trials on the way. `weights` (safetensors) are those that were judged,
    of the best trials of a search alone; None where none were kept."""

    number: int
    candidate: Candidate
    state: str
    values: dict[str, float] = field(default_factory=dict)
    fidelity: JSON = field(default_factory=dict)
    cause: str = ""
    reason: str = ""
    num_parameters: int = 0
    constraints: dict[str, float] = field(default_factory=dict)
    rungs: dict[str, float] = field(default_factory=dict)
    weights: StoredFile | None = None
    history: tuple[JSON, ...] = observed(())
    seconds: float = observed(0.0)


@dataclass(frozen=True, kw_only=True)
class SearchResult(Record):
    """A study's trials, and the number of the best by `objective` (`direction` minimize or maximize).

    With several objectives `objectives` and `directions` name them all, the first being `objective`, and `front` holds
    the numbers of the trials that no other beats in all of them. `rounds` tell, where a target was set, what each
    round reached, what was diagnosed and how the next was aimed. `derived` is what a supernet strategy derived.
    """

    study: str
    objective: str
    direction: str
    trials: tuple[Trial, ...]
    best_number: int
    objectives: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    front: tuple[int, ...] = ()
    rounds: tuple[JSON, ...] = ()
    derived: JSON = field(default_factory=dict)

    @property
    def best_trial(self) -> Trial:
        return next(trial for trial in self.trials if trial.number == self.best_number)

    @property
    def best(self) -> Candidate:
        """The winning candidate: all that training needs to know of a search."""
        return self.best_trial.candidate


# ---- models ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrainedModel(Record):
    """A network's weights (safetensors) with all that is needed to build it again.

    `role` is teacher, student or what fusion made (ensemble, soup, ...); `space` the buildable configuration of the space
    that builds the candidate; `parents` the identities of models it learned from or is made of, `members` rows that say
    more of the latter (model, role, weights, share). `metrics` are on the validation split. `truncated` is true when a
    time limit, not the schedule, ended training. `adopted` tells of a parent whose weights it began with: how they were
    fine-tuned, the share of them that came from there (`inherited`) and how many were trained (`trained_parameters`).
    """

    role: str
    candidate: Candidate
    space: JSON
    dataset: str
    seed: int
    weights: StoredFile
    metrics: dict[str, float]
    parents: tuple[str, ...] = ()
    members: tuple[JSON, ...] = ()
    num_parameters: int = 0
    epochs: float = 0.0
    truncated: bool = False
    adopted: JSON = observed(default_factory=dict)
    history: tuple[JSON, ...] = observed(())
    seconds: float = observed(0.0)


@dataclass(frozen=True, kw_only=True)
class ExportedModel(Record):
    """An ONNX graph with preprocessing inside and a dynamic batch axis.

    `name` is `<role>-<precision>`; `parity` maps a batch size to the largest absolute difference from the network
    it was made from, over real rows; `model` is the TrainedModel's identity.
    """

    name: str
    role: str
    precision: str
    model: str
    dataset: str
    file: StoredFile
    opset: int
    inputs: tuple[JSON, ...]
    outputs: tuple[JSON, ...]
    operators: dict[str, int]
    num_parameters: int = 0
    parents: tuple[str, ...] = ()
    parity: dict[str, float] = observed(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Estimate(Record):
    """A metric's value with its 95 % interval (bootstrap over rows)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Deployable(Record):
    """One exported model measured on ONNX Runtime: validation metrics, size (KiB), latency (ms at batch 1)."""

    model: ExportedModel
    metrics: dict[str, Estimate]
    size_kb: float
    latency_ms: float = observed(0.0)
    latency_p95_ms: float = observed(0.0)
    memory_mb: float = observed(0.0)


@dataclass(frozen=True, kw_only=True)
class EvaluationReport(Record):
    """Every deployable on validation, the one chosen and why, and the chosen one on the test split (read once).

    `predictions` is an .npy of the chosen model's test outputs (probabilities [N, K] or values [N]) and `targets`
    the test targets, so that promotion compares row by row. `figures` holds the confusion matrix, calibration bins
    or residual quantiles.
    """

    dataset: DatasetVersion
    objective: str
    direction: str
    deployables: tuple[Deployable, ...]
    chosen: str
    choice: str = observed("")
    test: dict[str, Estimate] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)
    predictions: StoredFile
    targets: StoredFile
    figures: JSON = field(default_factory=dict)
    device: JSON = observed(default_factory=dict)

    @property
    def best(self) -> Deployable:
        """The chosen deployable."""
        return next(d for d in self.deployables if d.model.name == self.chosen)


# ---- registry -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ModelVersion(Record):
    """A registered model: `name` and `version` in MLflow's registry, its run, its file and its lineage."""

    name: str
    version: int
    run_id: str = observed()
    file: StoredFile
    report: EvaluationReport
    lineage: JSON = observed(default_factory=dict)
    tags: dict[str, str] = observed(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GateResult(Record):
    """What one gate said: whether it lets the challenger pass, the figure it looked at and the rule, in words."""

    name: str
    passed: bool
    rule: str
    words: str
    figures: JSON = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Decision(Record):
    """Whether the challenger became champion, what each gate said, and who is champion now (0: nobody)."""

    model: str
    version: int
    promoted: bool
    gates: tuple[GateResult, ...]
    champion: int
    previous: int
    words: str
    metrics: dict[str, Estimate] = field(default_factory=dict)
    run_id: str = ""


KINDS: dict[str, type[Record]] = {
    cls.__name__: cls
    for cls in (
        DatasetVersion, QualityReport, AugmentationPolicy, Candidate, Trial, SearchResult, TrainedModel,
        ExportedModel, EvaluationReport, ModelVersion, Decision,
    )
}  # fmt: skip


def dump(value: Record | tuple[Record, ...], base: Path | None = None) -> JSON:
    """A record, or a tuple of records, as JSON that says which kind it is."""
    if isinstance(value, tuple):
        return {"kind": "tuple", "items": [dump(item, base) for item in value]}
    return {"kind": type(value).__name__, "record": value.to_json(base)}


def load(data: Mapping[str, Any], base: Path | None = None) -> Any:
    """The inverse of `dump`."""
    if data["kind"] == "tuple":
        return tuple(load(item, base) for item in data["items"])
    return KINDS[data["kind"]].from_json(data["record"], base)
