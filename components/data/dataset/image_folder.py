"""Images in a folder per class, or per split and class, on disk or in a .zip archive.

    athanor run dataset=image_folder dataset.path=DIR            # DIR/cat/1.jpg  DIR/dog/2.jpg
    athanor run dataset=image_folder dataset.path=images.zip     # train/cat/1.jpg  test/cat/2.jpg

The class is the folder's name. Folders named train, test, validation (val, valid, dev) at the top are splits.
Archives are read in place; those with links or names that point outside are refused.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from components.artifacts import InputField
from components.data.archive import is_archive, is_noise
from components.data.images import GREY_MODES, decode, image_files, pixels, probe, read_image_rows
from components.data.reader import Encoded, Reading, plain_name, required_path, row_digest
from components.errors import DataError, UnknownNameError, UsageError
from components.processes import available_cores

if TYPE_CHECKING:
    import numpy as np

    from components.data.packed import DecodedImages, EncodedImages

SPLIT_FOLDERS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "validation": "validation", "val": "validation", "valid": "validation", "dev": "validation",
}  # fmt: skip
LARGEST_SIDE = 96  # images of one common size up to this are kept at it
DEFAULT_SIDE = 64  # others are brought to this: larger ones cost a search on CPU more than they give it
CORRUPT, KEPT = ("fatal", "skip"), ("auto", "pixels", "files")
# Pixels of more than this are kept as the encoded files, where those take a third at most. A constant and not a share of
# this machine's memory: a version is the same everywhere.
MOST_PIXEL_BYTES, WORTHWHILE = 2 * 2**30, 3
WORTH_A_THREAD = 128 * 128  # pixels; decoding fewer is mostly Python, which threads do one at a time
AT_ONCE = 32  # files whose bytes and pixels are in memory while they are decoded
NAMED = 3  # images that are left out and named in the note


class ImageFolder:
    """A tree of image files as an image data set."""

    modality = "image"
    places = ("path",)

    def __init__(
        self,
        path: str | None = None,
        name: str | None = None,
        size: int | Sequence[int] | None = None,
        channels: int | None = None,
        corrupt: str = "fatal",
        keep: str = "auto",
    ) -> None:
        self.path, self._name = path, name
        self.corrupt, self.keep = _one_of("corrupt", corrupt, CORRUPT), _one_of("keep", keep, KEPT)
        self.size = _checked_size(size)
        if channels not in (None, 1, 3):
            raise UsageError(f"dataset.channels must be 1 (grey) or 3 (RGB), got {channels!r}; null finds out")
        self.channels = channels

    @property
    def name(self) -> str:
        return plain_name(self._name, Path(self.path) if self.path else None)

    def sources(self) -> dict[str, Path]:
        root = self._root()
        if root.is_dir():
            names = ((file.relative_to(root), file) for file in sorted(root.rglob("*")) if file.is_file())
            found = {name.as_posix(): file for name, file in names if not is_noise(name.parts)}
            if not found:
                raise DataError(f"{root} holds no images; put them in one folder per class below it")
            return found
        if not is_archive(root):
            raise DataError(f"{root} is neither a folder nor a .zip archive; dataset=image_folder reads one folder per class")
        return {"archive": root}

    def read(self) -> Reading:
        import numpy as np

        root = self._root()
        survey = self._survey(root)
        channels, size, note = self._form([form for form in survey.forms if form is not None])
        images = self._kept_as((channels, *size), survey)
        threads = available_cores() if survey.mean_pixels > WORTH_A_THREAD else 1
        kept = _decode_all(images, image_files(root), root, self.corrupt, threads)
        names = [survey.names[row] for row in kept.rows]
        places = layout(root, survey.names)
        places = [places[row] for row in kept.rows]
        _refuse_untrained(root, names, places)
        labels = [label for _, label in places]
        classes = tuple(sorted(set(labels)))
        notes = tuple(text for text in (note, kept.note) if text)

        def encode(training: np.ndarray) -> Encoded:
            codes = {label: place for place, label in enumerate(classes)}
            return Encoded(
                inputs=(images.field(training),), arrays={"image": images},
                target=np.array([codes[label] for label in labels], dtype=np.int64), task="classification", classes=classes,
                target_name="class", source=self._source(size, channels), notes=notes,
            )  # fmt: skip

        return Reading(digests=kept.digests, given=[split for split, _ in places], encode=encode)

    def rows(self, path: Path, inputs: tuple[InputField, ...]) -> tuple[list[str], dict[str, np.ndarray]]:
        """New images: a file, a folder of them at any depth, or a zip archive."""
        return read_image_rows(path, inputs)

    @staticmethod
    def example(folder: Path) -> dict[str, Any]:
        """Three classes of 40 random 8×8 images, told apart by their brightness."""
        import numpy as np
        from PIL import Image as Pillow

        generator = np.random.default_rng(0)
        for place, label in enumerate(("dark", "dusk", "light")):
            (folder / label).mkdir()
            for row in range(40):
                pixels = generator.integers(80 * place, 80 * place + 90, (8, 8)).astype(np.uint8)
                Pillow.fromarray(pixels).save(folder / label / f"{row:03d}.png")
        return {"path": str(folder)}

    def _root(self) -> Path:
        return required_path(self.path, "a folder with one folder of images per class, or a .zip archive of one")

    def _survey(self, root: Path) -> _Survey:
        """What the headers of all image files say. Raises `DataError` for one that is no image, unless those are skipped."""
        found = _Survey()
        for name, content in image_files(root):
            found.names.append(name)
            found.num_bytes += len(content)
            with _corrupt(self.corrupt):
                found.forms.append(probe(content, _where(root, name)))
            if len(found.forms) < len(found.names):
                found.forms.append(None)
        if not any(found.forms):
            what = "images that can be decoded" if found.names else "images"
            raise DataError(f"{root} holds no {what}; put them in one folder per class below it")
        return found

    def _kept_as(self, shape: tuple[int, ...], survey: _Survey) -> DecodedImages | EncodedImages:
        """Where decoded rows go: pixels take less time to read, files less space where there are many."""
        from components.data.packed import DecodedImages, EncodedImages

        num_pixels = len(survey.names) * math.prod(shape)
        large = num_pixels > MOST_PIXEL_BYTES and survey.num_bytes * WORTHWHILE < num_pixels
        keep = self.keep if self.keep != "auto" else "files" if large else "pixels"
        return EncodedImages(shape) if keep == "files" else DecodedImages(shape, "uint8")

    def _form(self, forms: Sequence[tuple[str, tuple[int, int]]]) -> tuple[int, tuple[int, int], str]:
        """Channels and (height, width) for all images, and a note where they had to be brought to one size."""
        channels = self.channels or (1 if all(mode in GREY_MODES for mode, _ in forms) else 3)
        sizes = sorted({size for _, size in forms})
        if self.size:
            return channels, self.size, ""
        if len(sizes) == 1 and max(sizes[0]) <= LARGEST_SIDE:
            return channels, sizes[0], ""
        found = f"of {len(sizes)} sizes" if len(sizes) > 1 else f"of {sizes[0][0]}x{sizes[0][1]}"
        note = f"images {found} brought to {DEFAULT_SIDE}x{DEFAULT_SIDE} pixels (dataset.size overrides)"
        return channels, (DEFAULT_SIDE, DEFAULT_SIDE), note

    def _source(self, size: tuple[int, int], channels: int) -> dict[str, Any]:
        target = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"_target_": target, "name": self.name, "size": list(size), "channels": channels}


def layout(root: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """Split ("" without one) and class of each file name. Raises `DataError` for a file outside a class folder."""
    parts = [PurePosixPath(name).parts for name in names]
    while all(len(p) > 2 and p[0] == parts[0][0] for p in parts) and parts[0][0].lower() not in SPLIT_FOLDERS:
        parts = [p[1:] for p in parts]  # one folder around everything, as archives often have
    has_splits = all(p[0].lower() in SPLIT_FOLDERS for p in parts if len(p) > 1) and any(len(p) > 2 for p in parts)
    depth = 3 if has_splits else 2
    for name, p in zip(names, parts, strict=True):
        if len(p) < depth:
            rule = "split/class/file" if has_splits else "class/file"
            raise DataError(f"{name} in {root} lies outside a class folder; arrange images as {rule}, or move it away")
    return [(SPLIT_FOLDERS[p[0].lower()], p[1]) if has_splits else ("", p[0]) for p in parts]


@dataclass
class _Survey:
    """File names, the mode and (height, width) of each (None: no image), and the bytes of all."""

    names: list[str] = field(default_factory=list)
    forms: list[tuple[str, tuple[int, int]] | None] = field(default_factory=list)
    num_bytes: int = 0

    @property
    def mean_pixels(self) -> float:
        """Of the images that could be read."""
        return statistics.fmean(math.prod(form[1]) for form in self.forms if form is not None)


@dataclass
class _Kept:
    """The numbers of the files that could be decoded, a digest of each one's bytes, and what could not be."""

    rows: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def note(self) -> str:
        if not self.skipped:
            return ""
        listed = ", ".join(self.skipped[:NAMED]) + (", ..." if len(self.skipped) > NAMED else "")
        total = len(self.rows) + len(self.skipped)
        return f"{len(self.skipped)} of {total} images left out: they cannot be decoded ({listed})"


def _decode_all(
    images: DecodedImages | EncodedImages, files: Iterable[tuple[str, bytes]], root: Path, corrupt: str, threads: int
) -> _Kept:
    """Decodes image files, a few at a time, and adds them in order."""
    channels, height, width = images.row_shape

    def decoded(file: tuple[str, bytes]) -> np.ndarray | None:
        with _corrupt(corrupt):
            return pixels(decode(file[1], _where(root, file[0])), channels, (height, width))
        return None

    kept, waiting, row = _Kept(), iter(files), 0
    with ThreadPoolExecutor(threads) as pool:
        while block := list(itertools.islice(waiting, AT_ONCE)):
            arrays = list(pool.map(decoded, block) if threads > 1 else map(decoded, block))
            good = [(place, content, array) for place, ((_, content), array) in enumerate(zip(block, arrays)) if array is not None]
            kept.rows += [row + place for place, _, _ in good]
            kept.digests += [row_digest(content) for _, content, _ in good]
            kept.skipped += [name for (name, _), array in zip(block, arrays) if array is None]
            if good:
                images.add([content for _, content, _ in good], [array for _, _, array in good])
            row += len(block)
    return kept


@contextlib.contextmanager
def _corrupt(choice: str) -> Iterator[None]:
    """An image that cannot be decoded ends the reading, with a word on how to leave it out, or is passed over."""
    try:
        yield
    except DataError as error:
        if choice == "fatal":
            raise DataError(f"{error}, or leave such images out with dataset.corrupt=skip") from error


def _where(root: Path, name: str) -> str:
    return str(root / name) if root.is_dir() else f"{name} in {root}"


def _refuse_untrained(root: Path, names: Sequence[str], places: Sequence[tuple[str, str]]) -> None:
    """A class that only held-out folders have cannot be learned."""
    trained = {label for split, label in places if split in ("", "train")}
    for name, (_, label) in zip(names, places, strict=True):
        if label not in trained:
            raise DataError(f"{_where(root, name)} has class {label!r}, which no training folder has; add some or remove it")


def _checked_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= 4096 for side in sides):
        raise UsageError(f"dataset.size must be a side or [height, width] in pixels, got {size!r}; dataset.size=64 is usual")
    return sides[0], sides[1]


def _one_of(option: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise UnknownNameError(f"dataset.{option}", str(value), choices)
    return value
