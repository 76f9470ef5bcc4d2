"""A supernet's candidate computes what its own network would compute with the shared weights."""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.artifacts import DatasetVersion
from components.errors import UsageError
from components.models.cells import EDGES, OPERATIONS, Cell, CellNetwork, last_channels, macro, string_of
from components.models.layers import Layer
from components.models.space.cell import CellSpace
from components.models.space.convnet import ConvNet
from components.models.supernet.cell import CellSupernet, lightened
from components.models.supernet.shared import SharedSupernet
from tests.components.models import tiny

CELL = ("nor_conv_3x3", "avg_pool_3x3", "skip_connect", "nor_conv_1x1", "none", "nor_conv_3x3")


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetVersion:
    return tiny.stripes(tmp_path)


@pytest.fixture
def images(dataset: DatasetVersion) -> Tensor:
    return torch.randint(0, 256, (6, *dataset.inputs[0].shape), generator=torch.Generator().manual_seed(0)).to(torch.float32)


@pytest.fixture
def supernet(dataset: DatasetVersion) -> CellSupernet:
    torch.manual_seed(0)
    return CellSupernet(dataset.inputs[0], dataset.num_outputs, channels=8)


def alone(supernet: CellSupernet, dataset: DatasetVersion, cell: tuple[str, ...]) -> nn.Module:
    """The cell's own network, with the weights it has in the supernet."""
    image = dataset.inputs[0]
    layers = macro(image, lambda channels: Layer.of(Cell, cell, channels), channels=8, cells=1, largest_side=16)
    network = CellNetwork(image, [lightened(layer) for layer in layers], last_channels(layers, 8), dataset.num_outputs)
    shared = supernet.state_dict()
    own = network.state_dict()
    for name in own:
        place, found = name.split("."), name
        if place[0] == "features" and place[2] == "edges":
            found = ".".join([*place[:4], cell[int(place[3])], *place[4:]])
        if found in shared:
            own[name] = shared[found]
    network.load_state_dict(own)
    return network.train()


def one_hot(cell: tuple[str, ...]) -> Tensor:
    weights = torch.zeros(len(EDGES), len(OPERATIONS))
    for edge, op in enumerate(cell):
        weights[edge, OPERATIONS.index(op)] = 1.0
    return weights


@pytest.mark.parametrize("cell", [CELL, ("skip_connect",) * 6, ("nor_conv_3x3", "none", "nor_conv_1x1", "none", "none", "avg_pool_3x3")])
def test_a_cell_in_the_supernet_is_the_cell_alone(supernet: CellSupernet, dataset: DatasetVersion, images: Tensor, cell: Any) -> None:
    """Same weights, same batch, same logits."""
    assert torch.allclose(supernet({"cell": string_of(cell)}, images), alone(supernet, dataset, cell)(images), atol=1e-5)


def test_a_cell_that_connects_nothing_says_the_same_of_every_image(supernet: CellSupernet, images: Tensor) -> None:
    logits = supernet({"cell": string_of(("none",) * 6)}, images)
    assert torch.allclose(logits, logits[:1].expand_as(logits))


def test_a_mixture_of_one_operation_an_edge_is_that_cell(supernet: CellSupernet, images: Tensor) -> None:
    """With gradients and without: what costs nothing also changes nothing."""
    cell = supernet({"cell": string_of(CELL)}, images)
    assert torch.allclose(supernet.mixture(one_hot(CELL), images), cell, atol=1e-5)
    assert torch.allclose(supernet.mixture(one_hot(CELL).requires_grad_(), images), cell, atol=1e-5)


def test_gradients_of_a_mixture_are_those_of_its_weights(supernet: CellSupernet, images: Tensor) -> None:
    """Against differences of the loss; of `none` they are 0, for it adds nothing."""
    supernet = supernet.double()
    images = images.double()
    weights = torch.full((len(EDGES), len(OPERATIONS)), 0.2, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(supernet.mixture(weights, images).square().sum(), [weights])
    assert torch.all(gradient[:, OPERATIONS.index("none")] == 0)
    for edge, op in ((0, 3), (2, 1), (5, 4)):
        step = torch.zeros_like(weights)
        step[edge, op] = 1e-6  # larger steps meet the corners of ReLUs
        up, down = (supernet.mixture((weights + sign * step).detach(), images).square().sum() for sign in (1, -1))
        assert gradient[edge, op].item() == pytest.approx((up - down).item() / 2e-6, rel=1e-5)


def test_normalisation_takes_the_batch_at_hand(supernet: CellSupernet, images: Tensor) -> None:
    """In eval mode too: no statistics of other candidates are kept."""
    path = {"cell": string_of(CELL)}
    assert torch.equal(supernet.train()(path, images), supernet.eval()(path, images))
    assert not [name for name, _ in supernet.named_buffers() if "running" in name]


# ---- slices of common tensors ----


CONVNET = ConvNet(stages=[1, 2], widths=[4, 8], depths=[1, 2], growths=[1.5, 2.0], separable_kernels=[3])


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> SharedSupernet:
    torch.manual_seed(0)
    return CONVNET.supernet(tiny.stripes(tmp_path_factory.mktemp("sliced")))


def test_a_network_takes_its_slice_of_the_common_tensors(sliced: SharedSupernet, dataset: DatasetVersion, images: Tensor) -> None:
    """Drawn networks compute what their own network computes with the slices put into it."""
    supernet, convnet, points, rng = sliced, CONVNET, CONVNET.points(dataset), Random(1)
    for _ in range(8):
        architecture = points.draw(rng).value
        network = convnet.build(architecture, dataset.inputs, dataset.num_outputs).train()
        names = supernet._names(architecture)
        with torch.no_grad():
            for own, parameter in network.named_parameters():
                common = supernet.tensors[names[own]]
                parameter.copy_(common[tuple(slice(0, length) for length in parameter.shape)])
        assert torch.allclose(supernet(architecture, images), network(images), atol=1e-5)


def test_narrow_and_wide_networks_learn_from_each_other(sliced: SharedSupernet, dataset: DatasetVersion, images: Tensor) -> None:
    """A step on the wide network changes the narrow one, and deeper ones share the blocks that both have."""
    supernet, points, rng = copy.deepcopy(sliced), CONVNET.points(dataset), Random(1)
    given = {"arch.stages": 2, "arch.block": "residual", "arch.pooling": "average", "arch.depth0": 1, "arch.depth1": 1, "arch.growth": 2.0}
    narrow, wide = (points.draw(rng, {**given, "arch.width": width, "arch.depth1": depth}).value for width, depth in ((4, 1), (8, 2)))
    before = supernet(narrow, images).detach()
    supernet(wide, images).square().sum().backward()
    torch.optim.SGD(supernet.parameters(), lr=0.1).step()
    assert not torch.allclose(supernet(narrow, images), before, atol=1e-4)


def test_layers_that_no_example_has_are_named(sliced: SharedSupernet, dataset: DatasetVersion, images: Tensor) -> None:
    """A space that has grown since its supernet was trained is refused in one sentence."""
    grown = ConvNet(stages=[2], widths=[4], depths=[4], blocks=["plain"])
    architecture = grown.points(dataset).draw(Random(0)).value
    with pytest.raises(UsageError, match="was not trained with a layer side8-Plain3"):
        sliced(architecture, images)


def test_the_spaces_offer_what_they_have(dataset: DatasetVersion) -> None:
    """`mixture supernet` is offered by the space whose supernet has mixtures."""
    assert CellSpace.offers == {"supernet", "mixture supernet"}
    assert ConvNet.offers == {"supernet"}
    assert hasattr(CellSpace().supernet(dataset), "mixture")
