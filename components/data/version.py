"""The version verb: reads a data set, splits it, and writes it down as arrays with one content digest.

    python -c "from components.data.version import version; ..."   # see tests/components/data/test_version.py

Statistics (means, quantiles, vocabularies) come from the training rows alone. The digest is over the sources' bytes,
the reader's options and the split, so the same bytes give the same digest on every machine, wherever they lie.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts import JSON, SPLITS, DatasetVersion, InputField, StoredFile
from components.build import build
from components.data.reader import Encoded, Reader, required_path
from components.data.sources import reader_of, stamps, version_digest
from components.data.split import assign, fractions
from components.errors import DataError, TryAgainError
from components.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

LOOK_BYTES = 4_000_000  # read in well under a second, packed or not


def version(config: JSON, work: Workspace) -> DatasetVersion:
    """The data set that `config["dataset"]` describes, split by `config["split"]`, as arrays below `work.out`.

    Raises `DataError` for data that cannot be read as described, `TryAgainError` if they change while being read."""
    import numpy as np

    fractions(config["split"])
    reader = reader_of(config)
    sources = reader.sources()
    before = stamps(sources.values())
    digest = version_digest(config, reader, sources)
    reading = reader.read()
    work.emit("version.read", rows=len(reading.digests))
    splits = assign(reading.digests, reading.given, config["split"])
    encoded = reading.encode(np.flatnonzero(splits == "train"))
    if stamps(sources.values()) != before:
        raise TryAgainError(f"the files of dataset {reader.name} changed while they were read; run again when they are written")
    return _record(reader, encoded, splits, digest, work.out)


def look(config: JSON) -> None:
    """Reads small data once and forgets them: a mistake in them is told in a second, before anything heavy is waited for."""
    reader = reader_of(config)
    if sum(path.stat().st_size for path in reader.sources().values()) <= LOOK_BYTES:
        reader.read()


def read_rows(source: JSON, inputs: tuple[InputField, ...], path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """New rows of the form a dataset version's `source` describes: one name per row and an array per input field.

    A target among them is ignored. Raises `DataError` for rows that do not fit the inputs."""
    reader: Reader = build(source)
    names, arrays = reader.rows(required_path(path, "new rows", "PATH"), inputs)
    if not names:
        raise DataError(f"{path} holds no rows to predict; name a file with at least one")
    return names, arrays


def _record(reader: Reader, encoded: Encoded, splits: np.ndarray, digest: str, out: Path) -> DatasetVersion:
    mean, std = _target_statistics(encoded, splits)
    return DatasetVersion(
        name=reader.name,
        digest=digest,
        modality=reader.modality,
        task=encoded.task,
        inputs=encoded.inputs,
        target=encoded.target_name,
        classes=encoded.classes,
        splits={name: int((splits == name).sum()) for name in SPLITS},
        files=_write(encoded, splits, out),
        source=encoded.source,
        target_mean=mean,
        target_std=std,
        notes=encoded.notes,
    )


def _target_statistics(encoded: Encoded, splits: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of a regression target over the training rows; 0 and 1 for classes."""
    import numpy as np

    if encoded.task != "regression":
        return 0.0, 1.0
    values = encoded.target[splits == "train"].astype(np.float64)
    return float(values.mean()), float(values.std()) or 1.0


def _write(encoded: Encoded, splits: np.ndarray, out: Path) -> dict[str, StoredFile]:
    from components.data.packed import EncodedImages
    from components.data.spool import write_rows

    for split in SPLITS:
        (out / split).mkdir(parents=True, exist_ok=True)
    files: dict[str, StoredFile] = {}
    for name, array in {**encoded.arrays, "target": encoded.target}.items():
        files |= array.write(splits, out, name) if isinstance(array, EncodedImages) else write_rows(array, splits, out, name)
    return files
