"""scikit-learn's digits: 1,797 scans of handwritten digits, 8×8 grey, bundled with the library, so no download.

    athanor run dataset=digits

The test split is the one that `train_test_split(test_size=0.2, stratify=y, random_state=0)` gives, computed here by
the same draws, because importing scikit-learn takes longer than reading the file. Published pixels are 0..16; they
are stored as 0..255 like those of every other image.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import InputField
from components.data.images import image_field, read_image_rows
from components.data.reader import Encoded, Reading, plain_name, read_bytes, row_digest
from components.errors import DataError

if TYPE_CHECKING:
    import numpy as np

SIDE = 8
PUBLISHED_MAXIMUM = 16
TEST_SIZE = 360  # ceil(0.2 * 1797)


class Digits:
    """The bundled scans as an image data set with a fixed test split."""

    modality = "image"
    places = ()

    def __init__(self, name: str = "digits") -> None:
        self.name = plain_name(name, None)

    def sources(self) -> dict[str, Path]:
        package = importlib.util.find_spec("sklearn")
        if package is None or not package.submodule_search_locations:
            raise DataError("dataset=digits comes with scikit-learn, which is not installed; install scikit-learn")
        return {"digits": Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"}

    def read(self) -> Reading:
        images_NCHW, labels = _parse(self.sources()["digits"])
        given = ["train"] * len(labels)
        for row in stratified_test_rows(labels, TEST_SIZE, seed=0):
            given[row] = "test"

        def encode(training: np.ndarray) -> Encoded:
            source = {"_target_": f"{type(self).__module__}.{type(self).__qualname__}", "name": self.name}
            return Encoded(
                inputs=(image_field(images_NCHW, training),), arrays={"image": images_NCHW}, target=labels, task="classification",
                classes=tuple(str(digit) for digit in range(10)), target_name="digit", source=source,
            )  # fmt: skip

        return Reading(digests=[row_digest(image.tobytes()) for image in images_NCHW], given=given, encode=encode)

    def rows(self, path: Path, inputs: tuple[InputField, ...]) -> tuple[list[str], dict[str, np.ndarray]]:
        """New digits: image files, or lines of 64 published pixels (0..16) and perhaps a label, as scikit-learn has them."""
        if path.is_file() and path.name.removesuffix(".gz").endswith((".csv", ".txt")):
            images_NCHW, _ = _parse(path)
            return [f"line {number}" for number in range(1, len(images_NCHW) + 1)], {"image": images_NCHW}
        return read_image_rows(path, inputs)

    @staticmethod
    def example(folder: Path) -> dict[str, Any]:
        return {}


def _parse(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 1, 8, 8] and int64 [N] (-1 where a line has no label). Raises `DataError` that names a bad line."""
    import numpy as np

    try:
        table = np.loadtxt(read_bytes(path).decode("ascii").splitlines(), delimiter=",", ndmin=2)
    except ValueError as error:
        raise DataError(f"{path} is not lines of {SIDE * SIDE} comma-separated pixels ({error})") from error
    if table.shape[1] not in (SIDE * SIDE, SIDE * SIDE + 1):
        raise DataError(f"{path} has {table.shape[1]} values per line where {SIDE * SIDE} pixels and perhaps a label are expected")
    values = table[:, : SIDE * SIDE]
    wrong = np.flatnonzero(((values < 0) | (values > PUBLISHED_MAXIMUM) | np.isnan(values)).any(axis=1))
    if wrong.size:
        raise DataError(f"{path} line {wrong[0] + 1} has a pixel outside 0..{PUBLISHED_MAXIMUM}, the range of the published scans")
    images = np.rint(values * (255 / PUBLISHED_MAXIMUM)).astype(np.uint8).reshape(-1, 1, SIDE, SIDE)
    labels = table[:, -1].astype(np.int64) if table.shape[1] > SIDE * SIDE else np.full(len(table), -1, dtype=np.int64)
    return images, labels


def stratified_test_rows(labels: np.ndarray, num_test: int, seed: int) -> np.ndarray:
    """The test rows of scikit-learn's `train_test_split(..., test_size=num_test, stratify=labels, random_state=seed)`,
    in its order: the same draws from the same generator."""
    import numpy as np

    generator = np.random.RandomState(seed)
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    by_class = np.split(np.argsort(codes, kind="mergesort"), np.cumsum(counts)[:-1])
    num_train = _proportional(counts, len(labels) - num_test, generator)
    num_held = _proportional(counts - num_train, num_test, generator)
    train: list[int] = []
    test: list[int] = []
    for rows, total, first, second in zip(by_class, counts, num_train, num_held, strict=True):
        shuffled = rows.take(generator.permutation(total), mode="clip")
        train.extend(shuffled[:first])
        test.extend(shuffled[first : first + second])
    generator.permutation(train)
    return np.asarray(generator.permutation(test))


def _proportional(counts: np.ndarray, draws: int, generator: np.random.RandomState) -> np.ndarray:
    """`draws` shared out in proportion to `counts`, ties of the remainder broken by the generator."""
    import numpy as np

    exact = counts / counts.sum() * draws
    shares = np.floor(exact)
    missing = int(draws - shares.sum())
    remainder = exact - shares
    for value in np.sort(np.unique(remainder))[::-1]:
        if missing <= 0:
            break
        tied = np.flatnonzero(remainder == value)
        added = min(len(tied), missing)
        shares[generator.choice(tied, size=added, replace=False)] += 1
        missing -= added
    return shares.astype(int)
