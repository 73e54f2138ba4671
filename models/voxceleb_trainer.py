"""Reads clovaai/voxceleb_trainer checkpoints of ResNetSE34L, in every form they have had.

The forms differ in wrapping (a bare state_dict, `model`, `model_state_dict`), in prefixes (`__S__.`
for the network beside `__L__.` for the loss, `module.` from data-parallel training) and in the
front-end's buffers. Sizes are read off the tensors; what a file cannot tell is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sayso.models.errors import CheckpointError, require_cover
from sayso.models.frontend import WIN_LENGTH, FrontEndOptions
from sayso.models.network import NetworkConfig, SpeakerNetwork

_WRAPPERS = ("model_state_dict", "model", "state_dict")
_RENAMED = {
    "sap_linear.weight": "pooling.linear.weight",
    "sap_linear.bias": "pooling.linear.bias",
    "attention": "pooling.attention",
}
_FIRST_CONVS = tuple(f"layer{i}.0.conv1.weight" for i in range(1, 5))
_SIZED_BY = {"pooling.attention": 2, "fc.weight": 2, "layer4.0.se.fc.0.weight": 2} | dict.fromkeys(
    _FIRST_CONVS, 4
)
_FRONT_END = re.compile(r"torchfb(?:\.\d+)?\.(flipped_filter|spectrogram\.window|mel_scale\.fb)$")


def network_from(content: object, sample_scale: float = 1.0, log_input: bool = True) -> SpeakerNetwork:
    """Build the network from `content`, what `torch.load` returned. Every tensor of the file must fit.

    `sample_scale` is 32768 for files trained before 2021-04-24 and `log_input` False for those
    trained without `--log_input`: neither can be read from the file. Raises `CheckpointError` with
    the names of what is missing, unexpected or misshapen.
    """
    trunk, front_end = _split(_state_dict(content))
    options = _sizes(trunk)
    window, filterbank, pre_emphasis = _front_end_buffers(front_end)
    options["n_mels"] = filterbank.shape[1]
    config = NetworkConfig(
        architecture="ResNetSE34L",
        options=options,
        front_end=FrontEndOptions(
            n_mels=filterbank.shape[1],
            window=_window_name(window),
            pre_emphasis=pre_emphasis,
            sample_scale=sample_scale,
            log_input=log_input,
        ),
    )
    network = SpeakerNetwork(config)
    require_cover("ResNetSE34L", network.trunk.state_dict(), trunk, shown=_published)
    network.trunk.load_state_dict(trunk, strict=False)  # require_cover has checked which keys are absent
    network.front_end.use(window, filterbank)
    return network.eval()


def _state_dict(content: object) -> dict[str, Tensor]:
    """Unwrap the file and drop prefixes and the loss's own parameters."""
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError("the file holds no state_dict: a mapping of names to tensors was expected")
    tensors = {}
    for key, value in content.items():
        parts = [part for part in str(key).split(".") if part != "module"]
        if parts[:1] == ["__L__"]:
            continue
        if not isinstance(value, Tensor):
            raise CheckpointError(f"the file holds {type(value).__name__} under {key!r}, not a tensor")
        name = ".".join(parts[1:] if parts[:1] == ["__S__"] else parts)
        if name in tensors:
            raise CheckpointError(f"the file holds {name} twice, under different prefixes")
        tensors[name] = value
    return tensors


def _split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Separate the trunk, under our names, from the front-end's buffers, named without `torchfb.`."""
    trunk, front_end = {}, {}
    for key, value in tensors.items():
        match = _FRONT_END.match(key)
        if match:
            front_end[match[1]] = value
        else:
            trunk[_RENAMED.get(key, key)] = value
    return trunk, front_end


def _sizes(trunk: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the options of ResNetSE34L from the tensors' shapes: widths, depths, pooling, output size."""
    missing = [_published(name) for name in _SIZED_BY if name not in trunk]
    if missing:
        raise CheckpointError(f"not a ResNetSE34L checkpoint: missing {', '.join(missing)}")
    for name, dimensions in _SIZED_BY.items():
        shape = tuple(trunk[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise CheckpointError(f"{_published(name)} has shape {shape}, expected {dimensions} dimensions")
    pooled, channels = trunk["fc.weight"].shape[-1], trunk["pooling.attention"].shape[0]
    if pooled not in (channels, 2 * channels):
        raise CheckpointError(
            f"fc.weight takes {pooled} inputs: neither SAP ({channels}) nor ASP ({2 * channels})"
        )
    filters = [int(trunk[name].shape[0]) for name in _FIRST_CONVS]
    # Distinct block numbers are counted: the highest plus one would let a key ask for a million blocks.
    blocks = [len({key.split(".")[1] for key in trunk if key.startswith(f"layer{i}.")}) for i in range(1, 5)]
    return {
        "pooling": "SAP" if pooled == channels else "ASP",
        "embedding_dim": int(trunk["fc.weight"].shape[0]),
        "filters": filters,
        "blocks": blocks,
        "reduction": max(1, filters[-1] // int(trunk["layer4.0.se.fc.0.weight"].shape[0])),
    }


def _front_end_buffers(buffers: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, float]:
    """Return window `[WIN_LENGTH]`, filterbank `[257, mels]` and pre-emphasis coefficient (0 without one)."""
    missing = [f"torchfb.{n}" for n in ("spectrogram.window", "mel_scale.fb") if n not in buffers]
    if missing:
        raise CheckpointError(f"the front-end is not in the file: missing {', '.join(missing)}")
    window, filterbank = buffers["spectrogram.window"], buffers["mel_scale.fb"]
    if tuple(window.shape) != (WIN_LENGTH,):
        raise CheckpointError(
            f"torchfb.spectrogram.window has shape {tuple(window.shape)}, expected ({WIN_LENGTH},)"
        )
    if filterbank.ndim != 2 or filterbank.shape[0] != 257 or not filterbank.numel():
        raise CheckpointError(
            f"torchfb.mel_scale.fb has shape {tuple(filterbank.shape)}, expected (257, mels)"
        )
    kernel = buffers.get("flipped_filter")
    if kernel is None:
        return window, filterbank, 0.0
    if tuple(kernel.shape) != (1, 1, 2) or float(kernel[0, 0, 1]) != 1.0:
        raise CheckpointError("torchfb.flipped_filter is not a pre-emphasis kernel [[[-coefficient, 1]]]")
    return window, filterbank, round(-float(kernel[0, 0, 0]), 6)


def _window_name(window: Tensor) -> str:
    for name, make in (("hamming", torch.hamming_window), ("hann", torch.hann_window)):
        if torch.allclose(window.float(), make(WIN_LENGTH), atol=1e-5):
            return name
    return "file"


def _published(name: str) -> str:
    """Return the name that voxceleb_trainer gives a tensor, for messages."""
    return {ours: theirs for theirs, ours in _RENAMED.items()}.get(name, name)
