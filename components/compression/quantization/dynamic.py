"""Dynamic eight-bit quantisation: weights are stored as integers, scales of activations are found anew for every batch."""

from __future__ import annotations

import tempfile
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from components.compression.quantizable import keep_metadata, prepare
from components.compression.validation import Validation


class DynamicQuantization:
    """Weights of dense layers (and of convolutions, if `convolutions`) in uint8; needs no rows.

    A batch shares one activation scale, so a row's answer depends a little on its neighbours.
    """

    precisions: tuple[str, ...] = ("int8-dynamic",)

    def __init__(self, convolutions: bool = True, reduce_range: bool = True) -> None:
        self.operators = ["MatMul", "Gemm", *(["Conv"] if convolutions else [])]
        self.reduce_range = reduce_range

    def quantize(self, model: Path, out: Path, precision: str, validation: Validation) -> None:
        """Writes the quantised graph."""
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            # ConvInteger takes unsigned weights only.
            quantize_dynamic(prepare(model, Path(folder)), out, op_types_to_quantize=self.operators, weight_type=QuantType.QUInt8,
                             reduce_range=self.reduce_range)  # fmt: skip
        keep_metadata(model, out)
