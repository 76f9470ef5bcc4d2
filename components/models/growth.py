"""Networks that grow without forgetting: `widen` and `deepen` change a candidate and its weights, not what it computes.

    grown = widen(candidate, network, space, dataset, inputs, width=48)
    grown.candidate, grown.network, grown.origins

`grow` makes both at once; the setting `growth` of a run reaches it by `components.training.tuning`.

Exact at the moment of the change, up to rounding, in eval mode (Chen, Goodfellow and Shlens, "Net2Net: Accelerating
Learning via Knowledge Transfer", ICLR 2016; Wei et al., "Network Morphism", ICML 2016): every block and activation widens
with batch normalisation; group normalisation where groups are repeated whole, layer normalisation by whole factors.
Plain blocks deepen with batch normalisation and ReLU, residual ones with ReLU and any normalisation, separable ones
always. What cannot be is refused: a plain block behind a normalisation of each row has no weights that undo it, and an
activation that changes its own output cannot be put in twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from components.artifacts import JSON, Candidate, DatasetVersion
from components.errors import UsageError
from components.models import preprocessing
from components.models.enlarged import DEPTHS, WIDTHS, changes, named
from components.models.inheritance import inherit, obstacles, origins
from components.models.network import build_network
from components.settings import whole

# By how much rounding may move an answer, in deviations of the answers, by the precision of the weights.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3}


@dataclass(frozen=True)
class Grown:
    """A larger candidate and its network, which answers as the smaller one did; `origins` names the smaller one's parameter
    that each of its own came from, those of new blocks left out."""

    candidate: Candidate
    network: nn.Module
    origins: Mapping[str, str] = field(default_factory=dict)


def widen(
    candidate: Candidate, network: nn.Module, space: JSON, dataset: DatasetVersion, inputs: Sequence[Tensor], *, width: int, seed: int = 0
) -> Grown:
    """The candidate with `width` units or channels (of its first stage; the others grow along), its weights shared out.

    Raises `UsageError` for a width that is not larger and where the function cannot be kept.
    """
    name = named(candidate.architecture, WIDTHS, "wider")
    whole(f"the new {name}", width, candidate.architecture[name] + 1)
    return grow(candidate, network, space, dataset, inputs, {**candidate.architecture, name: width}, seed)


def deepen(
    candidate: Candidate, network: nn.Module, space: JSON, dataset: DatasetVersion, inputs: Sequence[Tensor], *, blocks: int = 1,
    stage: int | None = None, seed: int = 0,
) -> Grown:  # fmt: skip
    """The candidate with `blocks` more in one stage (None: in each), which begin as the identity.

    `inputs` is a batch by which new normalisations learn what they have to undo. Raises `UsageError` where they cannot.
    """
    name = named(candidate.architecture, DEPTHS, "deeper")
    depths = candidate.architecture[name]
    whole("the number of new blocks", blocks, 1)
    if not isinstance(depths, list):
        return grow(candidate, network, space, dataset, inputs, {**candidate.architecture, name: depths + blocks}, seed)
    if stage is not None:
        whole("the stage to deepen", stage, 0, len(depths) - 1)
    deeper = [depth + blocks * (stage in (None, number)) for number, depth in enumerate(depths)]
    return grow(candidate, network, space, dataset, inputs, {**candidate.architecture, name: deeper}, seed)


def grow(
    candidate: Candidate, network: nn.Module, space: JSON, dataset: DatasetVersion, inputs: Sequence[Tensor], larger: JSON, seed: int
) -> Grown:
    """The candidate with the architecture `larger`, its network computing what `network` does. Raises `UsageError` where it cannot.

    It becomes wider first and deeper then: a layer that is both new and wider looks like any other."""
    wider = {**larger, **{name: candidate.architecture[name] for name in DEPTHS if name in larger}}
    grown = Grown(candidate, network, {name: name for name, _ in network.named_parameters()})
    for step in (wider, larger):
        if step != grown.candidate.architecture:
            after = _step(grown.candidate, grown.network, space, dataset, inputs, step, seed)
            came = {name: grown.origins[theirs] for name, theirs in after.origins.items() if theirs in grown.origins}
            grown = Grown(after.candidate, after.network, came)
    return grown


def _step(
    candidate: Candidate, network: nn.Module, space: JSON, dataset: DatasetVersion, inputs: Sequence[Tensor], larger: JSON, seed: int
) -> Grown:
    change = changes(candidate.architecture, larger)
    after = candidate.replace(architecture=larger, numerics={})
    child = build_network(space, after, dataset, seed).to(next(network.parameters()).dtype)
    if reasons := obstacles(child, network):
        raise UsageError(f"{change} would change what the network computes: {reasons[0]}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _know_the_data(child, network)
        inherit(child, network, inputs)
    _require_same(child, network, inputs, change)
    return Grown(after, child.eval(), origins(child, network))


def _know_the_data(child: nn.Module, network: nn.Module) -> None:
    """What a network scales its inputs by, which need not be its data's own: an adopted one may have a parent's."""
    theirs = dict(network.named_modules())
    for name, module in child.named_modules():
        if type(module).__module__ == preprocessing.__name__:
            own = dict(theirs[name].named_buffers(recurse=False))
            for buffer, tensor in module.named_buffers(recurse=False):
                tensor.copy_(own[buffer])


def _require_same(child: nn.Module, parent: nn.Module, inputs: Sequence[Tensor], change: str) -> None:
    """Raises `UsageError` where the answers differ by more than rounding does."""
    modes = child.training, parent.training
    with torch.no_grad():
        ours, theirs = child.eval()(*inputs), parent.eval()(*inputs)
    child.train(modes[0])
    parent.train(modes[1])
    difference = float((ours - theirs).abs().max() / theirs.std().clamp_min(1e-12))
    if not difference <= ROUNDING[ours.dtype]:
        raise UsageError(f"{change} would change what the network computes by {difference:.2g} deviations of its answers")
