"""MNIST's own file form (idx), as Fashion-MNIST, KMNIST and EMNIST are published: images and labels in four files.

    athanor run dataset=idx dataset.path=DIR

The folder holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte,
each plain or .gz. The two t10k files are the test split. Form: http://yann.lecun.com/exdb/mnist, "FILE FORMATS".
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import InputField
from components.data.images import image_field, read_image_rows
from components.data.reader import Encoded, Reading, plain_name, read_bytes, required_path, row_digest
from components.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np

IMAGES_MAGIC = 0x00000803  # unsigned bytes, three axes
LABELS_MAGIC = 0x00000801  # unsigned bytes, one axis
FILES = {
    "train-images": ("train-images-idx3-ubyte", "train-images.idx3-ubyte"),
    "train-labels": ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"),
    "test-images": ("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"),
    "test-labels": ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"),
}


class Idx:
    """Four idx files as an image data set that brings its own test split."""

    modality = "image"
    places = ("path",)

    def __init__(self, path: str | None = None, name: str | None = None, classes: list[str] | None = None) -> None:
        self.path, self.classes = path, tuple(str(label) for label in classes or ())
        self._name = name

    @property
    def name(self) -> str:
        return plain_name(self._name, Path(self.path) if self.path else None)

    def sources(self) -> dict[str, Path]:
        folder = required_path(self.path, "the folder that holds the four idx files")
        if not folder.is_dir():
            raise DataError(f"dataset.path {str(folder)!r} is a file; dataset=idx reads the folder that holds the four idx files")
        return {role: _find(folder, names) for role, names in FILES.items()}

    def read(self) -> Reading:
        import numpy as np

        sources = self.sources()
        train, test = _part(sources, "train"), _part(sources, "test")
        if train[0].shape[1:] != test[0].shape[1:]:
            raise DataError(f"{sources['test-images']} has images of {test[0].shape[2:]} where the training file has {train[0].shape[2:]}")
        images_NCHW, labels = np.concatenate([train[0], test[0]]), np.concatenate([train[1], test[1]]).astype(np.int64)
        given = ["train"] * len(train[1]) + ["test"] * len(test[1])
        classes = self._classes(labels, len(train[1]), sources)

        def encode(training: np.ndarray) -> Encoded:
            source = {"_target_": f"{type(self).__module__}.{type(self).__qualname__}", "name": self.name, "classes": list(classes)}
            return Encoded(
                inputs=(image_field(images_NCHW, training),), arrays={"image": images_NCHW}, target=labels,
                task="classification", classes=classes, target_name="label", source=source,
            )  # fmt: skip

        return Reading(digests=[row_digest(image.tobytes()) for image in images_NCHW], given=given, encode=encode)

    def _classes(self, labels: np.ndarray, num_train: int, sources: dict[str, Path]) -> tuple[str, ...]:
        """One name per label 0..highest: those given, else the numbers themselves."""
        highest = int(labels[:num_train].max())
        beyond = (labels[num_train:] > highest).nonzero()[0]
        if beyond.size:
            label = int(labels[num_train + beyond[0]])
            raise DataError(f"{sources['test-labels']} row {beyond[0]} has label {label}, which no training row has (highest: {highest})")
        if self.classes and len(self.classes) <= highest:
            raise UsageError(f"dataset.classes names {len(self.classes)} classes, but the labels go up to {highest}; name {highest + 1}")
        return self.classes or tuple(str(label) for label in range(highest + 1))

    def rows(self, path: Path, inputs: tuple[InputField, ...]) -> tuple[list[str], dict[str, np.ndarray]]:
        """New images: an idx3 file, or image files of any common form."""
        if not (path.is_file() and "idx" in path.name):
            return read_image_rows(path, inputs)
        images_NCHW = _images(path)
        if images_NCHW.shape[1:] != inputs[0].shape:
            raise DataError(f"{path} has images of {images_NCHW.shape[2:]}, but the model was trained on {inputs[0].shape[1:]}")
        return [f"row {number}" for number in range(len(images_NCHW))], {"image": images_NCHW}

    @staticmethod
    def example(folder: Path) -> dict[str, Any]:
        """120 + 40 random 8×8 images whose brightness is their label."""
        import numpy as np

        generator = np.random.default_rng(0)
        for prefix, count in (("train", 120), ("t10k", 40)):
            labels = (np.arange(count) % 3).astype(np.uint8)
            images = generator.integers(0, 80, (count, 8, 8)).astype(np.uint8) + (labels * 80).astype(np.uint8)[:, None, None]
            (folder / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", IMAGES_MAGIC, count, 8, 8) + images.tobytes())
            (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", LABELS_MAGIC, count) + labels.tobytes())
        return {"path": str(folder)}


def _find(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    content = sorted(entry.name for entry in folder.iterdir())
    held = f"it holds {', '.join(content[:6])}{', ...' if len(content) > 6 else ''}" if content else "it is empty"
    raise DataError(f"{folder} has no file {names[0]} (or {names[0]}.gz); {held}")


def _part(sources: dict[str, Path], split: str) -> tuple[np.ndarray, np.ndarray]:
    images_NCHW, labels = _images(sources[f"{split}-images"]), _labels(sources[f"{split}-labels"])
    if len(images_NCHW) != len(labels):
        raise DataError(
            f"{sources[f'{split}-labels']} has {len(labels)} labels, but {sources[f'{split}-images'].name} has {len(images_NCHW)} images; "
            "fetch both again"
        )
    return images_NCHW, labels


def _images(path: Path) -> np.ndarray:
    return _array(path, IMAGES_MAGIC, "images")[:, None]


def _labels(path: Path) -> np.ndarray:
    return _array(path, LABELS_MAGIC, "labels")


def _array(path: Path, magic: int, kind: str) -> np.ndarray:
    """The array of an idx file of unsigned bytes. Raises `DataError` for a wrong magic number, no rows or missing bytes."""
    import numpy as np

    content = read_bytes(path)
    found = int.from_bytes(content[:4], "big") if len(content) >= 4 else None
    if found != magic:
        says = "the file is too short for one" if found is None else f"is 0x{found:08x}"
        raise DataError(f"{path} is no idx file of {kind}: its magic number must be 0x{magic:08x} and {says}; are files swapped?")
    num_axes = magic & 0xFF
    start = 4 + 4 * num_axes
    if len(content) < start:
        raise DataError(f"{path} ends within its header ({len(content)} bytes); fetch it again")
    shape = struct.unpack(f">{num_axes}I", content[4:start])
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        says = " x ".join(map(str, shape))
        raise DataError(f"{path} says it holds {says} {kind} in {expected:,} bytes, but has {len(content):,}; fetch it again")
    if 0 in shape:
        raise DataError(f"{path} holds no {kind}; fetch it again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
