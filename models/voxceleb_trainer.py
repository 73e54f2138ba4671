"""Reads clovaai/voxceleb_trainer checkpoints, in every form they have had.

Sizes are read off the tensors; what a file cannot tell is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sayso.models.errors import CheckpointError
from sayso.models.foreign import Foreign, numbers_below, renamed, require_sizes, shown_by
from sayso.models.frontend import FrontEndOptions
from sayso.models.mel_buffers import front_end_buffers, is_buffer, pre_emphasis, window_name
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
_RAWNET3_NAMES = (
    ("preprocess.1", "norm"),
    ("conv1.filterbank.low_hz_", "filters.low_hz"),
    ("conv1.filterbank.band_hz_", "filters.band_hz"),
    ("conv1.filterbank.window_", "filters.window"),
    ("conv1.filterbank.n_", "filters.time"),
    ("attention", "pooling.attention"),
)
_RAWNET3 = {
    "layer1.convs.0.weight": 3,
    "layer3.conv3.weight": 3,
    "layer4.weight": 3,
    "pooling.attention.0.weight": 3,
    "pooling.attention.3.weight": 3,
    "fc6.weight": 2,
}
_RAWNET3_KERNEL = "preprocess.0.flipped_filter"
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
    window, filterbank, coefficient = front_end_buffers(buffers, "torchfb")
    options["n_mels"] = filterbank.shape[1]
    front_end = FrontEndOptions(
        n_mels=filterbank.shape[1],
        window=window_name(window),
        pre_emphasis=coefficient,
        sample_scale=sample_scale,
        log_input=log_input,
    )
    config = NetworkConfig(architecture, options, front_end)
    return Foreign(SOURCE, config, trunk, _SHOWN, window, filterbank)


def is_rawnet3(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(("conv1.filterbank.", "preprocess.")) or ".afms." in name for name in tensors)


def read_rawnet3(tensors: Mapping[str, Tensor]) -> Foreign:
    """Read a RawNet3 as `MainModel` builds it, whose filters lie 10 samples apart.

    Its files hold a BatchNorm on the filters and one on the embedding that it never runs.
    """
    shown = shown_by(_RAWNET3_NAMES)
    trunk = {renamed(name, _RAWNET3_NAMES): t for name, t in tensors.items() if name != _RAWNET3_KERNEL}
    if _RAWNET3_KERNEL not in tensors:
        raise CheckpointError(f"the front-end is not in the file: missing {_RAWNET3_KERNEL}")
    require_sizes("RawNet3", trunk, _RAWNET3, shown)
    channels, weights = trunk["layer3.conv3.weight"].shape[0], trunk["pooling.attention.3.weight"].shape[0]
    options: dict[str, Any] = {
        "pooling": "ASP" if weights == 1 else "ECA",
        "embedding_dim": int(trunk["fc6.weight"].shape[0]),
        "channels": int(channels),
        "aggregated": int(trunk["layer4.weight"].shape[0]),
        "attention": int(trunk["pooling.attention.0.weight"].shape[0]),
        "scale": int(channels // trunk["layer1.convs.0.weight"].shape[0]),
    }
    coefficient = pre_emphasis(tensors[_RAWNET3_KERNEL], _RAWNET3_KERNEL)
    config = NetworkConfig(
        "RawNet3", options, FrontEndOptions(n_mels=0, kind="waveform", pre_emphasis=coefficient)
    )
    norms = {"bn1": channels // 4, "bn6": options["embedding_dim"]}
    idle = {f"{n}.{k}": t for n, c in norms.items() for k, t in nn.BatchNorm1d(c).state_dict().items()}
    return Foreign(SOURCE, config, trunk, shown, idle=idle)


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
