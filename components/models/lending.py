"""The first weights of a stitched network: its parents' where a stage is inherited, and adapters that let them go on.

Before an inherited stage an adapter is the least-squares map from what reaches it to what that stage was trained to read,
both on the same rows (Lenc and Vedaldi, CVPR 2015, learn theirs by gradient; Pan et al., CVPR 2023, begin by least
squares). Behind one, before layers that know nothing yet, it keeps the directions in which the features vary most.
Legend: M rows times places, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.artifacts import JSON
from components.models.stages import features_of
from components.models.stitched import Adapter, places_of

RIDGE = 1e-4  # of the mean variance: keeps the map small in directions in which nothing varies


@torch.no_grad()
def lend(network: nn.Module, architecture: JSON, lenders: Mapping[int, nn.Module], image: Tensor) -> list[str]:
    """Fills a freshly drawn stitched network from its `lenders` (parents' networks by base), and lets a batch of images
    [B, C, H, W] through to set adapters and the running statistics of new layers. Returns the names of the layers that
    were inherited. Draws from the global generator."""
    layers, pieces, inherited = features_of(network), list(places_of(architecture)), []
    values = network.scale(image)  # type: ignore[operator]
    for number, (piece, places) in enumerate(pieces):
        following = next((after for after, _ in pieces[number + 1 :] if "base" in after), None)
        if "adapter" in piece:
            adapter = layers[places[0]]
            assert isinstance(adapter, Adapter)
            values = _adapted(adapter, values, _read(architecture, following, lenders, image))
        elif piece["base"] in lenders:
            values = _lent(layers, places, features_of(lenders[piece["base"]])[piece["first"] : piece["last"]], values)
            inherited += [f"features.{place}" for place in places]
        else:
            values = _first_seen(layers[places[0] : places[-1] + 1], values)
    network.train()
    return inherited


def _lent(layers: nn.Sequential, places: range, source: nn.Sequential, values: Tensor) -> Tensor:
    for place, layer in zip(places, source):
        layers[place].load_state_dict(layer.state_dict())
    made: Tensor = source.eval()(values)
    return made


def _read(architecture: JSON, following: JSON | None, lenders: Mapping[int, nn.Module], image: Tensor) -> Tensor | None:
    """What the trained layers behind an adapter read in their own network, for these images; None where what follows is new."""
    if following is None or following["base"] not in lenders:
        return None
    lender = lenders[following["base"]].eval()
    channels = architecture["bases"][following["base"]]["image"][0]
    read: Tensor = features_of(lender)[: following["first"]](lender.scale(_as_channels(image, channels)))  # type: ignore[operator]
    return read


def _as_channels(image: Tensor, channels: int) -> Tensor:
    """Images with another number of channels: all of them the mean of those there are."""
    if image.shape[1] == channels:
        return image
    return image.to(torch.float32).mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)


def _adapted(adapter: Adapter, values: Tensor, wanted: Tensor | None) -> Tensor:
    """Sets the adapter by what it is given and what is wanted of it (None: nothing in particular); returns what it makes."""
    convolution = adapter[0]
    assert isinstance(convolution, nn.Conv2d)
    if wanted is None:
        _keep_most(convolution, values)
    else:
        _least_squares(convolution, values, wanted)
    made: Tensor = convolution(values)
    if len(adapter) > 1:
        _see_statistics(adapter[1], made, keep=wanted is not None)
    answer: Tensor = adapter.eval()(values)
    return answer


def _least_squares(convolution: nn.Conv2d, values: Tensor, wanted: Tensor) -> None:
    side = [min(pair) for pair in zip(values.shape[2:], wanted.shape[2:])]
    given_MC, wanted_MC = (_rows(functional.adaptive_avg_pool2d(tensor, side)) for tensor in (values, wanted))
    given_mean, wanted_mean = given_MC.mean(dim=0), wanted_MC.mean(dim=0)
    given_MC, wanted_MC = given_MC - given_mean, wanted_MC - wanted_mean
    gram = given_MC.T @ given_MC
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + torch.finfo(torch.float64).tiny)
    weight = torch.linalg.solve(gram, given_MC.T @ wanted_MC).T
    convolution.weight.copy_(weight[:, :, None, None])
    assert convolution.bias is not None
    convolution.bias.copy_(wanted_mean - weight @ given_mean)


def _keep_most(convolution: nn.Conv2d, values: Tensor) -> None:
    """The principal components of the features; where more channels are wanted than there are, an orthogonal map."""
    rows_MC = _rows(values)
    mean = rows_MC.mean(dim=0)
    if convolution.out_channels > convolution.in_channels:
        nn.init.orthogonal_(convolution.weight)
    else:
        vectors = torch.linalg.eigh((rows_MC - mean).T @ (rows_MC - mean)).eigenvectors.flip(1)[:, : convolution.out_channels]
        convolution.weight.copy_(vectors.T[:, :, None, None])
    assert convolution.bias is not None
    convolution.bias.copy_(-(convolution.weight.flatten(1).to(torch.float64) @ mean))


def _rows(values: Tensor) -> Tensor:
    return values.to(torch.float64).movedim(1, -1).flatten(0, -2)


def _see_statistics(norm: nn.Module, made: Tensor, *, keep: bool) -> None:
    """Sets a batch normalisation's running statistics to those of `made`; with `keep` it changes nothing but to follow them."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    variance, mean = torch.var_mean(made, dim=(0, 2, 3), correction=0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    if keep:
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)


def _first_seen(layers: nn.Sequential, values: Tensor) -> Tensor:
    """What new layers make, their batch normalisations with the statistics of these rows."""
    norms = [module for module in layers.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    made: Tensor = layers.train()(values)
    for norm, momentum in zip(norms, usual):
        norm.momentum = momentum
    return made
