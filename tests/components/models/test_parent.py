"""A parent travels as two files that are never opened by pickle, and its weights fit where the data are others."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.artifacts import Candidate, DatasetVersion, InputField, StoredFile, digest_of
from components.build import build
from components.errors import DataError, UsageError
from components.models.adoption import Adoption, adopt
from components.models.network import build_network, load_network
from components.models.parent import RECORD, WEIGHTS, Parent, adopting, may_share_rows, pack, require_kin, shapes, unpack
from components.training.batches import load_rows
from tests.components.models import tiny
from tests.components.training.parents import parent_of
from tests.components.training.test_fit import HOW

ROWS = {"train": 96, "validation": 40, "test": 40}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Parent, DatasetVersion]:
    folder = tmp_path_factory.mktemp("stripes")
    dataset = tiny.stripes(folder / "data", rows=ROWS)
    return parent_of(dataset, folder / "parent", pooling="average"), dataset


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Parent, DatasetVersion]:
    folder = tmp_path_factory.mktemp("table")
    dataset = tiny.table(folder / "data", rows=ROWS)
    numbers = {"numbers": "periodic", "frequencies": 4, "frequency_scale": 0.3, "number_width": 3}
    return parent_of(dataset, folder / "parent", **numbers), dataset


@pytest.fixture
def packed(stripes: tuple[Parent, DatasetVersion], tmp_path: Path) -> Path:
    return pack(stripes[0].model, stripes[1], tmp_path / "packed")


def child_of(parent: Parent, dataset: DatasetVersion) -> tuple[torch.nn.Module, Adoption]:
    space, architecture = adopting({}, parent)["space"], parent.model.candidate.architecture
    network = build_network(space, Candidate(space="it", architecture=architecture, hyperparameters=HOW), dataset, seed=9)
    return network, adopt(network, parent, space, architecture, dataset)


# ---- as files ----


def test_a_parent_comes_back_as_it_was_packed(packed: Path, stripes: tuple[Parent, DatasetVersion], tmp_path: Path) -> None:
    """By its folder or its weights' file, and from where it was moved to."""
    moved = Path(shutil.move(packed, tmp_path / "elsewhere"))
    for place in (moved, moved / WEIGHTS):
        parent = unpack(place)
        assert parent.identity == stripes[0].identity
        assert parent.model.identity == stripes[0].model.identity
        assert parent.model.weights.path == moved / WEIGHTS
    image = load_rows(stripes[1], "test").fields["image"]
    with torch.no_grad():
        assert torch.equal(load_network(parent.model, parent.dataset)(image), load_network(stripes[0].model, stripes[1])(image))


class Mischief:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.mark)!r}, 'w')",)


@pytest.mark.parametrize("name", [WEIGHTS, "model.pt", "model.pkl"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_is_refused_unopened(packed: Path, tmp_path: Path, name: str, wrapped: bool) -> None:
    """By its first bytes, whatever it is called, and also in the archive that torch.save makes of one."""
    mark, file = tmp_path / "mark", packed / name
    if wrapped:
        torch.save({"weights": Mischief(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Mischief(mark)))
    with pytest.raises(DataError, match=r"is a pickle, which can run code .* so it is not; give safetensors") as error:
        unpack(file)
    assert "\n" not in str(error.value)
    assert not mark.exists()
    if not wrapped:
        pickle.loads(file.read_bytes())
        assert mark.exists(), "the pickle would have run code"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_are_told(packed: Path, protocol: int) -> None:
    """Protocols 0 and 1 have no mark of their own: they begin with what they make."""
    for content in ({"weights": 1}, {}, [1.5], OrderedDict(weights=1), Mischief(Path("mark")), np.zeros(3)):
        (packed / WEIGHTS).write_bytes(pickle.dumps(content, protocol=protocol))
        with pytest.raises(DataError, match="is a pickle, which can run code"):
            unpack(packed)


@pytest.mark.parametrize("code", [b"cos\nsystem\n(S'true'\ntR.", b"(S'true'\nios\nsystem\n.", b"(cos\nsystem\n(S'true'\ntR."])
def test_a_pickle_written_by_hand_is_told(packed: Path, code: bytes) -> None:
    (packed / WEIGHTS).write_bytes(code)
    with pytest.raises(DataError, match="is a pickle, which can run code"):
        unpack(packed)


def test_weights_are_known_whatever_the_length_of_their_header(tmp_path: Path) -> None:
    """It is the file's first byte: of one file in 32 that is the one that most pickles begin with."""
    first = set()
    for letters in range(1, 80):
        save_file({"w" * letters: torch.zeros(2, 3)}, tmp_path / WEIGHTS)
        first.add((tmp_path / WEIGHTS).read_bytes()[0])
        assert shapes(tmp_path / WEIGHTS) == {"w" * letters: [2, 3]}
    assert 0x80 in first


def test_what_is_no_safetensors_file_is_refused(packed: Path) -> None:
    texts = b"[1, 2]", b"(a, b)", b"cat\ndog\npig\n", b"import\ntorch\n", b"income,left\n1,2\n", b'{"w": 1}', b"\x93NUMPY"
    for content in (*texts, b"", b"GIF89a and so on", (10**9).to_bytes(8, "little") + b"{}"):
        (packed / WEIGHTS).write_bytes(content)
        with pytest.raises(DataError, match="is no safetensors file; give the weights that Athanor wrote"):
            unpack(packed)


def test_changed_weights_are_refused_by_their_digest(packed: Path) -> None:
    """A well-formed file with one other number in it."""
    state = load_file(packed / WEIGHTS)
    name = next(iter(state))
    state[name] = state[name] + 1
    save_file(state, packed / WEIGHTS)
    with pytest.raises(DataError, match=r"are not those of parent .*sha256 is .*, the record says"):
        unpack(packed)


def test_a_changed_record_is_refused(packed: Path) -> None:
    note = json.loads((packed / RECORD).read_text())
    note["parent"]["model"]["candidate"]["architecture"]["width"] = 16
    (packed / RECORD).write_text(json.dumps(note))
    with pytest.raises(DataError, match=r"model\.json was changed since it was written"):
        unpack(packed)


def forged(packed: Path, **architecture: object) -> Parent:
    """The parent with another architecture in its record, and a digest that fits."""
    note = json.loads((packed / RECORD).read_text())
    note["parent"]["model"]["candidate"]["architecture"].update(architecture)
    (packed / RECORD).write_text(json.dumps({"parent": note["parent"], "digest": digest_of(note["parent"])}))
    return unpack(packed)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ({"kernel": 5}, r"is \[8, 8, 3, 3\] in the file and \[8, 8, 5, 5\] in the network of its record"),
        ({"depths": [1, 1, 1]}, r"is none in the file and \[32, 16, 3, 3\] in the network of its record"),
        ({"depths": [1]}, r"is \[16, 8, 3, 3\] in the file and none in the network of its record"),
    ],
)
def test_a_forged_record_is_told_by_a_tensor(packed: Path, architecture: dict[str, object], words: str) -> None:
    """In one line that names the file, where its weights are loaded."""
    parent = forged(packed, **architecture)
    with pytest.raises(DataError, match=rf"^weights {packed / WEIGHTS} do not fit the \w+'s network: [\w.]+ {words}; they are") as error:
        load_network(parent.model, parent.dataset)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 65


def test_a_damaged_header_is_told(tmp_path: Path) -> None:
    """It begins as safetensors do."""
    for header in (b"{broken ", b'{"w": 1}', b'{"w":{}}'):
        (tmp_path / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(DataError, match=f"{WEIGHTS} has a damaged header "):
            shapes(tmp_path / WEIGHTS)


def test_a_record_of_another_version_is_told(packed: Path) -> None:
    """Well formed, with a field that this version does not know."""
    note = json.loads((packed / RECORD).read_text())
    note["parent"]["model"]["mood"] = "sunny"
    (packed / RECORD).write_text(json.dumps({"parent": note["parent"], "digest": digest_of(note["parent"])}))
    with pytest.raises(DataError, match=r"was written by another version of Athanor \(TrainedModel has no field 'mood'\)"):
        unpack(packed)


def test_weights_without_their_record(packed: Path, tmp_path: Path) -> None:
    (packed / RECORD).unlink()
    with pytest.raises(DataError, match=r"has no model\.json beside it"):
        unpack(packed)
    with pytest.raises(DataError, match="there is no file"):
        unpack(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no weights\.safetensors"):
        unpack(tmp_path)


# ---- other data ----


def test_another_modality_names_both(stripes: tuple[Parent, DatasetVersion], table: tuple[Parent, DatasetVersion]) -> None:
    with pytest.raises(UsageError, match=r"parent stripes was trained on image data .*dataset 'table' is table"):
        require_kin(stripes[0], table[1])
    with pytest.raises(UsageError, match="dataset 'stripes' is image"):
        require_kin(table[0], stripes[1])


def test_other_columns_and_other_axes_name_both(stripes: tuple[Parent, DatasetVersion], table: tuple[Parent, DatasetVersion]) -> None:
    strange = tuple(
        field.replace(columns=tuple(column.replace(name=f"z{column.name}") for column in field.columns)) for field in table[1].inputs
    )
    with pytest.raises(UsageError, match=r"knows the columns c0, .* has zc0, .*: none in common"):
        require_kin(table[0], table[1].replace(inputs=strange))
    flat = stripes[1].replace(inputs=(InputField(name="image", dtype="uint8", shape=(64,)),))
    with pytest.raises(UsageError, match=r"takes image \[1, 8, 8\], dataset 'stripes' has image \[64\]"):
        require_kin(stripes[0], flat)


def test_images_too_small_for_the_network_name_both(stripes: tuple[Parent, DatasetVersion], tmp_path: Path) -> None:
    parent = parent_of(stripes[1], tmp_path / "deep", depths=[1, 1, 1], pooling="average")
    small = stripes[1].replace(inputs=(stripes[1].inputs[0].replace(shape=(1, 2, 2)),))
    with pytest.raises(UsageError, match=r"inputs of \[1, 8, 8\], which inputs of \[1, 2, 2\] .* do not pass"):
        child_of(parent, small)


def test_the_same_classes_keep_the_head_and_others_get_a_new_one(stripes: tuple[Parent, DatasetVersion]) -> None:
    parent, dataset = stripes
    image = load_rows(dataset, "test").fields["image"]
    network, adoption = child_of(parent, dataset)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), load_network(parent.model, dataset)(image))
    assert (adoption.fresh, adoption.share) == (frozenset(), 1.0)
    assert adoption.head == {"head.1.weight", "head.1.bias"}
    for classes in (("across", "down", "round"), ("down", "across")):
        network, adoption = child_of(parent, dataset.replace(classes=classes))
        assert adoption.fresh == adoption.head
        assert 0.9 < adoption.share < 1


def test_scaling_is_the_parents_for_the_same_unit_and_the_childs_for_another(stripes: tuple[Parent, DatasetVersion]) -> None:
    """Somewhat darker images are fed as the parent's were; those in 0..16 by their own mean and deviation."""
    parent, dataset = stripes
    mean, std = dataset.inputs[0].mean[0], dataset.inputs[0].std[0]
    for given, expected in (((0.8 * mean, 1.2 * std), (mean, std)), ((5.0, 4.0), (5.0, 4.0))):
        field = dataset.inputs[0].replace(mean=given[:1], std=given[1:])
        network, _ = child_of(parent, dataset.replace(inputs=(field,)))
        scale = network.get_submodule("scale")
        assert float(scale.shift) == pytest.approx(expected[0])  # type: ignore[arg-type]
        assert float(scale.scale) == pytest.approx(1 / expected[1])  # type: ignore[arg-type]


def test_a_grey_image_in_three_channels_is_seen_as_in_one(stripes: tuple[Parent, DatasetVersion]) -> None:
    """And three channels as one where the child has one."""
    parent, dataset = stripes
    field = dataset.inputs[0]
    colour = dataset.replace(inputs=(field.replace(shape=(3, 8, 8), mean=field.mean * 3, std=field.std * 3),))
    image = load_rows(dataset, "test").fields["image"]
    network, adoption = child_of(parent, colour)
    expected = load_network(parent.model, dataset)(image)
    assert torch.allclose(network.eval()(image.expand(-1, 3, -1, -1)), expected, atol=1e-4)
    assert adoption.share == 1.0


def test_larger_images_get_more_strided_layers_and_the_parents_stages(stripes: tuple[Parent, DatasetVersion], tmp_path: Path) -> None:
    """Two strided layers instead of one plain one: all but the second comes from the parent, aligned at the end."""
    parent, dataset = stripes
    large = dataset.replace(inputs=(dataset.inputs[0].replace(shape=(1, 40, 40)),))
    network, adoption = child_of(parent, large)
    state, theirs = network.state_dict(), load_file(parent.model.weights.path)
    assert {name.split(".")[1] for name in adoption.fresh} == {"1"}
    assert torch.equal(state["features.0.0.weight"], theirs["features.0.0.weight"])
    assert torch.equal(state["features.4.body.3.weight"], theirs["features.3.body.3.weight"])
    assert network.eval()(torch.zeros(2, 1, 40, 40)).shape == (2, 2)
    back, adoption = child_of(_as_parent(network, parent, large, tmp_path), dataset)
    assert torch.equal(back.state_dict()["features.3.body.3.weight"], theirs["features.3.body.3.weight"])
    assert adoption.share == 1.0


def _as_parent(network: torch.nn.Module, parent: Parent, dataset: DatasetVersion, folder: Path) -> Parent:
    save_file(network.state_dict(), folder / WEIGHTS)
    return Parent.of(parent.model.replace(weights=StoredFile.of(folder / WEIGHTS)), dataset)


def test_a_cell_network_is_adopted_as_well(stripes: tuple[Parent, DatasetVersion], tmp_path: Path) -> None:
    """Its head lies in a row with other layers."""
    parent, dataset = stripes
    space = {"_target_": "components.models.space.cell.CellSpace"}
    architecture = {"cell": "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|", "channels": 8,
                    "cells": 1, "stacks": 2, "largest_side": 16}  # fmt: skip
    candidate = Candidate(space="cell", architecture=architecture, hyperparameters=HOW)
    network = build_network(space, candidate, dataset, seed=0)
    model = parent.model.replace(space=space, candidate=candidate)
    grown = _as_parent(network, Parent.of(model, dataset), dataset, tmp_path)
    _, adoption = child_of(grown, dataset.replace(classes=("a", "b", "c")))
    assert adoption.head == adoption.fresh == {"last.5.weight", "last.5.bias"}


# ---- tables ----


def _shuffled(dataset: DatasetVersion, folder: Path) -> DatasetVersion:
    """The same rows with fields, columns and categories in another order."""
    folder.mkdir()
    files, inputs = dict(dataset.files), []
    for field in reversed(dataset.inputs):
        order = list(range(field.shape[0]))[::-1]
        columns = tuple(field.columns[place] for place in order)
        if field.dtype == "int64":
            columns = tuple(column.replace(vocabulary=column.vocabulary[::-1]) for column in columns)
        inputs.append(field.replace(columns=columns))
        for split in dataset.splits:
            array = np.load(dataset.files[f"{split}/{field.name}"].path)[:, order]
            if field.dtype == "int64":
                sizes = np.array([len(column.vocabulary) for column in columns])
                array = np.where(array == 0, 0, sizes + 1 - array)
            np.save(folder / f"{split}-{field.name}.npy", np.ascontiguousarray(array))
            files[f"{split}/{field.name}"] = StoredFile.of(folder / f"{split}-{field.name}.npy")
    return dataset.replace(inputs=tuple(inputs), files=files)


@pytest.mark.parametrize("categories", ["learned", "one_hot"])
@pytest.mark.parametrize("numbers", ["periodic", "piecewise", "none"])
def test_columns_and_categories_are_matched_by_name(
    table: tuple[Parent, DatasetVersion], tmp_path: Path, categories: str, numbers: str
) -> None:
    """The same table in another order: the child answers every row as the parent does."""
    parent, dataset = table
    architecture = {**parent.model.candidate.architecture, "numbers": numbers, "categories": categories}
    candidate = parent.model.candidate.replace(architecture=architecture)
    network = build(parent.model.space).build(architecture, dataset.inputs, dataset.num_outputs)
    grown = _as_parent(network, Parent.of(parent.model.replace(candidate=candidate), dataset), dataset, tmp_path)
    other = _shuffled(dataset, tmp_path / "other")
    child, adoption = child_of(grown, other)
    rows, others = load_rows(dataset, "test").fields, load_rows(other, "test").fields
    with torch.no_grad():
        expected = load_network(grown.model, dataset)(*(rows[field.name] for field in dataset.inputs))
        found = child.eval()(*(others[field.name] for field in other.inputs))
    assert torch.allclose(found, expected, atol=1e-5)
    assert (adoption.fresh, adoption.share) == (frozenset(), 1.0)


def test_new_columns_begin_as_drawn_and_lost_ones_are_left_out(table: tuple[Parent, DatasetVersion]) -> None:
    parent, dataset = table
    numbers, categories = dataset.inputs
    changed = numbers.replace(columns=(*numbers.columns[1:], dataclasses.replace(numbers.columns[0], name="new")))
    network, adoption = child_of(parent, dataset.replace(inputs=(changed, categories)))
    ours, theirs = network.state_dict(), load_file(parent.model.weights.path)
    assert torch.equal(ours["encoders.0.weight"][:2], theirs["encoders.0.weight"][1:])
    assert not torch.equal(ours["encoders.0.weight"][2], theirs["encoders.0.weight"][0])
    assert torch.equal(ours["encoders.1.table.weight"], theirs["encoders.1.table.weight"])
    assert {"encoders.0.weight", "hidden.0.linear.linear.weight"} <= adoption.fresh, "what is partly new is trained"
    assert "hidden.1.linear.linear.weight" not in adoption.fresh


def test_who_may_share_rows(stripes: tuple[Parent, DatasetVersion], table: tuple[Parent, DatasetVersion]) -> None:
    """A fold would hold out rows that a parent of the same classes may have learned."""
    parent, dataset = stripes
    assert may_share_rows(parent, dataset)
    assert not may_share_rows(parent, dataset.replace(classes=("left", "right")))
    assert not may_share_rows(parent, table[1].replace(task="regression", classes=()))
