"""Pictures inside a page: arrays and files as `data:` URIs, so that a report is one file and needs no network."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LARGEST = 2_000_000  # bytes of a file that is still put inside the page


def of_array(image_CHW: NDArray[np.uint8]) -> str:
    """A PNG of an image [C, H, W] with one (grey) or three (colour) channels; of others the first is shown."""
    channels = image_CHW if image_CHW.shape[0] in (1, 3) else image_CHW[:1]
    rows_HWC = np.ascontiguousarray(channels.transpose(1, 2, 0)).astype(np.uint8)
    height, width, depth = rows_HWC.shape
    colour = {1: 0, 3: 2}[depth]
    lines = np.concatenate([np.zeros((height, 1), np.uint8), rows_HWC.reshape(height, width * depth)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)) + _chunk(b"IEND", b"")
    return _uri("image/png", b"\x89PNG\r\n\x1a\n" + body)


def of_file(path: Path) -> str | None:
    """A PNG, JPEG or SVG file; None where it is gone or too large for a page."""
    kinds = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}
    if path.suffix.lower() not in kinds or not path.is_file() or path.stat().st_size > LARGEST:
        return None
    return _uri(kinds[path.suffix.lower()], path.read_bytes())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
