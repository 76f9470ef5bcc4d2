"""How a training begins: from fresh weights, or from a parent's, by a method of the family `finetune`.

    start = begin(candidate, config, dataset, seed)
    fitted = fit(start.network, ..., joins=start.joins, rates=start.rates)
    start.finished(fitted.network)        a network of the candidate's own architecture
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from components.artifacts import JSON, Candidate, DatasetVersion
from components.build import build
from components.errors import UnknownNameError
from components.models.adoption import Adoption, adopt
from components.models.enlarged import changes
from components.models.growth import grow
from components.models.network import build_network, num_parameters
from components.models.order import head_of
from components.models.parent import Parent, require_kin
from components.training.batches import load_rows, seed_of

ROWS = 256  # by which new normalisations learn what they have to undo
NEVER = 2.0  # a progress that no training reaches


class FineTuning(Protocol):
    """What of an adopted network is trained, and how it is changed for that.

    `keeps` says that some of the parent's weights stay as they were. Names of parameters and modules are those of the network
    that `prepare` returned."""

    keeps: bool

    def changed(self, candidate: Candidate) -> Candidate:
        """The candidate as its network will be when training has ended."""
        ...

    def prepare(self, network: nn.Module, adoption: Adoption, dataset: DatasetVersion) -> nn.Module:
        """The network to train, in place of a copy: what stays as the parent's takes no gradients (`requires_grad`); what is
        new, the head above all, does. It computes what it computed before. Draws from the global generator."""
        ...

    def joins(self, network: nn.Module) -> Mapping[str, float]:
        """Modules that rest (as in eval mode, their weights unchanged), and the progress in 0..1 from which they are trained."""
        ...

    def rates(self, network: nn.Module) -> Mapping[str, float]:
        """Factors on the learning rate, by parameter, where they are not 1."""
        ...

    def finish(self, network: nn.Module) -> nn.Module:
        """The trained network with what was only there for training taken in: it computes the same."""
        ...


@dataclass(frozen=True)
class Start:
    """A network to train, the candidate that it will be, what rests in it and at which rates it learns; `facts` tell of
    its parent (empty without one)."""

    network: nn.Module
    candidate: Candidate
    method: FineTuning | None = None
    joins: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    facts: JSON = field(default_factory=dict)
    parents: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        """Of the candidate's own network, whatever is only there for training."""
        return int(self.facts.get("of_parameters") or num_parameters(self.network))

    def finished(self, network: nn.Module) -> nn.Module:
        """A trained copy of the network as it is kept."""
        return self.method.finish(network) if self.method else network


def begin(candidate: Candidate, config: JSON, dataset: DatasetVersion, seed: int) -> Start:
    """A candidate's network with its first weights. `config` holds space and, to begin from a model, parent (see
    `components.models.parent.adopting`) and finetune. Raises `UsageError` and `DataError` for a parent that does not fit."""
    if not config.get("parent"):
        return Start(build_network(config["space"], candidate, dataset, seed), candidate)
    parent, name = Parent.from_json(config["parent"]), method_name(candidate, config)
    method: FineTuning = build(config["finetune"][name])
    require_kin(parent, dataset)
    before = parent.model.candidate.architecture
    candidate = candidate.replace(architecture=before)  # a trial's may have grown, or have adapters by now
    network = build_network(config["space"], candidate, dataset, seed)
    adoption = adopt(network, parent, config["space"], before, dataset)
    if (larger := config["space"]["architecture"]) != before:
        candidate, network, adoption = _grown(candidate, network, adoption, config["space"], dataset, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "finetune"))
        network = method.prepare(network, adoption, dataset)
    candidate = method.changed(candidate)
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    facts = {
        "parent": parent.model.identity, "finetune": name, "inherited": round(adoption.share, 4), "trained_parameters": trained,
        "of_parameters": num_parameters(build_network(config["space"], candidate, dataset, seed)),
    }  # fmt: skip
    if larger != before:
        facts["grown"] = changes(before, larger)
    return Start(network, candidate, method, method.joins(network), method.rates(network), facts, (parent.model.identity,))


def _grown(
    candidate: Candidate, network: nn.Module, adoption: Adoption, space: JSON, dataset: DatasetVersion, seed: int
) -> tuple[Candidate, nn.Module, Adoption]:
    """An adopted network as large as the space has it, which computes the same; what is new in it counts as fresh."""
    rows = load_rows(dataset, "train", limit=ROWS, seed=seed).fields
    own, inputs = seed_of(seed, "growth"), [rows[field.name] for field in dataset.inputs]
    grown = grow(candidate, network, space, dataset, inputs, space["architecture"], own)
    sizes = {name: parameter.numel() for name, parameter in grown.network.named_parameters()}
    fresh = frozenset(name for name in sizes if grown.origins.get(name, name) in adoption.fresh or name not in grown.origins)
    head = head_of(build(space), space["architecture"], dataset.inputs, dataset.num_outputs)
    share = 1 - sum(sizes[name] for name in fresh) / max(1, sum(sizes.values()))
    larger = candidate.replace(architecture=grown.candidate.architecture)
    return larger, grown.network.train(), Adoption(head, fresh, share)


def method_name(candidate: Candidate, config: JSON) -> str:
    """The method that the candidate names, or the only one there is. Raises `UnknownNameError`."""
    known: Mapping[str, Any] = config["finetune"]
    name = str(candidate.hyperparameters.get("finetune", next(iter(sorted(known)))))
    if name not in known:
        raise UnknownNameError("finetune", name, known)
    return name
