"""Growing is exact: a wider or deeper network answers as before to the last digits, or is refused in a sentence."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.artifacts import Candidate, DatasetVersion
from components.errors import UsageError
from components.models.growth import Grown, deepen, grow, widen
from components.models.network import build_network, num_parameters
from tests.components.models import tiny
from tests.components.models.test_inheritance import CONVNET, MLP, inputs_of, lived_in
from tests.components.training.test_fit import HOW, SMALL_CONVNET, SMALL_MLP

ARCHITECTURES = {
    "plain": {**SMALL_CONVNET, "block": "plain"},
    "residual": SMALL_CONVNET,
    "separable": {**SMALL_CONVNET, "block": "separable", "expansion": 2},
}
WIDER: list[tuple[str, dict[str, Any], int]] = [
    *((block, {"norm": norm}, 16) for block, norm in product(ARCHITECTURES, ("batch", "group", "layer"))),
    *((block, {"squeeze": 2}, 12) for block in ARCHITECTURES),
    *((block, {"activation": "gelu", "downsample": "stride", "pooling": "average"}, 20) for block in ARCHITECTURES),
]
DEEPER: list[tuple[str, dict[str, Any]]] = [
    ("plain", {"norm": "batch"}),
    *(("residual", {"norm": norm, "squeeze": 2}) for norm in ("batch", "group", "layer")),
    *(("separable", {"norm": norm, "activation": "silu"}) for norm in ("batch", "group", "layer")),
]
IMPOSSIBLE = [
    ("plain", {"norm": "group"}, "deepen", "norm=batch"),
    ("plain", {"activation": "silu"}, "deepen", "SiLU changes what it has made already"),
    ("plain", {"squeeze": 2}, "deepen", "squeeze-and-excite"),
    ("residual", {"activation": "gelu"}, "deepen", "GELU after the shortcut"),
    ("residual", {"norm": "layer"}, "widen", "8 channels in groups of 8 and then 12 channels in groups of 12"),
]


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return tiny.stripes(tmp_path_factory.mktemp("growth"))


def grown_up(block: str, change: dict[str, Any], dataset: DatasetVersion) -> tuple[Candidate, nn.Module, list[Tensor]]:
    """A candidate and its network after a while, in float64."""
    candidate = Candidate(space="convnet", architecture={**ARCHITECTURES[block], **change}, hyperparameters=HOW)
    return candidate, lived_in(build_network(CONVNET, candidate, dataset, 0).double(), dataset).double(), inputs_of(dataset)


def difference(grown: Grown, network: nn.Module, inputs: list[Tensor]) -> float:
    with torch.no_grad():
        return float((grown.network(*inputs) - network(*inputs)).abs().max())


@pytest.mark.parametrize(("block", "change", "width"), WIDER, ids=[f"{row[0]}-{'-'.join(map(str, row[1].values()))}" for row in WIDER])
def test_a_wider_network_answers_exactly_as_before(block: str, change: dict[str, Any], width: int, stripes: DatasetVersion) -> None:
    candidate, network, inputs = grown_up(block, change, stripes)
    grown = widen(candidate, network, CONVNET, stripes, inputs, width=width)
    assert difference(grown, network, inputs) < 1e-9
    assert num_parameters(grown.network) > 1.5 * num_parameters(network)
    assert grown.candidate.architecture == {**candidate.architecture, "width": width}


@pytest.mark.parametrize(("block", "change"), DEEPER, ids=[f"{block}-{change['norm']}" for block, change in DEEPER])
def test_a_deeper_network_answers_exactly_as_before(block: str, change: dict[str, Any], stripes: DatasetVersion) -> None:
    candidate, network, inputs = grown_up(block, change, stripes)
    grown = deepen(candidate, network, CONVNET, stripes, inputs, blocks=2, stage=1)
    assert difference(grown, network, inputs) < 1e-9
    assert num_parameters(grown.network) > num_parameters(network)
    assert grown.candidate.architecture["depths"] == [1, 3]


def test_what_has_grown_is_built_again_from_its_record(stripes: DatasetVersion) -> None:
    """The weights fit the candidate's own network, strictly."""
    candidate, network, inputs = grown_up("plain", {}, stripes)
    wide = widen(candidate, network, CONVNET, stripes, inputs, width=16)
    deep = deepen(wide.candidate, wide.network, CONVNET, stripes, inputs)
    again = build_network(CONVNET, deep.candidate, stripes, 3).double().eval()
    again.load_state_dict(deep.network.state_dict(), strict=True)
    with torch.no_grad():
        assert float((again(*inputs) - network(*inputs)).abs().max()) < 1e-9


@pytest.mark.parametrize(("block", "change", "how", "words"), IMPOSSIBLE, ids=[f"{row[0]}-{row[2]}-{row[3][:8]}" for row in IMPOSSIBLE])
def test_what_cannot_be_exact_is_refused(block: str, change: dict[str, Any], how: str, words: str, stripes: DatasetVersion) -> None:
    candidate, network, inputs = grown_up(block, change, stripes)
    grow, options = {"widen": (widen, {"width": 12}), "deepen": (deepen, {})}[how]
    with pytest.raises(UsageError, match=words):
        grow(candidate, network, CONVNET, stripes, inputs, **options)  # type: ignore[operator]


@pytest.mark.parametrize("block", sorted(ARCHITECTURES))
def test_wider_and_deeper_at_once(block: str, stripes: DatasetVersion) -> None:
    """Every parameter has its origin but for those of one new block a stage."""
    candidate, network, inputs = grown_up(block, {"depths": [2, 2], "growth": 1.5}, stripes)
    larger = {**candidate.architecture, "width": 12, "depths": [3, 3]}
    grown = grow(candidate, network, CONVNET, stripes, inputs, larger, 0)
    assert difference(grown, network, inputs) < 1e-9
    assert set(grown.origins.values()) == {name for name, _ in network.named_parameters()}
    new = {".".join(name.split(".")[:2]) for name, _ in grown.network.named_parameters() if name not in grown.origins}
    assert len(new) == 2


def test_a_table_network_widens_exactly(tmp_path: Path) -> None:
    dataset = tiny.table(tmp_path)
    candidate = Candidate(space="mlp", architecture=SMALL_MLP, hyperparameters=HOW)
    network = lived_in(build_network(MLP, candidate, dataset, 0).double(), dataset)
    grown = widen(candidate, network, MLP, dataset, inputs_of(dataset), width=48)
    assert difference(grown, network, inputs_of(dataset)) < 1e-9


def test_a_shortcut_that_is_normalised_behind_is_measured_and_refused(tmp_path: Path) -> None:
    """What no rule knows of is found by comparing the answers."""
    dataset = tiny.table(tmp_path)
    candidate = Candidate(space="mlp", architecture={**SMALL_MLP, "members": 1}, hyperparameters=HOW)
    network = lived_in(build_network(MLP, candidate, dataset, 0).double(), dataset)
    with pytest.raises(UsageError, match="depth 2 to 4 would change what the network computes by"):
        deepen(candidate, network, MLP, dataset, inputs_of(dataset), blocks=2)


def test_a_change_that_is_none_is_refused(stripes: DatasetVersion) -> None:
    candidate, network, inputs = grown_up("plain", {}, stripes)
    with pytest.raises(UsageError, match="the new width must be a whole number of at least 9, got 8"):
        widen(candidate, network, CONVNET, stripes, inputs, width=8)
    with pytest.raises(UsageError, match=r"the stage to deepen must be a whole number in 0\.\.1, got 2"):
        deepen(candidate, network, CONVNET, stripes, inputs, stage=2)
    with pytest.raises(UsageError, match="a network is made wider by one of width, channels"):
        widen(candidate.replace(architecture={"pieces": []}), network, CONVNET, stripes, inputs, width=9)
