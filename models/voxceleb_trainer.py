"""Reads clovaai/voxceleb_trainer checkpoints of its networks of log-mels, in every form they have had.

Sizes are read off the tensors; what a file cannot tell is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sayso.models.errors import CheckpointError
from sayso.models.foreign import Foreign, numbers_below, renamed, require_sizes, shown_by
from sayso.models.frontend import FrontEndOptions
from sayso.models.mel_buffers import front_end_buffers, is_buffer, window_name
from sayso.models.network import NetworkConfig

SOURCE = "clovaai/voxceleb_trainer"
_CONVOLUTIONS = (0, 4, 8, 11, 14, 18)  # of VGGVox, each with its BatchNorm behind it
_NAMES = (
    ("sap_linear", "pooling.linear"),
    ("attention", "pooling.attention"),
    *((f"netcnn.{n}", f"levels.{k}.0") for k, n in enumerate(_CONVOLUTIONS)),
    *((f"netcnn.{n + 1}", f"levels.{k}.1") for k, n in enumerate(_CONVOLUTIONS)),
)
_SHOWN = shown_by(_NAMES)
_FIRST_CONVS = tuple(f"layer{i}.0.conv1.weight" for i in range(1, 5))
_RESNET = {"fc.weight": 2, "layer4.0.se.fc.0.weight": 2} | dict.fromkeys(_FIRST_CONVS, 4)


def read(tensors: Mapping[str, Tensor], sample_scale: float, log_input: bool) -> Foreign:
    """Read a ResNetSE34L, ResNetSE34V2 or VGGVox: which of them shows in the names.

    `sample_scale` is 32768 for files trained before 2021-04-24 and `log_input` False for those
    trained without `--log_input`: neither can be read from the file. Raises `CheckpointError`.
    """
    buffers = {name: t for name, t in tensors.items() if is_buffer(name, "torchfb")}
    trunk = {renamed(name, _NAMES): t for name, t in tensors.items() if name not in buffers}
    if any(name.startswith("netcnn.") for name in tensors):
        architecture, options = "VGGVox", _vggvox(trunk)
    elif any(name.startswith("attention.") for name in tensors):
        architecture, options = "ResNetSE34V2", _resnetse34v2(trunk)
    else:
        architecture, options = "ResNetSE34L", _resnetse34l(trunk)
    window, filterbank, pre_emphasis = front_end_buffers(buffers, "torchfb")
    options["n_mels"] = filterbank.shape[1]
    front_end = FrontEndOptions(
        n_mels=filterbank.shape[1],
        window=window_name(window),
        pre_emphasis=pre_emphasis,
        sample_scale=sample_scale,
        log_input=log_input,
    )
    config = NetworkConfig(architecture, options, front_end)
    return Foreign(SOURCE, config, trunk, _SHOWN, window, filterbank)


def _resnetse34l(trunk: Mapping[str, Tensor]) -> dict[str, Any]:
    require_sizes("ResNetSE34L", trunk, {"pooling.attention": 2} | _RESNET, _SHOWN)
    return _resnet(trunk, trunk["pooling.attention"].shape[0])


def _resnetse34v2(trunk: Mapping[str, Tensor]) -> dict[str, Any]:
    require_sizes("ResNetSE34V2", trunk, {"pooling.attention.0.weight": 3} | _RESNET, _SHOWN)
    return _resnet(trunk, trunk["pooling.attention.0.weight"].shape[1])


def _resnet(trunk: Mapping[str, Tensor], channels: int) -> dict[str, Any]:
    """Infer widths, depths, pooling of `channels`, and output size from the tensors' shapes."""
    pooled = trunk["fc.weight"].shape[1]
    if pooled not in (channels, 2 * channels):
        raise CheckpointError(
            f"fc.weight takes {pooled} inputs: neither SAP ({channels}) nor ASP ({2 * channels})"
        )
    filters = [int(trunk[name].shape[0]) for name in _FIRST_CONVS]
    return {
        "pooling": "SAP" if pooled == channels else "ASP",
        "embedding_dim": int(trunk["fc.weight"].shape[0]),
        "filters": filters,
        "blocks": [numbers_below(trunk, f"layer{i}") for i in range(1, 5)],
        "reduction": max(1, filters[-1] // int(trunk["layer4.0.se.fc.0.weight"].shape[0])),
    }


def _vggvox(trunk: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer widths, output size, and whether there is an attention; without one it is the mean over time.

    A network that was trained with `--encoder_type MAX` looks the same in its file as one with TAP.
    """
    convolutions = [f"levels.{k}.0.weight" for k in range(len(_CONVOLUTIONS))]
    require_sizes("VGGVox", trunk, dict.fromkeys(convolutions, 4) | {"fc.weight": 2}, _SHOWN)
    return {
        "pooling": "SAP" if any(name.startswith("pooling.") for name in trunk) else "TAP",
        "embedding_dim": int(trunk["fc.weight"].shape[0]),
        "filters": [int(trunk[name].shape[0]) for name in convolutions],
    }
