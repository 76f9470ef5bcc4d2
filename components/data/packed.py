"""Images kept as the encoded bytes of their files, one after another in one file, and decoded whenever they are read.

    images = EncodedImages((3, 224, 224)); images.add(contents, pixels); images.write(splits, out, "image")
    packed = Packed([(bytes_path, ends_path)], shape=(3, 224, 224), where="split train")
    packed[:8]                     # uint8 [8, 3, 224, 224]

Photographs take a tenth of the space of their pixels. `decoding` reads them with processes of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts import SPLITS, InputField, StoredFile
from components.data.images import decode, described, image_field, pixels
from components.data.mapped import Mapped
from components.data.spool import Spool, TemporaryFile

BYTES, ENDS = "bytes", "ends"  # the two files of a packed field: uint8 of all images, and where each one ends


class DecodedImages(Spool):
    """Images on their way into a dataset version as pixels."""

    def add(self, contents: Sequence[bytes], decoded: Sequence[NDArray[np.uint8]]) -> None:
        """Adds images: the bytes of each one's file, which are not needed, and its pixels [C, H, W]."""
        self.append(np.stack(decoded))

    def field(self, training: NDArray[np.int64]) -> InputField:
        """The field `image`, its mean and std per channel over the training rows."""
        return image_field(self, training)


class EncodedImages:
    """Images on their way into a dataset version: their files' bytes, and what the statistics need of their pixels."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.row_shape = tuple(int(side) for side in shape)
        self._bytes = TemporaryFile()
        self._sizes: list[int] = []
        self._sums: list[NDArray[np.int64]] = []
        self._squares: list[NDArray[np.int64]] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, contents: Sequence[bytes], decoded: Sequence[NDArray[np.uint8]]) -> None:
        """Adds images: the bytes of each one's file, and its pixels [C, H, W] at the size they will be read at."""
        self._bytes.seek(0, 2)
        for content, pixels_CHW in zip(contents, decoded, strict=True):
            self._bytes.write(content)
            self._sizes.append(len(content))
            flat = pixels_CHW.reshape(len(pixels_CHW), -1).astype(np.int64)
            self._sums.append(flat.sum(axis=1))
            self._squares.append((flat**2).sum(axis=1))

    def field(self, training: NDArray[np.int64]) -> InputField:
        """The field `image`, its mean and std per channel over the training rows."""
        count = len(training) * self.row_shape[1] * self.row_shape[2]
        sums, squares = (np.stack(rows)[training].sum(axis=0).tolist() for rows in (self._sums, self._squares))
        # In whole numbers, which are exact: the difference of two large floats would not be.
        variances = [(square * count - total * total) / (count * count) for total, square in zip(sums, squares)]
        return described(self.row_shape, [total / count for total in sums], variances)

    def write(self, splits: NDArray[np.str_], out: Path, name: str) -> dict[str, StoredFile]:
        """Writes each split's images to `out/<split>/<name>.bytes.npy` and `<name>.ends.npy`; by `<split>/<name>.bytes` and so on."""
        sizes = np.array(self._sizes, dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        files: dict[str, StoredFile] = {}
        for split in SPLITS:
            rows = np.flatnonzero(splits == split)
            content, ends = (out / split / f"{name}.{part}.npy" for part in (BYTES, ENDS))
            np.save(ends, np.cumsum(sizes[rows]), allow_pickle=False)
            with content.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (int(sizes[rows].sum()),)})
                for row in rows:
                    self._bytes.seek(int(starts[row]))
                    file.write(self._bytes.read(int(sizes[row])))
            files |= {f"{split}/{name}.{BYTES}": StoredFile.of(content), f"{split}/{name}.{ENDS}": StoredFile.of(ends)}
        return files


class Packed:
    """Encoded images of one or several files as an array of uint8 [N, C, H, W] that is decoded row by row.

    `where` says whose rows they are, for the message of a damaged one.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files: Sequence[tuple[Path, Path]], shape: Sequence[int], where: str) -> None:
        self.files, self.where = tuple(files), where
        self._bytes = [Mapped([path]) for path, _ in files]
        self._ends = [np.load(path, allow_pickle=False) for _, path in files]
        self.starts = np.cumsum([0, *(len(ends) for ends in self._ends)])
        self.shape = (int(self.starts[-1]), *(int(side) for side in shape))
        self.row_bytes = int(np.prod(self.shape[1:]))
        for ends, held in zip(self._ends, self._bytes):
            if ends.ndim != 1 or (len(ends) and int(ends[-1]) != len(held)):
                raise ValueError(f"the images of {where} end at another byte than their index says")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def encoded(self, row: int) -> bytes:
        """The bytes of one image's file."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        ends, place = self._ends[part], row - int(self.starts[part])
        return self._bytes[part].span(int(ends[place - 1]) if place else 0, int(ends[place])).tobytes()

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decoded pixels of the rows of these numbers. Raises `DataError` that names a damaged one."""
        return self.fill(np.empty((len(rows), *self.shape[1:]), dtype=np.uint8), rows)

    def fill(self, found: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decodes the rows of these numbers into an array of their own."""
        channels, height, width = self.shape[1:]
        for place, row in enumerate(rows):
            found[place] = pixels(decode(self.encoded(int(row)), f"row {int(row)} of {self.where}"), channels, (height, width))
        return found

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Nothing to do: reading a few compressed bytes is little beside decoding them."""

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        rows = np.arange(len(self))[index]
        return self.take(np.atleast_1d(rows)) if np.ndim(rows) else self.take(np.array([rows]))[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("encoded images have to be decoded into an array of their own")
        return self[:].astype(dtype or self.dtype, copy=False)

