"""Data that is not held in memory: read in parts, images decoded by processes, and what becomes of damaged ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.artifacts import SPLITS, DatasetVersion
from components.data import mapped, spool
from components.data.arrays import load_inputs, load_target, stored
from components.data.dataset.image_folder import ImageFolder
from components.data.decoding import Decoders, ahead, enough
from components.data.mapped import Mapped
from components.data.packed import Packed
from components.data.version import read_rows
from components.errors import DataError, UnknownNameError
from components.home import home
from tests.conftest import ROOT
from tests.datasets import read_version

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 grey 8×8 images of three classes."""
    folder = tmp_path_factory.mktemp("pictures")
    ImageFolder.example(folder)
    return folder


def packed(record: DatasetVersion, *splits: str) -> Packed:
    found = stored(record, splits or ["train"], "image")
    assert isinstance(found, Packed)
    return found


# ---- what is written ------------------------------------------------------------------------------------------


def test_rows_are_written_as_numpy_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes as `numpy.save`, though rows come in blocks and lie on disk meanwhile."""
    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(spool, "BLOCK_BYTES", 256)
    whole = np.random.default_rng(0).normal(size=(200, 3, 2)).astype(np.float32)
    held = spool.Spool((3, 2), np.float32)
    for start in range(0, 200, 17):
        held.append(whole[start : start + 17])
    splits = np.array(SPLITS)[np.arange(200) % 3]
    for split in SPLITS:
        (tmp_path / split).mkdir()
        np.save(tmp_path / split / "expected.npy", whole[splits == split])
    for name, array in (("spool", held), ("array", whole)):
        spool.write_rows(array, splits, tmp_path, name)
        for split in SPLITS:
            assert (tmp_path / split / f"{name}.npy").read_bytes() == (tmp_path / split / "expected.npy").read_bytes()


def test_images_kept_as_files_are_the_same_rows(pictures: Path, tmp_path: Path) -> None:
    """Pixels, splits, targets, statistics and digest do not depend on how images are kept; any index reads them."""
    pixels = read_version(tmp_path / "pixels", "image_folder", path=str(pictures), size=[6, 10], channels=3, keep="pixels")
    files = read_version(tmp_path / "files", "image_folder", path=str(pictures), size=[6, 10], channels=3, keep="files")
    assert "train/image" in pixels.files
    assert {"train/image.bytes", "train/image.ends"} <= set(files.files)
    np.testing.assert_allclose(files.inputs[0].mean, pixels.inputs[0].mean, rtol=1e-12)
    np.testing.assert_allclose(files.inputs[0].std, pixels.inputs[0].std, rtol=1e-9)
    for split in SPLITS:
        expected, found = load_inputs(pixels, split)["image"], load_inputs(files, split)["image"]
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert np.array_equal(np.asarray(found), expected)
        picked = np.array([5, 0, 5])
        assert np.array_equal(found[picked], expected[picked])
        assert np.array_equal(found[2], expected[2])
        assert np.array_equal(found[1:4], expected[1:4])
        assert np.array_equal(load_target(files, split), load_target(pixels, split))


def test_a_corrupt_image_is_named_or_skipped(pictures: Path, tmp_path: Path) -> None:
    """By default the damaged file stops the version and is named; with `corrupt=skip` it is left out, named in the notes,
    and no other row moves."""
    sound = read_version(tmp_path / "sound", "image_folder", path=str(pictures))
    extra = tmp_path / "extra"
    for file in pictures.rglob("*.png"):
        copy = extra / file.relative_to(pictures)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    whole = (pictures / "dusk" / "031.png").read_bytes()
    (extra / "dusk" / "031x.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"dusk/031x\.png is a truncated or damaged image .* with dataset\.corrupt=skip$"):
        read_version(tmp_path / "fatal", "image_folder", path=str(extra))
    (extra / "light" / "text.png").write_text("no image at all")
    for keep in ("pixels", "files"):
        record = read_version(tmp_path / keep, "image_folder", path=str(extra), corrupt="skip", keep=keep)
        assert record.splits == sound.splits
        assert record.notes == ("2 of 122 images left out: they cannot be decoded (dusk/031x.png, light/text.png)",)
        for split in SPLITS:
            assert np.array_equal(np.asarray(load_inputs(record, split)["image"]), load_inputs(sound, split)["image"])
    with pytest.raises(UnknownNameError, match=r"unknown dataset\.corrupt 'skipp'; did you mean 'skip'"):
        read_version(tmp_path / "e", "image_folder", path=str(extra), corrupt="skipp")


def test_few_rows_leave_nothing_in_the_state_folder(pictures: Path, tmp_path: Path) -> None:
    """Reading new rows, as a prediction does, writes nowhere."""
    record = read_version(tmp_path / "out", "image_folder", path=str(pictures))
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i / 7},{'ny'[i % 2]}\n" for i in range(200)))
    table = read_version(tmp_path / "table", "csv", path=str(tmp_path / "t.csv"), target="y")
    assert not (home() / "tmp").exists()
    shutil.rmtree(home())
    read_rows(record.source, record.inputs, pictures)
    read_rows(table.source, table.inputs, tmp_path / "t.csv")
    assert not home().exists()


# ---- maps -----------------------------------------------------------------------------------------------------


def resident_kb(path: Path) -> int:
    """What of a mapped file is in this process's memory."""
    maps = Path("/proc/self/smaps").read_text()
    found = re.findall(rf"{re.escape(str(path))}\n.*?^Rss: +(\d+) kB", maps, re.MULTILINE | re.DOTALL)
    assert found
    return sum(map(int, found))


def test_mapped_rows_give_their_pages_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 MB read in random order and as a whole: the rows are right, and little of the file stays resident."""
    monkeypatch.setattr(mapped, "RESIDENT_BYTES", 2 * 2**20)
    whole = np.random.default_rng(0).integers(0, 256, (8192, 4096)).astype(np.uint8)
    np.save(tmp_path / "rows.npy", whole)
    rows = Mapped([tmp_path / "rows.npy"])
    order = np.random.default_rng(1).permutation(8192)
    for start in range(0, 8192, 64):
        part = order[start : start + 64]
        rows.expect(part)
        assert np.array_equal(rows.take(part), whole[part])
        if start % 1024 == 0:
            assert resident_kb(tmp_path / "rows.npy") < 16 * 1024
    assert np.array_equal(rows.take(np.arange(8192)), whole)
    assert resident_kb(tmp_path / "rows.npy") < 16 * 1024


def test_mapped_files_follow_one_another(tmp_path: Path) -> None:
    """Several files are one array; a row that is not there is an error."""
    parts = [np.arange(10 * n, 10 * n + 10 - n).reshape(-1, 1) for n in range(3)]
    for number, part in enumerate(parts):
        np.save(tmp_path / f"{number}.npy", part)
    rows = Mapped([tmp_path / f"{number}.npy" for number in range(3)])
    index = np.array([26, 0, 9, 10, 18, 19])
    assert len(rows) == 27
    assert np.array_equal(rows.take(index), np.concatenate(parts)[index])
    with pytest.raises(IndexError):
        Mapped([tmp_path / "0.npy"]).take(np.array([10]))


# ---- processes that decode ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    """The pictures as files."""
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATHANOR_HOME", str(folder / "home"))
        return read_version(folder / "out", "image_folder", path=str(pictures), keep="files")


def test_workers_decode_what_the_parent_would(files: DatasetVersion) -> None:
    """The same pixels in the same order from none, two and as many workers as are of use, batches of any size, over two splits."""
    images = packed(files, "train", "validation")
    generator = np.random.default_rng(0)
    batches = [generator.integers(0, len(images), count) for count in (7, 1, 7, 3, 7, 7, 2)]
    expected = [images.take(rows) for rows in batches]
    for workers in (0, 2, None):
        found = list(ahead(images, batches, 7, workers))
        assert [array.shape for array in found] == [array.shape for array in expected]
        assert all(np.array_equal(one, other) for one, other in zip(found, expected))


def test_a_worker_that_is_killed_changes_nothing(files: DatasetVersion) -> None:
    """One of two workers is killed, then the other: the rows go on in order, with a warning each."""
    images = packed(files)
    batches = [np.arange(start, start + 4) for start in range(0, 40, 4)]
    with Decoders(images, 2, 4) as decoders:

        def killing() -> Iterator[np.ndarray]:
            for number, array in enumerate(decoders.run(iter(batches))):
                yield array
                if number in (1, 4):
                    os.kill(decoders.pids[0], signal.SIGKILL)

        with pytest.warns(UserWarning, match="ended with -9; training goes on without it") as warned:
            found = list(killing())
        assert len(warned) == 2
        assert decoders.pids == []
    assert all(np.array_equal(array, images.take(rows)) for array, rows in zip(found, batches, strict=True))


def test_workers_end_with_the_iteration(files: DatasetVersion) -> None:
    """Whoever stops in the middle leaves no process behind."""
    images = packed(files)
    decoders = Decoders(images, 2, 4)
    with decoders:
        iteration = decoders.run(np.arange(start, start + 4) for start in range(0, 40, 4))
        next(iteration)
        pids = decoders.pids
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_die_with_their_parent(files: DatasetVersion, tmp_path: Path) -> None:
    """Nothing outlives a parent that was killed."""
    (tmp_path / "record.json").write_text(json.dumps(files.to_json()))
    code = f"""
import json, time, numpy as np
from components.artifacts import DatasetVersion
from components.data.arrays import stored
from components.data.decoding import Decoders
record = DatasetVersion.from_json(json.load(open({str(tmp_path / "record.json")!r})))
with Decoders(stored(record, ["train"], "image"), 2, 4) as decoders:
    next(decoders.run(iter([np.arange(4)])))
    print(*decoders.pids, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(is_running(pid) for pid in pids)


def is_running(pid: int) -> bool:
    """Whether a process exists that has not ended (nobody may be there to collect it)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_damaged_in_the_store_is_named(pictures: Path, tmp_path: Path, workers: int) -> None:
    """Training on it stops with the row and its split, whoever decodes."""
    record = read_version(tmp_path / "out", "image_folder", path=str(pictures), keep="files")
    ends = np.load(record.files["train/image.ends"].path)
    content = np.load(record.files["train/image.bytes"].path)
    content[ends[16] : ends[17]] = 0
    np.save(record.files["train/image.bytes"].path, content)
    with pytest.raises(DataError, match=f"row 17 of the train images of dataset {record.name} is not an image"):
        list(ahead(packed(record), [np.arange(8), np.arange(8, 20)], 12, workers))


def test_a_graph_is_fed_a_few_images_at_a_time(files: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation reads images kept as files batch by batch."""
    from components.export.runtime import batches, feeds

    sizes: list[int] = []
    take = Packed.take
    monkeypatch.setattr(Packed, "take", lambda images, rows: sizes.append(len(rows)) or take(images, rows))
    inputs = load_inputs(files, "train")
    found = np.concatenate([batch["image"] for batch in batches(feeds(files, inputs), 16)])
    assert max(sizes) == 16
    assert np.array_equal(found, np.asarray(inputs["image"]))


def test_workers_are_taken_where_they_are_of_use() -> None:
    """None for decoding that takes no time, as many as keep up, never more than cores."""
    assert enough(0.001, 1.0, cores=8) == 0
    assert enough(0.5, 1.0, cores=8) == 1
    assert enough(2.5, 1.0, cores=8) == 3
    assert enough(2.5, 0.0, cores=8) == 8
    assert enough(2.5, 1.0, cores=1) == 0


def test_large_sets_of_photographs_are_kept_as_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` keeps pixels of small sets, and files where pixels are many and files are small."""
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "p" / label).mkdir(parents=True)
        for row in range(30):
            smooth = np.kron(generator.integers(0, 255, (2, 2)), np.ones((32, 32))).astype(np.uint8)
            Image.fromarray(smooth).save(tmp_path / "p" / label / f"{row}.jpg")
    assert "train/image" in read_version(tmp_path / "small", "image_folder", path=str(tmp_path / "p")).files
    monkeypatch.setattr("components.data.dataset.image_folder.MOST_PIXEL_BYTES", 60 * 64 * 64 - 1)
    assert "train/image.bytes" in read_version(tmp_path / "large", "image_folder", path=str(tmp_path / "p")).files
