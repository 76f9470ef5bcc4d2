"""Images as arrays: decoding files, the input field of an image data set, and new images for prediction.

Axes: N rows, C channels, H height, W width. Pixels are uint8, 0..255.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts import InputField
from components.data.archive import is_archive, is_noise, members
from components.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from components.data.spool import Blocks

MAX_PIXELS = 64_000_000  # an image that unpacks to more than this is refused before it is decoded
MAX_FILE_BYTES = 256 * 2**20
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 lie on their side
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "F")


def image_field(images_NCHW: Blocks, training: np.ndarray) -> InputField:
    """The field `image`: its shape, and mean and std per channel over the training rows, in units of 0..255."""
    import numpy as np

    from components.data.spool import blocks

    levels = np.arange(256, dtype=np.float64)
    counts_CL = np.zeros((images_NCHW.shape[1], 256), dtype=np.int64)
    is_training = np.zeros(images_NCHW.shape[0], dtype=bool)
    is_training[training] = True
    for part, images in blocks(images_NCHW):
        chosen = images[is_training[part]]
        for channel, counts in enumerate(counts_CL):
            counts += np.bincount(chosen[:, channel].ravel(), minlength=256)
    means = [float(counts @ levels / counts.sum()) for counts in counts_CL.astype(np.float64)]
    variances = [float(counts @ (levels - mean) ** 2 / counts.sum()) for counts, mean in zip(counts_CL.astype(np.float64), means)]
    return described(images_NCHW.shape[1:], means, variances)


def described(shape: Sequence[int], means: Sequence[float], variances: Sequence[float]) -> InputField:
    """The field `image` of images [C, H, W] of these statistics; a channel that never varies has std 1."""
    stds = tuple(variance**0.5 or 1.0 for variance in variances)
    return InputField(name="image", dtype="uint8", shape=tuple(int(n) for n in shape), mean=tuple(means), std=stds)


def probe(content: bytes, where: str) -> tuple[str, tuple[int, int]]:
    """Mode and upright (height, width) of an image, from its header. Raises `DataError` as `decode` does."""
    with _refusing(where):
        image = _opened(content, where)
        is_turned = image.getexif().get(ORIENTATION, 1) >= 5
        return image.mode, (image.width, image.height) if is_turned else (image.height, image.width)


def decode(content: bytes, where: str) -> Image:
    """A decoded image, upright. Raises `DataError` for bytes that are no image, are cut short, or unpack too large."""
    from PIL import ImageOps

    with _refusing(where):
        image = _opened(content, where)
        image.load()
        return ImageOps.exif_transpose(image)


def _opened(content: bytes, where: str) -> Image:
    from PIL import Image as Pillow

    image = Pillow.open(io.BytesIO(content))
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{where} has {image.width}x{image.height} pixels, more than {MAX_PIXELS:,}; scale it down")
    return image


@contextlib.contextmanager
def _refusing(where: str) -> Iterator[None]:
    """Turns what Pillow says of bad bytes into one line."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError:
        raise DataError(f"{where} is not an image that can be decoded; remove it or replace it") from None
    except Pillow.DecompressionBombError as error:
        raise DataError(f"{where} unpacks to too many pixels ({error}); scale it down") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise DataError(f"{where} is a truncated or damaged image ({error}); remove it or replace it") from error


def pixels(image: Image, channels: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 [C, H, W] of an image brought to 1 (grey) or 3 (RGB) channels and to `size` (height, width)."""
    import numpy as np
    from PIL import Image as Pillow

    if image.mode.startswith("I;16") or image.mode == "I":
        image = Pillow.fromarray((np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Pillow.Resampling.BILINEAR)
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def read_image_rows(path: Path, inputs: tuple[InputField, ...]) -> tuple[list[str], dict[str, np.ndarray]]:
    """New images (one file, a folder of them, or a zip archive) at the size and channels of the field `image`."""
    import numpy as np

    channels, height, width = inputs[0].shape
    names, rows = [], []
    for name, content in image_files(path):
        names.append(name)
        rows.append(pixels(decode(content, f"{path}/{name}" if path.is_dir() else name), channels, (height, width)))
    if not rows:
        raise DataError(f"{path} holds no images; name an image, a folder or a .zip archive of them")
    return names, {"image": np.stack(rows)}


def image_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each image file below a folder or in an archive (in order of name), or of the one file."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            relative = file.relative_to(path)
            if file.is_file() and not is_noise(relative.parts):
                yield relative.as_posix(), read_image_bytes(file)
    elif is_archive(path):
        yield from members(path)
    else:
        yield path.name, read_image_bytes(path)


def read_image_bytes(path: Path) -> bytes:
    """A file's bytes. Raises `DataError` for one that is unreadable or larger than an image should be."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} has more than {MAX_FILE_BYTES // 2**20} MiB, too much for one image; remove it or scale it down")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); make it readable for this user") from error
