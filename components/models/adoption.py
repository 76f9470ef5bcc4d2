"""A parent's weights in a network of the same architecture for other data: other classes, another image size, other columns.

What only depends on the data is the child's own: how it scales numbers, which categories there are; how it scales images
too, unless theirs are of the same unit (`same_unit`): then the parent's features are best fed as they were (with 50 rows
of Fashion-MNIST and half of the blocks frozen, three seeds gained 0.3 to 1.3 points by it). The head is the parent's
where both tell the same classes apart (or predict the same number), else it stays as it was drawn. Images of other sides
may have more or fewer strided layers before the first stage: the rest is aligned. A first convolution over other
channels spreads the sum of the parent's over them, so that a grey image in three channels is seen as it was in one.
Columns and categories are matched by name: new ones begin as they were drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from components.artifacts import JSON, DatasetVersion, InputField
from components.build import build
from components.errors import UsageError
from components.models import preprocessing
from components.models.network import load_network
from components.models.order import head_of, input_of
from components.models.parent import Parent, require_intact, same_answers

Labels = dict[int, list[Hashable]]  # by axis of a tensor, what each place on it is about


@dataclass(frozen=True)
class Adoption:
    """By name, the tensors of the head and the parameters that did not wholly come from the parent; the share of numbers
    among the parameters that did."""

    head: frozenset[str]
    fresh: frozenset[str]
    share: float


@dataclass(frozen=True)
class _Tensors:
    """A network's state by name, with what the places on its axes are about."""

    state: dict[str, Tensor]
    labels: dict[str, Labels]


def adopt(network: nn.Module, parent: Parent, space: JSON, architecture: JSON, dataset: DatasetVersion) -> Adoption:
    """Fills `network`, the child's freshly drawn one, with what fits of the parent's weights.

    The data are of its kin (`require_kin`). Raises `UsageError` for shapes that do not pass its layers, `DataError` for weights
    that are not the parent's."""
    require_intact(parent)
    _require_shape(network, parent, dataset)
    head = head_of(build(space), architecture, dataset.inputs, dataset.num_outputs)
    origin = load_network(parent.model, parent.dataset)
    own = frozenset() if same_answers(parent, dataset) else head
    ours, theirs = _described(network, dataset.inputs), _described(origin, parent.dataset.inputs)
    stem = dataset.inputs[0].shape[0], parent.dataset.inputs[0].shape[0]
    ways = _alignments(network, origin, dataset, parent)
    own |= _buffers(network, with_scale=not same_unit(dataset, parent.dataset))
    found = [_fitted(ours, theirs, counterpart, own, stem) for counterpart in ways]
    values, whole = max(found, key=lambda row: sum(row[0][name].numel() for name in row[1]))
    network.load_state_dict({**ours.state, **values})
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    share = sum(size for name, size in sizes.items() if name in whole) / max(1, sum(sizes.values()))
    return Adoption(head, frozenset(sizes) - whole, share)


def _require_shape(network: nn.Module, parent: Parent, dataset: DatasetVersion) -> None:
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(*input_of(dataset.inputs))
    except RuntimeError as error:
        theirs, ours = (", ".join(str(list(field.shape)) for field in data.inputs) for data in (parent.dataset, dataset))
        raise UsageError(
            f"parent {parent.name} is a network for inputs of {theirs}, which inputs of {ours} of dataset {dataset.name!r} do not pass "
            f"({str(error).splitlines()[0]}); name a parent of fewer stages or none"
        ) from error
    finally:
        network.train(was_training)


def same_unit(dataset: DatasetVersion, other: DatasetVersion) -> bool:
    """Whether the images of both are bright and contrasted alike: means within a deviation, deviations within a factor of 2."""
    one, two = dataset.inputs[0], other.inputs[0]
    if not one.mean or len(one.mean) != len(two.mean) or len(one.std) != len(two.std):
        return False
    near = all(abs(mine - theirs) <= std for mine, theirs, std in zip(one.mean, two.mean, two.std, strict=True))
    return near and all(theirs / 2 <= mine <= 2 * theirs for mine, theirs in zip(one.std, two.std, strict=True))


def _buffers(network: nn.Module, *, with_scale: bool) -> frozenset[str]:
    """Names of the tensors by which a network knows its data: knots, vocabularies, means and scales (of images: `with_scale`)."""
    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if type(module).__module__ == preprocessing.__name__ and (with_scale or not isinstance(module, preprocessing.ScaleImage))
        for name, _ in module.named_buffers(recurse=False)
    )


# ---- which tensor of the parent's a tensor comes from ----


def _alignments(network: nn.Module, origin: nn.Module, dataset: DatasetVersion, parent: Parent) -> list[Callable[[str], str]]:
    """Ways to name the parent's counterpart of a tensor: rows of layers of different lengths agree at their beginning, or
    in their first layer and at their end."""
    renamed = _renamed_encoders(network, dataset, parent)
    shifts = {
        name: len(child) - len(theirs)
        for name, child in network.named_modules()
        if isinstance(child, nn.Sequential) and isinstance(theirs := _submodule(origin, name), nn.Sequential) and len(child) != len(theirs)
    }

    def at_the_end(name: str) -> str:
        for row, shift in shifts.items():
            place, _, rest = name.removeprefix(f"{row}.").partition(".")
            if name.startswith(f"{row}.") and place.isdigit() and int(place) > 0:
                return f"{row}.{int(place) - shift if int(place) > max(shift, 0) else 'none'}.{rest}"
        return renamed(name)

    return [renamed, at_the_end] if shifts else [renamed]


def _submodule(network: nn.Module, name: str) -> nn.Module | None:
    return dict(network.named_modules()).get(name)


def _renamed_encoders(network: nn.Module, dataset: DatasetVersion, parent: Parent) -> Callable[[str], str]:
    """A table's encoders stand in the order of its fields, which may differ: they are matched by the fields' names."""
    places = {field.name: place for place, field in enumerate(parent.dataset.inputs)}
    prefixes = {
        _joined(prefix, f"encoders.{place}."): _joined(prefix, f"encoders.{places.get(field.name, 'none')}.")
        for prefix, module in network.named_modules()
        if _reads_columns(module)
        for place, field in enumerate(dataset.inputs)
    }

    def renamed(name: str) -> str:
        ours = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        return name if ours is None else prefixes[ours] + name.removeprefix(ours)

    return renamed


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


# ---- what of it fits ----


def _fitted(
    ours: _Tensors, theirs: _Tensors, counterpart: Callable[[str], str], own: frozenset[str], stem: tuple[int, int]
) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors that something was taken over for, and the names of those that it was wholly."""
    values: dict[str, Tensor] = {}
    whole: set[str] = set()
    for name, tensor in ours.state.items():
        other = counterpart(name)
        if name in own or other not in theirs.state:
            continue
        if name in ours.labels:
            value, is_whole = _by_label(tensor, ours.labels[name], theirs.state[other], theirs.labels.get(other, {}))
        else:
            value, is_whole = _in_shape(theirs.state[other], tensor, *stem), True
        if value is not None:
            values[name] = value
            whole |= {name} if is_whole else set()
    return values, whole


def _in_shape(source: Tensor, target: Tensor, channels: int, before: int) -> Tensor | None:
    """The parent's tensor, its input channels changed where they are the image's; None if it does not fit."""
    if source.shape == target.shape:
        return source
    is_first = source.ndim == 4 and (source.shape[1], target.shape[1]) == (before, channels)
    if not is_first or (source.shape[0], *source.shape[2:]) != (target.shape[0], *target.shape[2:]):
        return None
    return source.sum(dim=1, keepdim=True).expand_as(target) / channels


def _by_label(target: Tensor, ours: Labels, source: Tensor, theirs: Labels) -> tuple[Tensor | None, bool]:
    """The target with the source's values wherever both have the same label, on each labelled axis; whether all have."""
    index, is_whole = [], True
    for axis in range(target.ndim):
        if axis not in ours and target.shape[axis] != (source.shape[axis] if axis < source.ndim else -1):
            return None, False
        places = {label: place for place, label in enumerate(theirs.get(axis, range(source.shape[axis])))}
        pairs = [(place, places[label]) for place, label in enumerate(ours.get(axis, range(target.shape[axis]))) if label in places]
        is_whole = is_whole and len(pairs) == target.shape[axis]
        index.append(pairs)
    if not all(index):
        return None, False
    value = target.clone()
    at, come = (torch.meshgrid(*(torch.tensor([pair[side] for pair in pairs]) for pairs in index), indexing="ij") for side in (0, 1))
    value[at] = source[come]
    return value, is_whole


# ---- what the places of a table's tensors are about ----


def _described(network: nn.Module, inputs: Sequence[InputField]) -> _Tensors:
    labels: dict[str, Labels] = {}
    for prefix, module in network.named_modules():
        if _reads_columns(module):
            labels |= {_joined(prefix, name): found for name, found in _of_table(module, inputs).items()}
    return _Tensors({name: tensor.clone() for name, tensor in network.state_dict().items()}, labels)


def _reads_columns(module: nn.Module) -> bool:
    """Whether a network encodes a table's fields, one after another, and then goes through hidden layers."""
    return isinstance(getattr(module, "encoders", None), nn.ModuleList) and isinstance(getattr(module, "hidden", None), nn.Sequential)


def _of_table(network: Any, inputs: Sequence[InputField]) -> dict[str, Labels]:
    """Columns and categories for the encoders' own tensors, features for those of the layer that reads them."""
    found: dict[str, Labels] = {}
    features: list[Hashable] = []
    for place, (field, encoder) in enumerate(zip(inputs, network.encoders)):
        features += _features(field, encoder)
        embeds = isinstance(encoder, preprocessing.EmbedCategories)
        rows: list[Hashable] = _categories(field) if embeds else [(field.name, column.name) for column in field.columns]
        found |= {f"encoders.{place}.{name}": {0: rows} for name, _ in encoder.named_parameters()}
    first: Any = network.hidden[0]
    scaled = hasattr(first.linear, "scale_in")
    found["hidden.0.linear.linear.weight" if scaled else "hidden.0.linear.weight"] = {1: features}
    return {**found, "hidden.0.linear.scale_in": {1: features}} if scaled else found


def _features(field: InputField, encoder: Any) -> list[Hashable]:
    if isinstance(encoder, preprocessing.OneHotCategories):
        return [(field.name, column.name, value) for column in field.columns for value in column.vocabulary]
    each = int(encoder.width) // len(field.columns)
    return [(field.name, column.name, number) for column in field.columns for number in range(each)]


def _categories(field: InputField) -> list[Hashable]:
    """The rows of an embedding: each column's unseen value, then its categories."""
    return [(column.name, value) for column in field.columns for value in (None, *column.vocabulary)]
