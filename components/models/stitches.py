"""Which stages of trained networks fit into a child, and the networks that can be put together from them.

A stage fits where the child has one that takes the same resolution to the same resolution; channels may differ, for an
adapter (`components/models/stitched.py`) brings them together. Of a parent's stages that fit a place, the one nearest in
resolution, then in channels, is its counterpart. Every mixture of counterparts is a network (Yang, Zhou, Ren and Wang,
"Deep Model Reassembly", NeurIPS 2022, match blocks of any networks by how alike their features are; where the side is
halved step by step, shapes say it).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from components.artifacts import JSON, Candidate, DatasetVersion
from components.build import build
from components.errors import UsageError
from components.models.parent import Parent
from components.models.stages import Shape, Stage, features_of, image_of, stages_of

TARGET = "components.models.stitched.Stitched"


@dataclass(frozen=True)
class Base:
    """An architecture whose stages can be used: the child's own (without `parent`) or a trained one's, for images `image`."""

    space: JSON
    architecture: JSON
    image: Shape
    stages: tuple[Stage, ...]
    parent: Parent | None = None

    @classmethod
    def of(cls, space: JSON, candidate: Candidate, dataset: DatasetVersion, parent: Parent | None = None) -> Base:
        """Raises `UsageError` for what is no row of layers over an image."""
        image = dataset.inputs[0].shape
        if len(dataset.inputs) != 1 or len(image) != 3:
            shapes = ", ".join(f"{field.name} {list(field.shape)}" for field in dataset.inputs)
            raise UsageError(f"inherit=stages is for networks of one image [C, H, W], {dataset.name!r} has {shapes}; choose inherit=none")
        shape: Shape = (image[0], image[1], image[2])
        return cls(dict(space), candidate.architecture, shape, tuple(stages_of(build(space), candidate.architecture, shape)), parent)

    @classmethod
    def of_parent(cls, parent: Parent) -> Base:
        return cls.of(parent.model.space, parent.model.candidate, parent.dataset, parent)


@dataclass(frozen=True)
class Choice:
    """A stage and the number of the base it comes from (0: the child)."""

    base: int
    stage: Stage


@dataclass(frozen=True)
class Stitch:
    """A choice for each stage of the child, and what is built of them: a space's configuration and an architecture."""

    choices: tuple[Choice, ...]
    bases: tuple[Base, ...]
    space: JSON
    architecture: JSON

    @property
    def parents(self) -> tuple[Parent, ...]:
        """Those that stages come from, in the order of the bases."""
        return tuple(base.parent for base in self.bases if base.parent is not None)

    @property
    def words(self) -> str:
        """Where each stage comes from: `own`, or the number of its parent and of the stage there."""
        return ", ".join(self._origin(choice) for choice in self.choices)

    def _origin(self, choice: Choice) -> str:
        base = self.bases[choice.base]
        return "own" if base.parent is None else f"stage {base.stages.index(choice.stage) + 1} of {base.parent.name}"


def possible(child: Base, parents: Sequence[Base], norm: bool) -> list[Stitch]:
    """All networks of the child's shape in which at least one stage is a parent's and, where there are several, one is its own.

    A parent's stages keep their order. `norm` says whether adapters normalise by batch. Raises `UsageError` where nothing
    fits, naming the nearest.
    """
    options = [[Choice(0, slot), *_counterparts(slot, parents)] for slot in child.stages]
    mixtures = [choices for choices in itertools.product(*options) if _is_stitch(choices)]
    if not mixtures:
        raise UsageError(_nothing_fits(child, parents))
    return [_stitch(choices, (child, *parents), norm) for choices in mixtures]


def _counterparts(slot: Stage, parents: Sequence[Base]) -> Iterator[Choice]:
    for number, parent in enumerate(parents, start=1):
        fitting = [stage for stage in parent.stages if _fits(stage, parent, slot)]
        if fitting:
            yield Choice(number, min(fitting, key=lambda stage: _distance(stage, slot)))


def _fits(stage: Stage, parent: Base, slot: Stage) -> bool:
    """Whether the stage, given the slot's resolution, makes the slot's next one; only a first stage is given an image."""
    if (stage.first == 0) != (slot.first == 0):
        return False
    if stage.takes[1:] == slot.takes[1:]:
        return stage.makes[1:] == slot.makes[1:]
    with torch.device("meta"), torch.no_grad():
        layers = features_of(build(parent.space).build(parent.architecture, [image_of(*parent.image)], 2).eval())
        try:
            made = layers[stage.first : stage.last](torch.zeros(1, stage.takes[0], *slot.takes[1:]))
        except RuntimeError:  # a stage may be built for its own resolution, or leave nothing of a small one
            return False
    return tuple(made.shape[2:]) == slot.makes[1:]


def _distance(stage: Stage, slot: Stage) -> tuple[float, float]:
    """How far apart two stages are: in octaves of resolution, then of channels."""
    sides = abs(math.log2(min(stage.takes[1:]) / min(slot.takes[1:])))
    channels = sum(abs(math.log2(mine / theirs)) for mine, theirs in ((stage.takes[0], slot.takes[0]), (stage.makes[0], slot.makes[0])))
    return sides, channels


def _is_stitch(choices: Sequence[Choice]) -> bool:
    inherited = [choice for choice in choices if choice.base]
    pairs = itertools.combinations(inherited, 2)
    in_order = all(one.stage.last <= other.stage.first for one, other in pairs if one.base == other.base)
    return in_order and bool(inherited) and (len(inherited) < len(choices) or len(choices) == 1)


def _nothing_fits(child: Base, parents: Sequence[Base]) -> str:
    pairs = [(slot, stage) for parent in parents for stage in parent.stages for slot in child.stages]
    slot, stage = min(pairs, key=lambda pair: (_strides_apart(*pair), _distance(pair[1], pair[0])))
    return (
        f"no stage of the parent fits the child: the closest is one from {stage}, where the child has one from {slot}; choose a child that "
        "halves the side like the parent (space.downsamples, space.largest_side) or inherit=none"
    )


def _strides_apart(slot: Stage, stage: Stage) -> tuple[bool, float]:
    strides = (min(part.takes[1:]) / min(part.makes[1:]) for part in (slot, stage))
    return (stage.first == 0) != (slot.first == 0), abs(math.log2(next(strides) / next(strides)))


def _stitch(choices: Sequence[Choice], bases: Sequence[Base], norm: bool) -> Stitch:
    used = [0, *sorted({choice.base for choice in choices} - {0})]
    kept = tuple(bases[number] for number in used)
    renumbered = tuple(Choice(used.index(choice.base), choice.stage) for choice in choices)
    spaces: list[JSON] = []
    for base in kept:
        if base.space not in spaces:
            spaces.append(base.space)
    listed = [{"space": spaces.index(base.space), "architecture": base.architecture, "image": list(base.image)} for base in kept]
    architecture = {"bases": listed, "pieces": list(_pieces(renumbered, bases[0], norm))}
    return Stitch(renumbered, kept, {"_target_": TARGET, "bases": spaces}, architecture)


def _pieces(choices: Sequence[Choice], child: Base, norm: bool) -> Iterator[JSON]:
    """Layers of the bases and, where two meet that do not fit, an adapter."""
    before, channels = Choice(0, Stage(0, 0, child.image, child.image)), child.image[0]
    for choice in choices:
        if _needs_adapter(before, choice, channels):
            yield {"adapter": [channels, choice.stage.takes[0]], "norm": norm}
        yield {"base": choice.base, "first": choice.stage.first, "last": choice.stage.last}
        before, channels = choice, choice.stage.makes[0]
    if channels != (wanted := child.stages[-1].makes[0]):
        yield {"adapter": [channels, wanted], "norm": norm}


def _needs_adapter(before: Choice, after: Choice, channels: int) -> bool:
    """Where channels differ; and where trained layers begin to read features, not an image, that they were not trained on."""
    if channels != after.stage.takes[0]:
        return True
    follows = before.base == after.base and before.stage.last == after.stage.first
    return after.base != 0 and after.stage.first != 0 and not follows
