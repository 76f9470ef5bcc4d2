"""Zip archives read in place: nothing is unpacked to disk, and what could reach outside is refused all the same."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from components.errors import DataError

IGNORED = ("thumbs.db", "desktop.ini", "__macosx")
MAX_MEMBER_BYTES = 256 * 2**20


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive, by its name or by its first bytes."""
    try:
        return path.is_file() and (path.suffix.lower() == ".zip" or zipfile.is_zipfile(path))
    except OSError:
        return False


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file in an archive, in order of name. Raises `DataError` for a damaged or unsafe archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                _refuse_unsafe(path, entry)
                if not entry.is_dir() and not is_noise(PurePosixPath(entry.filename).parts):
                    yield entry.filename, _read(path, archive, entry)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} is not a zip archive that can be read ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); make it readable for this user") from error


def is_noise(parts: Iterable[str]) -> bool:
    """Whether a path is what operating systems leave behind: hidden files, thumbnails, resource forks."""
    return any(part.startswith(".") or part.lower() in IGNORED for part in parts)


def _refuse_unsafe(path: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise DataError(f"{path} holds a link ({name}); archives may hold files and folders only")
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name.split("/")[0]:
        raise DataError(f"{path} holds {name!r}, which points outside the archive; pack it again with relative names")
    if entry.flag_bits & 0x1:
        raise DataError(f"{path} is encrypted ({name}); pack it again without a password")
    if entry.file_size > MAX_MEMBER_BYTES:
        raise DataError(f"{path} holds {name}, which unpacks to {entry.file_size:,} bytes, more than {MAX_MEMBER_BYTES:,}; remove it")


def _read(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{entry.filename} in {path} is damaged ({error}); pack the archive again") from error
