"""Pays PyTorch's exporter its entrance fee (4 s of imports and operator tables) in a process that has nothing else to do."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from typing import Any


def warm(*, emit: Callable[..., Any]) -> None:
    """Exports a network of three layers into memory and forgets it; imports ONNX Runtime and the evaluation's metrics."""
    import onnxruntime.quantization  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch

    layers = [torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(18, 2)]
    batch = torch.export.Dim("N")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        network = torch.nn.Sequential(*layers, torch.nn.Softmax(1)).eval()
        program = torch.onnx.export(network, (torch.zeros(3, 1, 8, 8),), dynamo=True, verbose=False, dynamic_shapes=({0: batch},))
    assert program is not None
    program.save(io.BytesIO())
