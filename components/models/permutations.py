"""Which units of a network can change places, and the change that makes two networks alike.

The units of a hidden layer have no order: permuted, together with whatever reads them, they compute the same. `Symmetry`
finds which axes of which tensors belong together by following features through the traced network; `match` finds the order
in which one network's units resemble another's most, layer after layer by linear assignment ("weight matching" of
Ainsworth, Hayase and Srinivasa, "Git Re-Basin: Merging Models modulo Permutation Symmetries", ICLR 2023).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from components.models.members import MemberLinear, ScaledLinear
from components.models.preprocessing import EmbedCategories

State = Mapping[str, Tensor]
Orders = dict[int, NDArray[np.int64]]
LEAVES = (ScaledLinear, MemberLinear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
# What treats each unit by itself and all alike.
UNITWISE = (
    nn.ReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.Dropout, nn.Identity, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
UNITWISE_METHODS = ("mean", "unsqueeze", "expand", "contiguous", "to")
SWEEPS = 50
GAIN = 1e-9  # a share of the likeness by which another order must be better


@dataclass(frozen=True)
class Segment:
    """A run of an axis: `units` units of a group (-1: they stay where they are), in `outer` rows, `inner` places of each."""

    group: int
    units: int
    outer: int = 1
    inner: int = 1

    @property
    def width(self) -> int:
        return self.outer * self.units * self.inner


Layout = tuple[Segment, ...]


@dataclass(frozen=True)
class Use:
    """Where a group's units stand: a tensor, one of its axes, and how far along it they begin."""

    tensor: str
    axis: int
    start: int
    segment: Segment


class Symmetry:
    """The groups of units of a network that can be permuted, in the order in which features meet them.

    `axes` maps each tensor to the layout of those of its axes that hold units. Raises `ValueError` for a network that
    cannot be traced.
    """

    def __init__(self, network: nn.Module, inputs: Sequence[Tensor]) -> None:
        self._parent: list[int] = []
        self._fixed: set[int] = set()
        self._axes: dict[str, dict[int, Layout]] = {}
        fed = _Fed(network.eval(), len(inputs))
        try:
            graph = _Tracer().trace(fed)
            with torch.no_grad():
                ShapeProp(fx.GraphModule(fed, graph)).propagate(tuple(inputs))
        except Exception as error:  # tracing fails in as many ways as networks can be written
            raise ValueError(f"{type(network).__name__} cannot be traced: {error}") from error
        self._follow(network, graph)
        self.axes = {name: {axis: self._settled(layout) for axis, layout in axes.items()} for name, axes in self._axes.items()}
        held = [segment for axes in self.axes.values() for layout in axes.values() for segment in layout]
        self.groups = list(dict.fromkeys(segment.group for segment in held if segment.group >= 0))

    def uses(self, group: int) -> list[Use]:
        """Everywhere that a group's units stand."""
        found = []
        for name, axes in self.axes.items():
            for axis, layout in axes.items():
                start = 0
                for segment in layout:
                    found += [Use(name, axis, start, segment)] if segment.group == group else []
                    start += segment.width
        return found

    def units(self, group: int) -> int:
        return self.uses(group)[0].segment.units

    def permuted(self, state: State, orders: Orders) -> dict[str, Tensor]:
        """The same network with its units in other orders: unit i is the one that was at `order[i]`."""
        return {name: self._moved(name, tensor, orders) for name, tensor in state.items()}

    def _moved(self, name: str, tensor: Tensor, orders: Orders) -> Tensor:
        for axis, layout in self.axes.get(name, {}).items():
            tensor = tensor.index_select(axis, torch.from_numpy(_index(layout, orders)))
        return tensor

    # ---- following the features ----

    def _follow(self, network: nn.Module, graph: fx.Graph) -> None:
        modules, layouts = dict(network.named_modules()), {}  # type: dict[str, nn.Module], dict[fx.Node, Layout]
        for node in graph.nodes:
            given = [layouts[argument] for argument in node.all_input_nodes]
            if node.op == "output":
                self._fix(*given)
            elif node.op == "call_module":
                name = str(node.target).removeprefix(_Fed.PREFIX)
                layouts[node] = self._through(name, modules[name], given, node)
            elif node.op in ("call_function", "call_method"):
                layouts[node] = self._combined(node, given)
            else:
                layouts[node] = _still(node)

    def _through(self, name: str, module: nn.Module, given: list[Layout], node: fx.Node) -> Layout:
        layout = given[0] if given else ()
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            return self._made(name, {"weight": 0, "bias": 0}, {"weight": 1}, layout, module.out_channels)
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels:
            return self._kept(name, {"weight": 0, "bias": 0}, layout)
        if isinstance(module, nn.Linear):
            return self._made(name, {"weight": 0, "bias": 0}, {"weight": 1}, layout, module.out_features)
        if isinstance(module, ScaledLinear):
            made, read = {"linear.weight": 0, "scale_out": 1, "bias": 1}, {"linear.weight": 1, "scale_in": 1}
            return self._made(name, made, read, layout, module.linear.out_features)
        if isinstance(module, MemberLinear):
            return self._made(name, {"weight": 2, "bias": 1}, {"weight": 1}, layout, module.weight.shape[2])
        if isinstance(module, NORMS) or (isinstance(module, nn.GroupNorm) and module.num_groups == 1):
            return self._kept(name, dict.fromkeys(("weight", "bias", "running_mean", "running_var"), 0), layout)
        if isinstance(module, UNITWISE):
            return layout
        if isinstance(module, nn.Flatten):
            return _flattened(layout, node)
        if isinstance(module, EmbedCategories):
            width = module.table.embedding_dim
            segment = Segment(self._new(), width, outer=module.width // width)
            self._axes[f"{name}.table.weight"] = {1: (Segment(segment.group, width),)}
            return (segment,)
        self._fix(*given)
        return _still(node)

    def _made(self, name: str, made: Mapping[str, int], read: Mapping[str, int], layout: Layout, units: int) -> Layout:
        """The layout of new units, where they stand, and where those before them are read."""
        fresh = (Segment(self._new(), units),)
        for places, held in ((made, fresh), (read, layout)):
            for tensor, axis in places.items():
                self._axes.setdefault(f"{name}.{tensor}", {})[axis] = held
        return fresh

    def _kept(self, name: str, places: Mapping[str, int], layout: Layout) -> Layout:
        for tensor, axis in places.items():
            self._axes[f"{name}.{tensor}"] = {axis: layout}
        return layout

    def _combined(self, node: fx.Node, given: list[Layout]) -> Layout:
        if node.op == "call_method" and node.target in UNITWISE_METHODS:
            return given[0]
        if node.target in (operator.add, operator.mul, torch.add, torch.mul):
            return self._joined(given)
        if node.target is torch.cat and _along_units(node):
            return tuple(segment for layout in given for segment in layout)
        self._fix(*given)
        return _still(node)

    def _joined(self, given: list[Layout]) -> Layout:
        """What is added or multiplied unit by unit has one order."""
        first, *others = given
        for other in others:
            if [(s.units, s.outer, s.inner) for s in first] != [(s.units, s.outer, s.inner) for s in other]:
                self._fix(first, other)
                continue
            for mine, theirs in zip(first, other):
                if mine.group < 0 or theirs.group < 0:
                    self._fix((mine,), (theirs,))
                else:
                    self._parent[self._root(theirs.group)] = self._root(mine.group)
        return first

    def _new(self) -> int:
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def _root(self, group: int) -> int:
        while self._parent[group] != group:
            group = self._parent[group]
        return group

    def _fix(self, *layouts: Layout) -> None:
        self._fixed |= {segment.group for layout in layouts for segment in layout if segment.group >= 0}

    def _settled(self, layout: Layout) -> Layout:
        fixed = {self._root(group) for group in self._fixed}

        def root(group: int) -> int:
            return -1 if group < 0 or self._root(group) in fixed else self._root(group)

        return tuple(Segment(root(s.group), s.units, s.outer, s.inner) for s in layout)


class _Fed(nn.Module):
    """A network that takes its inputs as one tuple: what takes any number of them cannot be traced."""

    PREFIX = "network."

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.network, self.count = network, count

    def forward(self, fields: tuple[Tensor, ...]) -> Tensor:
        return self.network(*(fields[place] for place in range(self.count)))


class _Tracer(fx.Tracer):
    """Leaves preprocessing and layers that are known here whole."""

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(module, LEAVES) or type(module).__module__ == "components.models.preprocessing"
        return known or super().is_leaf_module(module, module_qualified_name)


def _shape(node: fx.Node) -> tuple[int, ...]:
    found = node.meta.get("tensor_meta")
    return tuple(found.shape) if hasattr(found, "shape") else ()


def _still(node: fx.Node) -> Layout:
    """Features that stay where they are."""
    shape = _shape(node)
    width = shape[1 if len(shape) == 4 else -1] if shape else 1
    return (Segment(-1, width),)


def _flattened(layout: Layout, node: fx.Node) -> Layout:
    before = _shape(node.all_input_nodes[0])
    places = int(np.prod(before[2:])) if len(before) == 4 else 1
    return tuple(Segment(s.group, s.units, s.outer, s.inner * places) for s in layout)


def _along_units(node: fx.Node) -> bool:
    axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    shape = _shape(node)
    return isinstance(axis, int) and axis % len(shape) == (1 if len(shape) == 4 else len(shape) - 1)


def _index(layout: Layout, orders: Orders) -> NDArray[np.int64]:
    parts, start = [], 0
    for segment in layout:
        places = np.arange(start, start + segment.width).reshape(segment.outer, segment.units, segment.inner)
        parts.append((places[:, orders[segment.group]] if segment.group in orders else places).reshape(-1))
        start += segment.width
    return np.concatenate(parts)


# ---- matching ----


def match(symmetry: Symmetry, reference: State, other: State, parameters: Sequence[str]) -> Orders:
    """The orders in which the units of `other` resemble those of `reference` most, by their weights.

    Each group is settled first by what comes before it alone, from the input on, so that a permuted copy is found exactly;
    then each is settled by everything around it until nothing changes.
    """
    wanted = {name: reference[name].double() for name in parameters}
    theirs = {name: other[name].double() for name in parameters}
    orders: Orders = {}
    for group in symmetry.groups:
        known = [use for use in symmetry.uses(group) if use.tensor in wanted and _is_known(symmetry, use, orders)]
        orders[group] = _assigned(_likeness(symmetry, known or symmetry.uses(group), wanted, theirs, orders))
    for _ in range(SWEEPS):
        improved = [_improved(symmetry, group, wanted, theirs, orders) for group in symmetry.groups]
        if not any(improved):
            break
    return orders


def _is_known(symmetry: Symmetry, use: Use, orders: Orders) -> bool:
    """Whether all other axes of the tensor have their order."""
    others = [segment.group for axis, layout in symmetry.axes[use.tensor].items() if axis != use.axis for segment in layout]
    return all(group < 0 or group in orders for group in others)


def _improved(symmetry: Symmetry, group: int, wanted: State, theirs: State, orders: Orders) -> bool:
    likeness = _likeness(symmetry, symmetry.uses(group), wanted, theirs, orders)
    found, places = _assigned(likeness), np.arange(len(likeness))
    gained = likeness[places, found].sum() - likeness[places, orders[group]].sum()
    if gained <= GAIN * np.abs(likeness).sum():
        return False
    orders[group] = found
    return True


def _likeness(symmetry: Symmetry, uses: Sequence[Use], wanted: State, theirs: State, orders: Orders) -> NDArray[np.float64]:
    """How much each unit of the one (rows) resembles each of the other (columns): products of all their weights, summed."""
    units = uses[0].segment.units
    total = torch.zeros(units, units, dtype=torch.float64)
    for use in uses:
        if use.tensor in wanted:
            total += _rows(wanted[use.tensor], use) @ _rows(_but_one(symmetry, theirs[use.tensor], use, orders), use).T
    return total.numpy()


def _but_one(symmetry: Symmetry, tensor: Tensor, use: Use, orders: Orders) -> Tensor:
    """A tensor with every axis in order but the one that is asked about."""
    for axis, layout in symmetry.axes[use.tensor].items():
        if axis != use.axis:
            tensor = tensor.index_select(axis, torch.from_numpy(_index(layout, orders)))
    return tensor


def _rows(tensor: Tensor, use: Use) -> Tensor:
    """A row for each unit of a use, holding all its weights there."""
    segment = use.segment
    part = tensor.movedim(use.axis, 0).narrow(0, use.start, segment.width)
    return part.reshape(segment.outer, segment.units, segment.inner, -1).movedim(1, 0).reshape(segment.units, -1)


def _assigned(likeness: NDArray[np.float64]) -> NDArray[np.int64]:
    from scipy.optimize import linear_sum_assignment

    assign: Callable[..., Any] = linear_sum_assignment
    return np.asarray(assign(likeness, maximize=True)[1], dtype=np.int64)
