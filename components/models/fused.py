"""Networks made of several: a space around the spaces of their members.

    {"head": "mean", "members": [{"space": 0, "architecture": {...}}, {"space": 0, "architecture": {...}}], "shares": [0.75, 0.25]}

The architecture is plain JSON and the weights of all members are one file, so such a network is exported as one graph,
quantised, distilled from and registered like any other. The member that is best alone comes first. Heads:

    mean        the members' mean probabilities or values, each with its share
    stack       a multinomial logistic model of the members' log-probabilities, or a linear one of their values
    late        one linear layer over the features of all members, whose own heads are cut off
    attention   each row weighs the members' features before they are summed (Bahdanau et al., 2015)

Legend: B rows, M members, K outputs, F features of one member, D features of the attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from components.artifacts import JSON, InputField
from components.errors import UnknownNameError, UsageError


class Fused:
    """The space; `spaces` are those that its members name by their place."""

    def __init__(self, *, spaces: Sequence[Any]) -> None:
        if not spaces:
            raise UsageError("a fused network needs the spaces of its members, got none")
        self.spaces = list(spaces)
        self.modality = getattr(self.spaces[0], "modality", "")

    def build(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        """The network; takes what its members take. Raises `UnknownNameError` for a head that does not exist."""
        head = architecture["head"]
        if head not in HEADS:
            raise UnknownNameError("head of a fused network", head, HEADS)
        members = [self.spaces[row["space"]].build(row["architecture"], inputs, num_outputs, dropout) for row in architecture["members"]]
        return HEADS[head](members, architecture, inputs, num_outputs, dropout)

    def shrink(self, architecture: JSON) -> JSON:
        """A smaller architecture of the first member's own space: a student is one network, however many teach it."""
        first = architecture["members"][0]
        found: JSON = self.spaces[first["space"]].shrink(first["architecture"])
        return found


class Mean(nn.Module):
    """Weighted mean of what the members say; the logarithms of mean probabilities are the logits, so that softmax gives them back."""

    def __init__(self, members: Sequence[nn.Module], shares: Sequence[float], is_classifier: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.is_classifier = is_classifier
        self.register_buffer("shares_M11", torch.tensor(shares, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        outputs_MBK = torch.stack([member(*inputs) for member in self.members])
        if not self.is_classifier:
            return (outputs_MBK * self.shares_M11).sum(dim=0)
        # Subtracted, not added: eight-bit quantisation rounds what additions take, and logarithms reach far.
        return torch.logsumexp(outputs_MBK.log_softmax(dim=2) - -self.shares_M11.log(), dim=0)


class Stack(nn.Module):
    """Members' log-probabilities (or values), each times a weight of its own, summed, less an offset for each output."""

    def __init__(self, members: Sequence[nn.Module], num_outputs: int, is_classifier: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.is_classifier = is_classifier
        self.weights = nn.Parameter(torch.full((len(members), 1, 1), 1.0 / len(members)))
        self.offsets = nn.Parameter(torch.zeros(num_outputs))

    def forward(self, *inputs: Tensor) -> Tensor:
        outputs_MBK = torch.stack([member(*inputs) for member in self.members])
        told_MBK = outputs_MBK.log_softmax(dim=2) if self.is_classifier else outputs_MBK
        return (told_MBK * self.weights).sum(dim=0) - self.offsets


class FeatureNetwork(nn.Module):
    """Members without their heads, and one head over what they see. While `hold` is on, only that head is trained."""

    def __init__(self, members: Sequence[nn.Module], inputs: Sequence[InputField]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoder_of(member) for member in members)
        self.widths = [_width_of(encoder, inputs) for encoder in self.encoders]
        self.is_held = False

    def hold(self, on: bool) -> None:
        """Whether the encoders stay as they are, normalisation and dropout included."""
        self.is_held = on
        self.encoders.requires_grad_(not on)
        self.train(self.training)

    def train(self, mode: bool = True) -> FeatureNetwork:
        super().train(mode)
        if self.is_held:
            self.encoders.eval()
        return self

    def features(self, *inputs: Tensor) -> list[Tensor]:
        """What each member sees, [B, F]."""
        return [encoder(*inputs) for encoder in self.encoders]


class Late(FeatureNetwork):
    """All features side by side and a linear layer."""

    def __init__(self, members: Sequence[nn.Module], inputs: Sequence[InputField], num_outputs: int, dropout: float) -> None:
        super().__init__(members, inputs)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(sum(self.widths), num_outputs))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.head(torch.cat(self.features(*inputs), dim=1))

    @torch.no_grad()
    def begin_as_mean(self, members: Sequence[nn.Module]) -> None:
        """Lets the head begin as the mean of the members' own (of members that are ensembles in themselves, of their mean head)."""
        heads = [last_layer(member)[1] for member in members]
        weights = [head.weight if head.weight.ndim == 2 else head.weight.mean(dim=0).T for head in heads]
        biases = [head.bias if head.bias.ndim == 1 else head.bias.mean(dim=0) for head in heads]
        self.head[1].weight.copy_(torch.cat(weights, dim=1) / len(heads))
        self.head[1].bias.copy_(torch.stack(biases).mean(dim=0))


class Attention(FeatureNetwork):
    """Features brought to one width; a learned query says of each row how much each member's count."""

    def __init__(self, members: Sequence[nn.Module], inputs: Sequence[InputField], num_outputs: int, dropout: float) -> None:
        super().__init__(members, inputs)
        width = max(self.widths)
        self.norms = nn.ModuleList(nn.LayerNorm(own) for own in self.widths)
        self.values = nn.ModuleList(nn.Linear(own, width) for own in self.widths)
        self.query = nn.Linear(width, 1, bias=False)
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, num_outputs))

    def forward(self, *inputs: Tensor) -> Tensor:
        seen = zip(self.values, self.norms, self.features(*inputs))
        values_BMD = torch.stack([value(norm(features)) for value, norm, features in seen], dim=1)
        scores_BM1 = self.query(torch.tanh(values_BMD)).softmax(dim=1)
        return self.head((values_BMD * scores_BM1).sum(dim=1))


def encoder_of(network: nn.Module) -> nn.Module:
    """The network (changed in place) without its head: its last layer passes on what it reads, [B, F]."""
    place, _, name = last_layer(network)[0].rpartition(".")
    setattr(network.get_submodule(place), name, nn.Identity())
    return network


def last_layer(network: nn.Module) -> tuple[str, Any]:
    """A network's head: the last of its layers that have weights, and its name. Raises `UsageError` where there is none."""
    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children()) and list(module.parameters())]
    if not leaves:
        raise UsageError(f"features can be taken from networks with layers that have weights, not from {type(network).__name__}")
    return leaves[-1]


@torch.no_grad()
def _width_of(encoder: nn.Module, inputs: Sequence[InputField]) -> int:
    was_training = encoder.training
    features = encoder.eval()(*(torch.zeros((2, *field.shape), dtype=getattr(torch, field.dtype)) for field in inputs))
    encoder.train(was_training)
    if features.ndim != 2:
        raise UsageError(f"fusion needs features [B, F], those of {type(encoder).__name__} have the shape {list(features.shape)}")
    return int(features.shape[1])


Head = Callable[[Sequence[nn.Module], JSON, Sequence[InputField], int, float], nn.Module]
HEADS: dict[str, Head] = {
    "mean": lambda members, architecture, inputs, outputs, dropout: Mean(members, architecture["shares"], outputs > 1),
    "stack": lambda members, architecture, inputs, outputs, dropout: Stack(members, outputs, outputs > 1),
    "late": lambda members, architecture, inputs, outputs, dropout: Late(members, inputs, outputs, dropout),
    "attention": lambda members, architecture, inputs, outputs, dropout: Attention(members, inputs, outputs, dropout),
}
