"""A supernet for any space of convolutional trunks: candidates take slices of common tensors.

What a layer is called follows from where it stands: by the side of its features, its class and its number among those at
that side. So the second block at side 8 is the same block in networks of any depth, and a narrow network uses the first
channels of a wide one (Cai et al., "Once-for-All", ICLR 2020). Heads are common to candidates that give them as many
places of each channel.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from components.artifacts import JSON, InputField, canonical_json
from components.errors import UsageError
from components.models.supernet.interface import use_batch_statistics

EXAMPLES = 100  # architectures that show which tensors a space needs; 4 s for the convnet
KEPT = 64  # networks whose layers are kept, without weights of their own, to be run again
TRUNK = "features"  # the attribute of a network that holds its layers in order
Names = dict[str, str]
Build = Callable[[JSON], nn.Module]


class SharedSupernet(nn.Module):
    """Runs the network that `build` makes of an architecture, with shared tensors in the place of its own.

    `shapes` say which tensors there are and how large (`shapes_of`). Raises `UsageError` for an architecture with a layer
    that is not among them.
    """

    def __init__(self, build: Build, image: InputField, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self._build, self._image = build, image
        self._networks: OrderedDict[str, tuple[nn.Module, Names]] = OrderedDict()
        self.tensors = nn.ParameterDict({name: nn.Parameter(_initial(name, shape)) for name, shape in sorted(shapes.items())})

    def forward(self, architecture: JSON, image: Tensor) -> Tensor:
        """Logits [B, K] of one candidate."""
        network, names = self._network(architecture)
        taken = {own: self._taken(names[own], parameter.shape) for own, parameter in network.named_parameters()}
        return functional_call(network, taken, (image,))

    def _taken(self, name: str, shape: torch.Size) -> Tensor:
        if name not in self.tensors:
            raise UsageError(f"the supernet was not trained with a layer {name}; this space has changed since")
        tensor = self.tensors[name]
        for axis, length in enumerate(shape):
            if length <= tensor.shape[axis]:
                tensor = tensor.narrow(axis, 0, length)
            else:  # larger than any example: the channels come round again
                tensor = tensor.index_select(axis, torch.arange(length) % tensor.shape[axis])
        return tensor

    def _network(self, architecture: JSON) -> tuple[nn.Module, Names]:
        key = canonical_json(architecture)
        if key not in self._networks:
            network = self._build(architecture)
            use_batch_statistics(network)
            self._networks[key] = network.train(), self._names(architecture)
            if len(self._networks) > KEPT:
                self._networks.popitem(last=False)
        self._networks.move_to_end(key)
        return self._networks[key]

    def _names(self, architecture: JSON) -> Names:
        return {own: name for own, (name, _) in _named_shapes(self._build, self._image, architecture).items()}


def shapes_of(build: Build, image: InputField, examples: Iterable[JSON]) -> dict[str, list[int]]:
    """The common tensors of some architectures, each as large as the largest of them needs."""
    found: dict[str, list[int]] = {}
    for example in examples:
        for name, shape in _named_shapes(build, image, example).values():
            found[name] = [max(a, b) for a, b in zip(found.get(name, shape), shape)]
    return found


def trained_shapes(weights: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The common tensors of a supernet whose state this is."""
    return {name.removeprefix("tensors."): list(tensor.shape) for name, tensor in weights.items()}


def _named_shapes(build: Build, image: InputField, architecture: JSON) -> dict[str, tuple[str, torch.Size]]:
    """From a network's own names to the common ones, with the shapes it needs."""
    with torch.device("meta"):
        network = build(architecture)
    places, channels = _places(network, image)
    return {own: (_common(own, parameter.shape, places, channels), parameter.shape) for own, parameter in network.named_parameters()}


def _places(network: nn.Module, image: InputField) -> tuple[Names, int]:
    """For each layer of the trunk, by its number: side, class and number among its like at that side; and the channels
    that come out of the trunk."""
    shapes: list[torch.Size] = []
    layers = getattr(network, TRUNK)
    hooks = [layer.register_forward_hook(lambda layer, inputs, output: shapes.append(output.shape)) for layer in layers]
    with torch.no_grad(), torch.device("meta"):
        network.eval()(torch.zeros(1, *image.shape))
    for hook in hooks:
        hook.remove()
    counts: Counter[tuple[int, str]] = Counter()
    places = {}
    for number, (layer, shape) in enumerate(zip(layers, shapes)):
        kind = (shape[-1], type(layer).__name__)
        places[str(number)] = f"side{kind[0]}-{kind[1]}{counts[kind]}"
        counts[kind] += 1
    return places, shapes[-1][1]


def _common(own: str, shape: torch.Size, places: Names, channels: int) -> str:
    """The name of the tensor that a parameter is a slice of; no dots, which `ParameterDict` does not take."""
    trunk, _, rest = own.partition(".")
    if trunk != TRUNK:
        return "-".join([own.replace(".", "_"), *(f"{length // channels}places" for length in shape[1:2])])
    number, _, inner = rest.partition(".")
    return "-".join([places[number], inner.replace(".", "_"), *map(str, shape[2:])])


def _initial(name: str, shape: Sequence[int]) -> Tensor:
    """As torch begins convolutions and products; scales at 1, biases at 0."""
    if len(shape) > 1:
        return nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5))
    return torch.ones(shape) if name.partition("weight")[1] else torch.zeros(shape)
