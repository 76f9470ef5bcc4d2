"""Images of all the kinds that lie in folders."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data.arrays import load_inputs, load_target
from components.data.dataset.image_folder import ImageFolder, layout
from components.data.images import decode, image_field, pixels, probe
from components.data.version import read_rows
from tests.datasets import read_version

pytestmark = pytest.mark.usefixtures("home")


def encoded(image: Image.Image, form: str = "png", **options: object) -> bytes:
    held = io.BytesIO()
    image.save(held, form, **options)
    return held.getvalue()


def test_statistics_are_exact() -> None:
    """Mean and std per channel, as numpy gives them over the training rows."""
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 5)).astype(np.uint8)
    training = np.arange(0, 50, 2)
    field = image_field(images, training)
    assert field.shape == (3, 4, 5)
    np.testing.assert_allclose(field.mean, images[training].mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(field.std, images[training].std(axis=(0, 2, 3)), rtol=1e-12)


def test_constant_channel_has_std_one() -> None:
    """A network divides by std: it is never zero."""
    assert image_field(np.full((5, 1, 2, 2), 7, np.uint8), np.arange(5)).std == (1.0,)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_bytes(mode: str) -> None:
    """Grey, palette, transparent, print and 16-bit images all become uint8 [C, H, W]."""
    image = Image.fromarray(np.arange(96, dtype=np.uint16).reshape(8, 12) * 600) if mode == "I;16" else Image.new(mode, (12, 8))
    content = encoded(image, "tiff" if mode in ("CMYK", "I;16") else "png")
    for channels in (1, 3):
        array = pixels(decode(content, "it"), channels, (8, 12))
        assert array.shape == (channels, 8, 12)
        assert array.dtype == np.uint8


def test_16_bit_images_keep_their_range() -> None:
    """65535 is white."""
    content = encoded(Image.fromarray(np.array([[0, 65535], [32896, 257]], dtype=np.uint16)))
    assert pixels(decode(content, "it"), 1, (2, 2))[0].tolist() == [[0, 255], [128, 1]]


def test_orientation_is_followed() -> None:
    """A photograph taken on its side stands upright, and its header says so beforehand."""
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(image, "png", exif=exif)
    assert probe(content, "it") == ("L", (6, 4))
    assert pixels(decode(content, "it"), 1, (6, 4)).shape == (1, 6, 4)
    assert pixels(decode(content, "it"), 1, (6, 4))[0, 0, -1] == 0


@pytest.mark.parametrize(
    ("names", "places"),
    [(["a/1.png", "b/2.png"], [("", "a"), ("", "b")]),
     (["train/a/1.png", "val/a/2.png", "test/b/3.png"], [("train", "a"), ("validation", "a"), ("test", "b")]),
     (["top/a/1.png", "top/b/2.png"], [("", "a"), ("", "b")]),
     (["top/train/a/1.png", "top/test/a/2.png"], [("train", "a"), ("test", "a")]),
     (["a/x/1.png", "b/2.png"], [("", "a"), ("", "b")]),
     (["train/1.png", "test/2.png"], [("", "train"), ("", "test")])],
)  # fmt: skip
def test_layouts(names: list[str], places: list[tuple[str, str]]) -> None:
    """class/file and split/class/file, with or without a folder around everything."""
    assert layout(Path("root"), names) == places


def test_images_of_many_sizes_are_brought_to_one(tmp_path: Path) -> None:
    """64×64 with a note, or the size that is asked for."""
    for label, value in (("a", 10), ("b", 200)):
        (tmp_path / "p" / label).mkdir(parents=True)
        for row in range(30):
            generator = np.random.default_rng(row + value)
            noise = generator.integers(0, 50, (10 + row, 12, 3)).astype(np.uint8) + np.uint8(value)
            Image.fromarray(noise).save(tmp_path / "p" / label / f"{row}.png")
    record = read_version(tmp_path / "a", "image_folder", path=str(tmp_path / "p"))
    assert record.inputs[0].shape == (3, 64, 64)
    assert record.notes == ("images of 30 sizes brought to 64x64 pixels (dataset.size overrides)",)
    record = read_version(tmp_path / "b", "image_folder", path=str(tmp_path / "p"), size=[8, 10], channels=1)
    assert record.inputs[0].shape == (1, 8, 10)
    assert record.notes == ()
    image, target = load_inputs(record, "train")["image"], load_target(record, "train")
    assert image[target == 0].max() < 100 < image[target == 1].min()


def test_folder_and_archive_are_the_same_rows(tmp_path: Path) -> None:
    """The same tree zipped gives the same arrays."""
    (tmp_path / "p").mkdir()
    ImageFolder.example(tmp_path / "p")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for file in (tmp_path / "p").rglob("*.png"):
            archive.write(file, Path("around") / file.relative_to(tmp_path / "p"))
        archive.writestr("__MACOSX/._x", b"fork")
    folder = read_version(tmp_path / "a", "image_folder", path=str(tmp_path / "p"))
    zipped = read_version(tmp_path / "b", "image_folder", path=str(tmp_path / "p.zip"))
    assert {n: f.sha256 for n, f in folder.files.items()} == {n: f.sha256 for n, f in zipped.files.items()}
    assert folder.classes == ("dark", "dusk", "light")


def test_row_split_does_not_depend_on_size(tmp_path: Path) -> None:
    """A row's split follows from its file's bytes, not from the size it is brought to."""
    (tmp_path / "p").mkdir()
    ImageFolder.example(tmp_path / "p")
    small = read_version(tmp_path / "a", "image_folder", path=str(tmp_path / "p"), size=4)
    large = read_version(tmp_path / "b", "image_folder", path=str(tmp_path / "p"), size=16)
    assert small.splits == large.splits
    assert small.files["test/target"].sha256 == large.files["test/target"].sha256
    assert small.digest != large.digest


def test_new_images_fit_the_field(tmp_path: Path) -> None:
    """A colour photograph for a model of small grey images is brought to its size and channels; names say which is which."""
    (tmp_path / "p").mkdir()
    ImageFolder.example(tmp_path / "p")
    record = read_version(tmp_path / "out", "image_folder", path=str(tmp_path / "p"))
    (tmp_path / "new" / "deep").mkdir(parents=True)
    Image.new("RGB", (100, 60), (250, 250, 250)).save(tmp_path / "new" / "deep" / "b.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "new" / "a.png")
    names, arrays = read_rows(record.source, record.inputs, tmp_path / "new")
    assert names == ["a.png", "deep/b.jpg"]
    assert arrays["image"].shape == (2, 1, 8, 8)
    assert arrays["image"][0].max() == 0
    assert arrays["image"][1].min() > 240
