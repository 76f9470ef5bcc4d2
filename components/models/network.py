"""Networks from records: built with seeded weights, loaded from safetensors, saved, counted."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from components.artifacts import JSON, Candidate, DatasetVersion, StoredFile, TrainedModel
from components.build import build
from components.errors import CorruptArtifactError
from components.models.tensors import difference


def build_network(space: JSON, candidate: Candidate, dataset: DatasetVersion, seed: int) -> nn.Module:
    """The candidate's network with initial weights drawn from `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dropout = float(candidate.hyperparameters.get("dropout", 0.0))
        return build(space).build(candidate.architecture, dataset.inputs, dataset.num_outputs, dropout=dropout)


def load_network(model: TrainedModel, dataset: DatasetVersion) -> nn.Module:
    """A trained model's network in eval mode. Raises `CorruptArtifactError` when its weights cannot be read or do not fit it."""
    network, path = build_network(model.space, model.candidate, dataset, model.seed), model.weights.path
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CorruptArtifactError(f"weights {path} cannot be read: {error}; take the file from its source again") from error
    theirs, ours = ({name: list(tensor.shape) for name, tensor in state.items()} for state in (weights, network.state_dict()))
    if differing := difference(theirs, ours, "the file", "the network of its record"):
        wrong = f"weights {path} do not fit the {model.role}'s network: {differing}"
        raise CorruptArtifactError(f"{wrong}; they are not of one model, take both from their source again")
    network.load_state_dict(weights)
    return network.eval()


def save_weights(network: nn.Module, path: Path) -> StoredFile:
    """Writes a network's parameters and buffers as safetensors."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, path)
    return StoredFile.of(path)


def num_parameters(network: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in network.parameters())
