"""Checkpoint files: Sayso's own (safetensors with a JSON configuration) and those of other projects.

Only tensors are ever read (`weights_only=True`, safetensors): a hostile file cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sayso.models import ecapa_files, voxceleb_trainer
from sayso.models.errors import CheckpointError, require_cover
from sayso.models.foreign import Foreign, unwrapped
from sayso.models.frontend import FrontEndOptions
from sayso.models.network import NetworkConfig, SpeakerNetwork

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
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata={_METADATA_KEY: json.dumps(facts, sort_keys=True)})
    os.replace(partial, path)


def load_checkpoint(
    path: Path, sample_scale: float | None = None, log_input: bool | None = None
) -> Checkpoint:
    """Load any checkpoint that Sayso knows, in evaluation mode on the CPU.

    `sample_scale` and `log_input` correct what a voxceleb_trainer file cannot tell; giving them for a file
    whose front-end is known is an error. Raises `CheckpointError`.
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
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint fail anywhere in the unpickler
        raise CheckpointError(
            f"{path.name} is not a PyTorch checkpoint of plain tensors; if it holds other objects, save "
            f"its state_dict alone and try that ({str(error).splitlines()[0] if str(error) else 'empty'})"
        ) from error
    given = read_foreign(loaded, sample_scale, log_input)
    return Checkpoint(given.network(), sha256, given.source)


def read_foreign(
    content: object, sample_scale: float | None = None, log_input: bool | None = None
) -> Foreign:
    """Read a checkpoint of another project from `content`, what `torch.load` returned.

    Which network it is shows in the tensors' names. Raises `CheckpointError`.
    """
    tensors = unwrapped(content)
    for known, read in (
        (voxceleb_trainer.is_rawnet3, voxceleb_trainer.read_rawnet3),
        (ecapa_files.is_taoruijie, ecapa_files.read_taoruijie),
        (ecapa_files.is_speechbrain, ecapa_files.read_speechbrain),
    ):
        if known(tensors):
            if sample_scale is not None or log_input is not None:
                raise CheckpointError("this network has one front-end only: leave the front-end flags out")
            return read(tensors)
    return voxceleb_trainer.read(
        tensors,
        sample_scale=1.0 if sample_scale is None else sample_scale,
        log_input=True if log_input is None else log_input,
    )


def _load_own(path: Path) -> tuple[SpeakerNetwork, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is not a safetensors file: {error}") from error
    if _METADATA_KEY not in metadata:
        raise CheckpointError(f"{path.name} has no Sayso configuration in its metadata")
    network, training = _described(path.name, metadata[_METADATA_KEY])
    require_cover(network.config.architecture, network.state_dict(), tensors)
    network.load_state_dict(tensors, strict=False)  # what may be absent was checked above
    return network.eval(), training


def _described(name: str, text: str) -> tuple[SpeakerNetwork, dict[str, Any]]:
    """Build the untrained network of a JSON configuration; returns it with the facts of its training."""
    try:
        facts = json.loads(text)
        format_name = facts.get("format")
        if format_name == FORMAT:
            front_end = FrontEndOptions(**facts["front_end"])
            config = NetworkConfig(facts["architecture"], facts["options"], front_end)
            return SpeakerNetwork(config), dict(facts["training"])
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{name} has a configuration that cannot be used ({type(error).__name__}: {error})"
        ) from error
    raise CheckpointError(f"{name} has format {format_name}, this version reads {FORMAT}")
