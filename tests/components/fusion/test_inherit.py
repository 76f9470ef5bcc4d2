"""Stages of one trained architecture live on in another: taken exactly, adapted, then trained further, and served like any model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from components.artifacts import AugmentationPolicy, Candidate, DatasetVersion, InputField, StoredFile, TrainedModel
from components.augmentation.policy.none import Unchanged
from components.build import build
from components.compression.distill import distill
from components.compression.quantize import quantize
from components.errors import DataError, UsageError
from components.export.export import export
from components.fusion.inherit import inherit
from components.models.network import load_network, num_parameters
from components.models.parent import Parent
from components.models.stitched import places_of
from components.training.fit import fit
from components.training.stitching import RESTING, begin_stitched, size_of, start_of, stitches_of
from components.training.train import train_model
from components.workspace import Workspace
from tests.components.models import tiny
from tests.components.training.test_fit import CONVNET, HOW, MLP, OPTIMIZERS, SMALL_CONVNET, SMALL_MLP
from tests.datasets import write_version

POLICY = AugmentationPolicy(name="none", modality="image", config={"_target_": "components.augmentation.policy.none.Unchanged"})
PLAIN = {**SMALL_CONVNET, "block": "plain", "width": 12, "depths": [1, 1, 1]}
SEPARABLE = {**SMALL_CONVNET, "block": "separable", "expansion": 2, "pooling": "average", "depths": [1, 1, 1]}
CHILD = Candidate(space="convnet", architecture=SEPARABLE, hyperparameters={**HOW, "augmentation_strength": 0.0})
EPOCHS = 8


def config(epochs: int = EPOCHS, **more: Any) -> dict[str, Any]:
    training = {"epochs": epochs, "memory_format": "contiguous", "threads": 1}
    return {"space": CONVNET, "optimizer": OPTIMIZERS, "training": training, "metrics": {}} | more


def digits(folder: Path, classes: range, rows: int) -> DatasetVersion:
    """Some classes of scikit-learn's digits, `rows` of them to train on, 80 to validate and the rest to test."""
    images, targets = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(targets, classes)))
    parts = dict(zip(("train", "validation", "test"), np.split(chosen, [rows, rows + 80])))
    arrays = {f"{split}/image": images[index].reshape(-1, 1, 8, 8).astype(np.uint8) for split, index in parts.items()}
    arrays |= {f"{split}/target": (targets[index] - classes.start).astype(np.int64) for split, index in parts.items()}
    field = InputField(name="image", dtype="uint8", shape=(1, 8, 8), mean=(4.9,), std=(6.0,))
    return write_version(folder, arrays, (field,), tuple(map(str, classes)))


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    """100 images of the digits from 5 to 9: what children learn."""
    return digits(tmp_path_factory.mktemp("few"), range(5, 10), 100)


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Parent:
    """A VGG-like network that knows the digits from 0 to 4."""
    folder = tmp_path_factory.mktemp("parent")
    dataset = digits(folder, range(5), 700)
    candidate = CHILD.replace(architecture=PLAIN)
    model = train_model(dataset, POLICY, candidate, config(12), Workspace(out=folder / "model"), role="teacher")
    assert model.metrics["accuracy"] > 0.95
    return Parent.of(model, dataset)


@pytest.fixture(scope="session")
def stitched(few: DatasetVersion, parent: Parent, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return inherit(few, POLICY, CHILD, [parent], config(), Workspace(out=tmp_path_factory.mktemp("stitched")))


def shuffled(parent: Parent, folder: Path) -> Parent:
    """The same parent with the numbers of each weight in another order."""
    generator = torch.Generator().manual_seed(0)
    state = load_file(parent.model.weights.path)
    mixed = {
        name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape) if tensor.ndim > 1 else tensor
        for name, tensor in state.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(mixed, folder / "weights.safetensors")
    return parent.replace(model=parent.model.replace(weights=StoredFile.of(folder / "weights.safetensors")))


# ---- what is taken over, and what becomes of it ----


def test_the_record_names_parents_and_stages(stitched: TrainedModel, parent: Parent) -> None:
    assert stitched.role == "stitched"
    assert stitched.parents == (parent.model.identity,)
    assert stitched.adopted["inherit"] == "stages"
    assert "own" in stitched.adopted["stages"]
    assert f"of {parent.name}" in stitched.adopted["stages"]
    assert 0 < stitched.adopted["inherited"] < 1
    assert stitched.candidate.hyperparameters["epochs"] == EPOCHS
    assert TrainedModel.from_json(stitched.to_json()).identity == stitched.identity


def test_inherited_stages_are_the_parents_before_training_and_change_in_it(
    stitched: TrainedModel, few: DatasetVersion, parent: Parent
) -> None:
    """Every number of every inherited layer is the parent's at first; after fine-tuning they have moved."""
    theirs, trained = load_file(parent.model.weights.path), load_file(stitched.weights.path)
    for stitch in stitches_of(CHILD, [parent], config(), few):
        state = start_of(stitch, CHILD, few, 0).network.state_dict()
        pairs = dict(inherited_tensors(stitch.architecture))
        assert pairs
        assert all(torch.equal(state[f"features.{mine}"], theirs[f"features.{other}"]) for mine, other in expanded(pairs, state))
        if stitch.architecture == stitched.candidate.architecture:
            weights = [(trained[f"features.{mine}"], theirs[f"features.{other}"]) for mine, other in expanded(pairs, state)]
            assert all(not torch.equal(after, before) for after, before in weights if after.ndim > 1)


def inherited_tensors(architecture: dict[str, Any]) -> list[tuple[int, int]]:
    """Places in the stitched network's features with the parent's layers that they come from."""
    found = []
    for piece, places in places_of(architecture):
        if piece.get("base"):
            found += list(zip(places, range(piece["first"], piece["last"])))
    return found


def expanded(pairs: dict[int, int], state: dict[str, torch.Tensor]) -> list[tuple[str, str]]:
    """The names below `features.` of the tensors of these places, and of their counterparts."""
    names = [name.removeprefix("features.") for name in state if name.startswith("features.")]
    return [(name, f"{pairs[int(place)]}.{rest}") for name in names for place, _, rest in [name.partition(".")] if int(place) in pairs]


def test_inherited_stages_rest_at_first(few: DatasetVersion, parent: Parent, tmp_path: Path) -> None:
    """A training that ends while they rest leaves them bit for bit; what is new has learned meanwhile."""
    stitch = stitches_of(CHILD, [parent], config(), few)[0]
    start = start_of(stitch, CHILD, few, 0)
    assert set(start.joins.values()) == {RESTING}
    before = {name: tensor.clone() for name, tensor in start.network.state_dict().items()}
    fitted = fit(start.network, few, CHILD.hyperparameters, policy=Unchanged(), optimizers=OPTIMIZERS, seed=0, epochs=10, until=2,
                 objective="accuracy", joins=start.joins, training={"ema": 0.0})  # fmt: skip
    after = fitted.network.state_dict()
    held = tuple(f"{name}." for name in start.joins)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if name.startswith(held))
    assert not torch.equal(after["head.1.weight"], before["head.1.weight"])


def test_adapters_bring_the_features_that_the_stage_was_trained_on(few: DatasetVersion, parent: Parent) -> None:
    """What reaches an inherited stage is nearer to what it read in its own network than a mean would be."""
    own = load_network(parent.model, parent.dataset)
    stitch = next(s for s in stitches_of(CHILD, [parent], config(), few) if s.choices[0].base == 0 and s.choices[1].base == 1)
    network = start_of(stitch, CHILD, few, 0).network.eval()
    image = torch.from_numpy(np.load(few.files["train/image"].path))
    place = next(places[0] for piece, places in places_of(stitch.architecture) if "adapter" in piece)
    with torch.no_grad():
        given = network.features[: place + 1](network.scale(image))  # type: ignore[index,operator]
        wanted = own.features[: stitch.choices[1].stage.first](own.scale(image))  # type: ignore[index,operator]
    explained = 1 - float((given - wanted).square().mean() / (wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)).square().mean())
    assert explained > 0.2


def test_the_right_parent_helps_more_than_a_shuffled_one(few: DatasetVersion, parent: Parent, tmp_path: Path) -> None:
    """The same network at the same number of epochs: the loss on validation falls further with stages that know something."""

    def loss(donor: Parent | None, name: str) -> float:
        if donor is None:
            return train_model(few, POLICY, CHILD, config(), Workspace(out=tmp_path / name), role=name).metrics["log_loss"]
        two = next(s for s in stitches_of(CHILD, [donor], config(), few) if [choice.base for choice in s.choices] == [1, 1, 0])
        start = start_of(two, CHILD, few, 1)
        work = Workspace(out=tmp_path / name)
        return train_model(few, POLICY, CHILD, config(space=two.space), work, role=name, start=start).metrics["log_loss"]

    right, wrong, none = loss(parent, "right"), loss(shuffled(parent, tmp_path / "donor"), "wrong"), loss(None, "scratch")
    assert right < 0.6 * wrong
    assert right < 0.3 * none


# ---- a model like any other ----


def test_a_stitched_network_is_exported_with_parity_and_quantised(stitched: TrainedModel, few: DatasetVersion, tmp_path: Path) -> None:
    exporter = {"_target_": "components.export.exporter.onnx.OnnxExporter"}
    (exported,) = export(few, (stitched,), {"exporter": exporter}, Workspace(out=tmp_path / "onnx"))
    assert max(exported.parity.values()) < 1e-4
    assert exported.name == "stitched-fp32"
    static = {"_target_": "components.compression.quantization.static.StaticQuantization"}
    (twin,) = quantize(few, (exported,), {"quantization": static, "metrics": {"objective": None}}, Workspace(out=tmp_path / "int8"))
    assert twin.file.size < exported.file.size


def test_a_stitched_network_teaches_a_student_of_the_childs_space(stitched: TrainedModel, few: DatasetVersion, tmp_path: Path) -> None:
    """The student has all its stages, and its record says who taught it."""
    how = config(2, distillation={"_target_": "components.compression.distillation.logits.Logits"})
    student = distill(few, POLICY, stitched, how, Workspace(out=tmp_path))
    assert student.parents == (stitched.identity,)
    assert student.candidate.architecture["block"] == "separable"
    assert student.num_parameters < stitched.num_parameters


def test_a_stitched_network_lends_its_stages_again(stitched: TrainedModel, few: DatasetVersion) -> None:
    """It is a parent like any other."""
    first, *_ = stitches_of(CHILD, [Parent.of(stitched, few)], config(), few)
    network = start_of(first, CHILD, few, 0).network
    assert num_parameters(network) == size_of(first, CHILD, few)
    assert build(first.space).num_parameters(first.architecture, few.inputs, few.num_outputs) == num_parameters(network)


def test_the_same_seed_gives_the_same_bits_and_a_kill_changes_nothing(few: DatasetVersion, parent: Parent, tmp_path: Path) -> None:
    """The choice is kept, and the training goes on from its checkpoint."""

    class Killed(Exception):
        pass

    def stop(event: str, **fields: Any) -> None:
        if event == "epoch" and fields["epoch"] == 3:
            raise Killed

    two = sorted(size_of(stitch, CHILD, few) for stitch in stitches_of(CHILD, [parent], config(), few))[1]
    how = config(constraint={"num_parameters": two})
    with pytest.raises(Killed):
        inherit(few, POLICY, CHILD, [parent], how, Workspace(out=tmp_path / "a", scratch=tmp_path / "s", emit=stop))
    seen: list[str] = []
    tell = lambda event, **fields: seen.append(event)  # noqa: E731
    again = inherit(few, POLICY, CHILD, [parent], how, Workspace(out=tmp_path / "a", scratch=tmp_path / "s", emit=tell))
    whole = inherit(few, POLICY, CHILD, [parent], how, Workspace(out=tmp_path / "b"))
    assert "stitch" not in seen
    assert again.weights.sha256 == whole.weights.sha256
    assert again.identity == whole.identity


# ---- which stages ----


def test_two_parents_lend_to_one_child(few: DatasetVersion, parent: Parent, stitched: TrainedModel) -> None:
    """Every mixture with a stage of a parent's and one of its own is judged, each once."""
    found = stitches_of(CHILD, [parent, Parent.of(stitched, few)], config(), few)
    bases = [tuple(choice.base for choice in stitch.choices) for stitch in found]
    assert len(found) == 3**3 - 1 - 2**3
    assert len(found) == len({(str(stitch.choices), *(own.model.identity for own in stitch.parents)) for stitch in found})
    assert all(0 in row and any(row) for row in bases)
    assert any(len(stitch.parents) == 2 for stitch in found)


def test_a_limit_on_parameters_is_kept(few: DatasetVersion, parent: Parent, tmp_path: Path) -> None:
    sizes = sorted(size_of(stitch, CHILD, few) for stitch in stitches_of(CHILD, [parent], config(), few))
    limited = stitches_of(CHILD, [parent], config(constraint={"num_parameters": sizes[0]}), few)
    assert [size_of(stitch, CHILD, few) for stitch in limited] == [sizes[0]]
    with pytest.raises(UsageError, match=f"the smallest has {sizes[0]}"):
        stitches_of(CHILD, [parent], config(constraint={"num_parameters": sizes[0] - 1}), few)


def test_a_parent_of_other_images_lends_what_fits(parent: Parent, tmp_path: Path) -> None:
    """Images of twice the side in three channels: the stages work at another resolution."""
    large = tiny.stripes(tmp_path, side=16, channels=3)
    found = stitches_of(CHILD, [parent], config(), large)
    start = start_of(found[0], CHILD, large, 0)
    with torch.no_grad():
        assert start.network.eval()(torch.zeros(2, 3, 16, 16)).shape == (2, 2)


def test_a_cell_of_another_space_takes_stages_too(few: DatasetVersion, parent: Parent) -> None:
    """Spaces differ in how they halve the side, not in what a stage is."""
    cells = {"cell": "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|nor_conv_3x3~1|skip_connect~2|",
             "channels": 8, "cells": 1, "stacks": 3, "largest_side": 16}  # fmt: skip
    how = config(space={"_target_": "components.models.space.cell.CellSpace"})
    child = CHILD.replace(space="cell", architecture=cells)
    found = stitches_of(child, [parent], how, few)
    assert [[choice.base for choice in stitch.choices] for stitch in found].count([1, 1, 0]) == 1
    network = start_of(found[0], child, few, 0).network.eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 5)


# ---- what cannot be ----


def test_a_parent_of_another_modality_is_refused(few: DatasetVersion, tmp_path: Path) -> None:
    work = Workspace(out=tmp_path)
    table = tiny.table(tmp_path / "table")
    candidate = Candidate(space="mlp", architecture=SMALL_MLP, hyperparameters=HOW)
    noise = POLICY.replace(modality="table")
    model = train_model(table, noise, candidate, {**config(1), "space": MLP}, Workspace(out=tmp_path / "mlp"), role="teacher")
    with pytest.raises(UsageError, match=r"trained on table data \(table\), dataset 'made' is image"):
        begin_stitched(CHILD, [Parent.of(model, table)], config(), few, 0, work)
    with pytest.raises(UsageError, match="inherit=stages is for networks of one image"):
        begin_stitched(candidate, [Parent.of(model, table)], {**config(), "space": MLP}, table, 0, work)


def test_no_stage_that_fits_names_the_closest(few: DatasetVersion, parent: Parent, tmp_path: Path) -> None:
    """A child that begins by striding, where the parent does not, and strides again where the parent has ended."""
    child = CHILD.replace(architecture={**SEPARABLE, "largest_side": 4, "depths": [1]})
    with pytest.raises(UsageError, match=r"one from 1×8×8 to 12×8×8 \(stride 1\), where the child has one from 1×8×8 to 8×4×4"):
        begin_stitched(child, [parent], config(), few, 0, Workspace(out=tmp_path))


def test_weights_that_are_not_the_parents_are_refused(few: DatasetVersion, parent: Parent, tmp_path: Path) -> None:
    other = shuffled(parent, tmp_path)
    changed = parent.replace(model=parent.model.replace(weights=parent.model.weights.replace(path=other.model.weights.path)))
    with pytest.raises(DataError, match="are not those of parent"):
        begin_stitched(CHILD, [changed], config(), few, 0, Workspace(out=tmp_path))


def test_no_parent_at_all_is_told(few: DatasetVersion, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a parent to take stages from"):
        begin_stitched(CHILD, [], config(), few, 0, Workspace(out=tmp_path))
