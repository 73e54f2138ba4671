"""Checkpoint files: Sayso's own (safetensors with a JSON configuration) and voxceleb_trainer's.

Only tensors are ever read (`weights_only=True`, safetensors): a hostile file cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models import voxceleb_trainer
from models.errors import CheckpointError, require_cover
from models.frontend import FrontEndOptions
from models.network import NetworkConfig, SpeakerNetwork

FORMAT = 1
_METADATA_KEY = "sayso"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded network with where it came from: the file's sha256 and what its training wrote down."""

    network: SpeakerNetwork
    sha256: str
    source: str
    training: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, network: SpeakerNetwork, training: dict[str, Any]) -> None:
    """Write `network` as safetensors whose metadata holds its configuration and `training`."""
    config = network.config
    facts = {
        "format": FORMAT,
        "architecture": config.architecture,
        "options": config.options,
        "front_end": config.front_end.to_dict(),
        "training": training,
    }
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, metadata={_METADATA_KEY: json.dumps(facts, sort_keys=True)})


def load_checkpoint(
    path: Path, sample_scale: float | None = None, log_input: bool | None = None
) -> Checkpoint:
    """Load any checkpoint that Sayso knows, in evaluation mode on the CPU.

    `sample_scale` and `log_input` correct what a voxceleb_trainer file cannot tell; Sayso's own files
    say it, so giving them there is an error. Raises `CheckpointError`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if path.suffix == ".safetensors":
        if sample_scale is not None or log_input is not None:
            raise CheckpointError(f"{path.name} names its own front-end: leave the front-end flags out")
        network, training = _load_own(path)
        return Checkpoint(network, sha256, "sayso", training)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path.name} is not a PyTorch checkpoint of plain tensors; if it holds other objects, save "
            f"its state_dict alone and try that ({str(error).splitlines()[0] if str(error) else 'empty'})"
        ) from error
    network = voxceleb_trainer.network_from(
        loaded,
        sample_scale=1.0 if sample_scale is None else sample_scale,
        log_input=True if log_input is None else log_input,
    )
    return Checkpoint(network, sha256, "clovaai/voxceleb_trainer")


def _load_own(path: Path) -> tuple[SpeakerNetwork, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is not a safetensors file: {error}") from error
    if _METADATA_KEY not in metadata:
        raise CheckpointError(f"{path.name} has no Sayso configuration in its metadata")
    facts = json.loads(metadata[_METADATA_KEY])
    if facts.get("format") != FORMAT:
        raise CheckpointError(f"{path.name} has format {facts.get('format')}, this version reads {FORMAT}")
    front_end = FrontEndOptions(**facts["front_end"])
    network = SpeakerNetwork(NetworkConfig(facts["architecture"], facts["options"], front_end))
    require_cover(facts["architecture"], network.state_dict(), tensors)
    network.load_state_dict(tensors)
    return network.eval(), facts["training"]
