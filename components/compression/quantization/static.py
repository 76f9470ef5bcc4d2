"""Static eight-bit quantisation: scales of activations are fixed beforehand, on real training rows (QDQ format)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from components.compression.quantizable import keep_metadata, prepare, weighted_nodes
from components.compression.validation import Validation
from components.errors import UsageError
from components.export.runtime import batches

CALIBRATIONS = {"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy, "percentile": CalibrationMethod.Percentile}


class StaticQuantization:
    """Weights per channel and activations in int8; the layers at both ends stay in float where that saves the accuracy.

    `rows` training rows set the activations' ranges by `calibration` (minmax, entropy or percentile). If the objective on
    validation falls by more than `tolerance`, the first and the last layer are left in float and the better graph is kept.
    `reduce_range` uses 7 bits for weights: without VNNI instructions 8 bits overflow in 16-bit sums.
    """

    precisions: tuple[str, ...] = ("int8",)

    def __init__(self, rows: int = 256, calibration: str = "minmax", per_channel: bool = True, reduce_range: bool = True,
                 tolerance: float = 0.005) -> None:  # fmt: skip
        if calibration not in CALIBRATIONS:
            raise UsageError(f"quantization.calibration must be one of {', '.join(CALIBRATIONS)}, got {calibration!r}")
        if rows < 1:
            raise UsageError(f"quantization.rows must be at least 1, got {rows}")
        self.rows, self.calibration, self.tolerance = rows, CALIBRATIONS[calibration], tolerance
        self.per_channel, self.reduce_range = per_channel, reduce_range

    def quantize(self, model: Path, out: Path, precision: str, validation: Validation) -> None:
        """Writes the quantised graph; see the class."""
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            ready = prepare(model, Path(folder))
            self._write(model, ready, out, validation, exclude=[])
            ends = _ends(weighted_nodes(ready))
            if ends and validation.loss(model, out) > self.tolerance:
                careful = Path(folder) / "careful.onnx"
                self._write(model, ready, careful, validation, exclude=ends)
                if validation.loss(model, careful) < validation.loss(model, out):
                    validation.forget(out)
                    careful.replace(out)

    def _write(self, model: Path, ready: Path, out: Path, validation: Validation, exclude: list[str]) -> None:
        quantize_static(
            ready, out, Reader(validation.calibration(self.rows)), quant_format=QuantFormat.QDQ, per_channel=self.per_channel,
            reduce_range=self.reduce_range, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=exclude,
            calibrate_method=self.calibration, op_types_to_quantize=["Conv", "Gemm", "MatMul", "Relu", "MaxPool", "Add", "AveragePool"],
        )  # fmt: skip
        keep_metadata(model, out)


class Reader(CalibrationDataReader):
    """Hands the calibrator its rows in a few batches."""

    def __init__(self, feeds: dict[str, NDArray], batch_size: int = 64) -> None:
        self._batches: Iterator[dict[str, NDArray]] = batches({name: np.asarray(array) for name, array in feeds.items()}, batch_size)

    def get_next(self) -> Any:
        """The next batch's feeds, or None after the last."""
        return next(self._batches, None)


def _ends(nodes: list[str]) -> list[str]:
    """The first and last of at least three layers: the ones that quantisation usually hurts most."""
    return [nodes[0], nodes[-1]] if len(nodes) > 2 else []
