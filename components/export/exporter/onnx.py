"""The ONNX exporter of PyTorch (dynamo): dynamic batch, answers in the user's own terms, one self-contained file."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from components.artifacts import DatasetVersion
from components.export import graph
from components.export.spec import spec_of

TRACED_BATCH = 3  # a batch of 1 is specialised to a constant


class OnnxExporter:
    """Writes a network as ONNX. `opset` is the operator set version; `tolerance` the largest difference that parity forgives."""

    def __init__(self, opset: int = 20, tolerance: float = 1e-4) -> None:
        self.opset, self.tolerance = opset, tolerance

    def export(self, network: nn.Module, dataset: DatasetVersion, path: Path) -> None:
        """Writes `path`: inputs named and typed as the dataset's fields (categories as strings), output `probabilities` or `value`."""
        spec = spec_of(dataset)
        example = tuple(_example(field.dtype, field.shape) for field in dataset.inputs)
        batch = torch.export.Dim("N")
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                Served(folded(network), dataset).eval(), example, dynamo=True, opset_version=self.opset, external_data=False, verbose=False,
                dynamic_shapes=(tuple({0: batch} for _ in example),),
                input_names=[field.name for field in dataset.inputs], output_names=[spec.output],
            )  # fmt: skip
        assert program is not None
        graph.save(graph.finish(program.model_proto, spec), path)


class Served(nn.Module):
    """A network that answers in the user's terms: probabilities [N, K], or values [N] in the target's own unit."""

    def __init__(self, network: nn.Module, dataset: DatasetVersion) -> None:
        super().__init__()
        self.network = network
        self.is_classifier = dataset.task == "classification"
        self.mean, self.std = dataset.target_mean, dataset.target_std

    def forward(self, *fields: Tensor) -> Tensor:
        outputs = self.network(*fields)
        if self.is_classifier:
            return torch.softmax(outputs, dim=1)
        return outputs[:, 0] * self.std + self.mean


def folded(network: nn.Module) -> nn.Module:
    """A copy in which each batch normalisation after a convolution is part of it: a third less to trace."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold(module)
    return network


def _fold(sequence: nn.Sequential) -> None:
    for i in range(len(sequence) - 1):
        convolution, norm = sequence[i], sequence[i + 1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            sequence[i], sequence[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()


def _example(dtype: str, shape: tuple[int, ...]) -> Tensor:
    return torch.zeros((TRACED_BATCH, *shape), dtype=getattr(torch, dtype))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of torchvision, which is absent on purpose, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
