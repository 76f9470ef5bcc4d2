"""Weights of one network as the start of another that is similar: what is the same is copied, what has grown goes on
computing the same.

A wider layer repeats the parent's units and shares out their weights in the layer that reads them; a larger kernel has
zeros around the parent's; a layer more begins as the identity (Chen, Goodfellow and Shlens, "Net2Net", 2016; Wei et al.,
"Network Morphism", 2016). Layers are paired by class and shape, in order. Unit j of the wider layer repeats unit
j mod n of the parent's n, everywhere, so sums, shortcuts, normalisation and pooling see repeated units only. What became
narrower keeps its first units, and what has no counterpart stays as it was drawn.

A module may say what the axes of its own tensors are (`axes`: by name a tuple of `out`, `in`, `unit`, `kernel` and
`row`, as in `AXES`) and how it begins as the identity (`begin_as_identity()`, which returns whether it does).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from components.models.blocks import ACTIVATIONS, Plain, Skipping

# out: units that the layer makes; in: units that it sums over; unit: units that it reads one by one; row: must be equal.
NORM = {"weight": ("out",), "bias": ("out",), "running_mean": ("out",), "running_var": ("out",), "num_batches_tracked": ()}
AXES: dict[type[nn.Module], dict[str, tuple[str, ...]]] = {
    nn.Conv2d: {"weight": ("out", "in", "kernel", "kernel"), "bias": ("out",)},
    nn.Linear: {"weight": ("out", "in"), "bias": ("out",)},
    nn.Embedding: {"weight": ("row", "out")},
    nn.BatchNorm1d: NORM,
    nn.BatchNorm2d: NORM,
    nn.GroupNorm: NORM,
    nn.LayerNorm: NORM,
}
UNEVEN = 0.5  # repeated units are read with shares that differ by up to so much, so that they do not stay equal
ANCHOR = 0.1  # likeness of two layers without weights, such as the pooling between two stages


@dataclass
class _Pairing:
    """Modules of the child with their counterparts in the parent, and those that were put in between."""

    pairs: list[tuple[nn.Module, nn.Module]] = field(default_factory=list)
    inserted: list[nn.Module] = field(default_factory=list)


def inherit(child: nn.Module, parent: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Changes `child`, freshly drawn, to begin where `parent` ended; returns the share of its parameters that came from there.

    `inputs` is a batch by which inserted layers learn the scale of their features. Takes what is random from the global
    generator.
    """
    found = _Pairing()
    _pair(child, parent, found)
    places = {id(module): place for network in (child, parent) for module, place in _places(network)}
    with torch.no_grad():
        taken = sum(_take_over(mine, theirs, places) for mine, theirs in found.pairs)
        _insert(child, found.inserted, inputs)
    return taken / max(1, sum(parameter.numel() for parameter in child.parameters()))


def obstacles(child: nn.Module, parent: nn.Module) -> list[str]:
    """Why the child cannot begin by computing exactly what its parent does, a sentence each; empty where nothing is known of.

    Wider: units are repeated, so a normalisation over groups of channels has the same mean only where every group is a
    whole number of times what it was. Deeper: a new block can be the identity if its last normalisation can undo
    itself (batch, in a plain block) or its shortcut does it all (the others), and if its activation leaves alone what an
    activation has made already (ReLU).
    """
    found = _Pairing()
    _pair(child, parent, found)
    uneven = [_uneven(mine, theirs) for mine, theirs in found.pairs if isinstance(mine, nn.GroupNorm) and isinstance(theirs, nn.GroupNorm)]
    return [words for words in (*uneven, *map(_no_identity, found.inserted)) if words]


def _uneven(mine: nn.GroupNorm, theirs: nn.GroupNorm) -> str:
    whole = mine.num_channels % theirs.num_channels == 0
    sizes = [norm.num_channels // norm.num_groups for norm in (theirs, mine)]
    if whole and (sizes[0] == sizes[1] or mine.num_groups == theirs.num_groups == 1):
        return ""
    groups = [f"{norm.num_channels} channels in groups of {size}" for norm, size in zip((theirs, mine), sizes)]
    return f"normalisation over groups of channels keeps its means only where groups are repeated whole, got {' and then '.join(groups)}"


def _no_identity(block: nn.Module) -> str:
    bends = [part for part in block.modules() if type(part) in ACTIVATIONS.values()]
    if isinstance(block, Plain):
        if not isinstance(block[1], nn.BatchNorm2d):
            return "a plain block cannot begin as the identity behind a normalisation over channels of each row; choose norm=batch"
        if len(block) > 3:
            return "a plain block with squeeze-and-excite cannot begin as the identity; choose block=residual or separable"
        return "" if isinstance(block[2], nn.ReLU) else f"{type(block[2]).__name__} changes what it has made already, ReLU does not"
    if isinstance(block, Skipping) and type(block.after) in ACTIVATIONS.values() and not isinstance(block.after, nn.ReLU):
        return f"{type(block.after).__name__} after the shortcut changes what it has made already; choose ReLU or block=separable"
    if isinstance(block, Skipping) or hasattr(block, "begin_as_identity") or not bends:
        return ""
    return f"a new {type(block).__name__} cannot begin as the identity"


def origins(child: nn.Module, parent: nn.Module) -> dict[str, str]:
    """The parent's parameter that each of the child's came from, or would, by name; what has no counterpart is left out."""
    found = _Pairing()
    _pair(child, parent, found)
    theirs = {id(tensor): name for name, tensor in parent.named_parameters()}
    came = {
        id(tensor): theirs[id(other)]
        for mine, counterpart in found.pairs
        for name, tensor in mine.named_parameters(recurse=False)
        if (other := dict(counterpart.named_parameters(recurse=False)).get(name)) is not None
    }
    return {name: came[id(tensor)] for name, tensor in child.named_parameters() if id(tensor) in came}


# ---- who is whose counterpart ----


def _pair(child: nn.Module, parent: nn.Module, found: _Pairing) -> None:
    if type(child) is not type(parent):
        return
    found.pairs.append((child, parent))
    if not isinstance(child, nn.Sequential):
        theirs = dict(parent.named_children())
        for name, module in child.named_children():
            if name in theirs:
                _pair(module, theirs[name], found)
        return
    pairs = _aligned(list(child), list(parent))
    for mine, other in pairs:
        _pair(mine, other, found)
    paired = {id(mine) for mine, _ in pairs}
    found.inserted += [module for module in child if id(module) not in paired]


def _aligned(children: list[nn.Module], parents: list[nn.Module]) -> list[tuple[nn.Module, nn.Module]]:
    """The pairs, in order on both sides, that are most alike together; of equals the earliest."""
    likeness = [[_likeness(mine, other) for other in parents] for mine in children]
    best = [[0.0] * (len(parents) + 1) for _ in range(len(children) + 1)]  # from place i of one and j of the other to the ends
    for i in reversed(range(len(children))):
        for j in reversed(range(len(parents))):
            together = likeness[i][j] + best[i + 1][j + 1] if likeness[i][j] else 0.0
            best[i][j] = max(together, best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(children) and j < len(parents):
        if likeness[i][j] and best[i][j] == likeness[i][j] + best[i + 1][j + 1]:
            pairs.append((children[i], parents[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            i += 1
    return pairs


def _likeness(child: nn.Module, parent: nn.Module) -> float:
    """0 for layers of different classes, 1 to 2 for those built alike and up to 1.5 for others, by what their shapes have in common."""
    if type(child) is not type(parent):
        return 0.0
    mine, theirs = dict(child.named_parameters()), dict(parent.named_parameters())
    if not mine or not theirs:
        return ANCHOR
    common, larger = 0.0, 0.0
    for name in mine.keys() | theirs.keys():
        shapes = [tuple(tensors[name].shape) if name in tensors else () for tensors in (mine, theirs)]
        common, larger = common + _product(shapes, min), larger + _product(shapes, max)
    return (1.0 if _build(child) == _build(parent) else 0.5) + common / larger


def _product(shapes: list[tuple[int, ...]], of: Callable[[int, int], int]) -> float:
    """The product over the axes of the smaller or the larger side; 0 or the one there is where the axes do not match."""
    one, other = shapes
    if len(one) != len(other):
        return float(of(0, max(math.prod(one), math.prod(other))))
    return float(math.prod(map(of, one, other)))


def _build(module: nn.Module) -> list[type[nn.Module]]:
    return [type(part) for part in module.modules()]


def _places(network: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    """Each module with the number of units that the convolution or linear layer before it makes (0: there is none)."""
    units = 0
    for module in network.modules():
        yield module, units
        if isinstance(module, nn.Conv2d):
            units = module.out_channels
        elif isinstance(module, nn.Linear):
            units = module.out_features


# ---- taking over ----


def _take_over(child: nn.Module, parent: nn.Module, places: dict[int, int]) -> int:
    """Fills the module's own tensors from its counterpart's; returns how many of its parameters now come from there."""
    axes = getattr(child, "axes", None) or AXES.get(type(child), {})
    theirs = dict(parent.named_parameters(recurse=False)) | dict(parent.named_buffers(recurse=False))
    taken = 0
    for name, tensor in [*child.named_parameters(recurse=False), *child.named_buffers(recurse=False)]:
        if name not in theirs or (name not in axes and not isinstance(tensor, nn.Parameter)):
            continue
        adapted = _adapted(theirs[name], tensor, axes.get(name, ()), (places[id(parent)], places[id(child)]))
        if adapted is not None:
            tensor.copy_(adapted)
            taken += tensor.numel() if isinstance(tensor, nn.Parameter) else 0
    return taken


def _adapted(source: Tensor, target: Tensor, axes: Sequence[str], units: tuple[int, int]) -> Tensor | None:
    """The parent's tensor in the child's shape; None where no rule leads there."""
    if source.ndim != target.ndim:
        return None
    for axis, (before, after) in enumerate(zip(source.shape, target.shape)):
        if before == after:
            continue
        kind = axes[axis] if axis < len(axes) else "row"
        if kind == "row":
            return None
        if kind == "kernel":
            source = _recentred(source, axis, after)
        elif kind == "in":
            widened = _reading(source, axis, after, units)
            if widened is None:
                return None
            source = widened
        else:
            source = source.index_select(axis, _repeated(before, after))
    return source


def _repeated(before: int, after: int) -> Tensor:
    """Which of the parent's units each of the child's is."""
    return torch.arange(after) % before


def _recentred(source: Tensor, axis: int, after: int) -> Tensor:
    """Zeros around a smaller kernel, the middle of a larger one; both sides are odd."""
    before = source.shape[axis]
    if after < before:
        return source.narrow(axis, (before - after) // 2, after)
    shape = list(source.shape)
    shape[axis] = after
    padded = source.new_zeros(shape)
    padded.narrow(axis, (after - before) // 2, before).copy_(source)
    return padded


def _reading(source: Tensor, axis: int, after: int, units: tuple[int, int]) -> Tensor | None:
    """Weights that read other numbers of units. A linear layer may read several places of each channel; where the number
    of places has changed as well, from one to several they share its weight, and from several to one they are summed."""
    before = source.shape[axis]
    if source.ndim == 2:
        places = [count // unit if unit and count % unit == 0 else 0 for count, unit in zip((before, after), units)]
        if not all(places):
            return None
        if places[0] != places[1]:
            if 1 not in places:
                return None
            spread = source.repeat_interleave(places[1], dim=1) / places[1]
            source = spread if places[0] == 1 else source.unflatten(1, (-1, places[0])).sum(dim=2)
            before = source.shape[axis]
    if after <= before:
        return source.narrow(axis, 0, after)
    index = _repeated(before, after)
    lead = source.index_select(axis, index)
    share = 1.0 + UNEVEN * (2.0 * torch.rand(lead.shape[0], after, dtype=lead.dtype) - 1.0)
    total = torch.zeros(lead.shape[0], before, dtype=lead.dtype).index_add_(1, index, share)
    share = share / total.index_select(1, index)
    return lead * share.reshape(*share.shape, *[1] * (lead.ndim - 2))


# ---- layers put in between ----


def _insert(network: nn.Module, inserted: Sequence[nn.Module], inputs: Sequence[Tensor]) -> None:
    """Lets inserted layers begin as the identity where they can."""
    norms = []
    for module in inserted:
        if hasattr(module, "begin_as_identity"):
            module.begin_as_identity()
        elif isinstance(module, Plain) and (norm := _opened(module)) is not None:
            norms.append(norm)
    if norms:
        _see_through(network, norms, inputs)


def _opened(block: Plain) -> nn.BatchNorm2d | None:
    """Makes the block's convolution pass every channel on; the normalisation that then has to undo itself, if it can."""
    convolution, norm = block[0], block[1]
    passes = isinstance(convolution, nn.Conv2d) and convolution.in_channels == convolution.out_channels and convolution.stride == (1, 1)
    if not passes or not isinstance(norm, nn.BatchNorm2d) or len(block) > 3:
        return None
    nn.init.dirac_(convolution.weight)
    return norm


def _see_through(network: nn.Module, norms: Sequence[nn.BatchNorm2d], inputs: Sequence[Tensor]) -> None:
    """Sets normalisations to the mean and deviation of what reaches them, before and after, so that they change nothing."""

    def undo(norm: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        variance, mean = torch.var_mean(given[0], dim=(0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)

    hooks = [norm.register_forward_pre_hook(undo) for norm in norms]
    was_training = network.training
    network.eval()(*inputs)
    network.train(was_training)
    for hook in hooks:
        hook.remove()
