"""Reads clovaai/voxceleb_trainer checkpoints of ResNetSE34L, in every form they have had.

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

_NAMES = (("sap_linear", "pooling.linear"), ("attention", "pooling.attention"))
_SHOWN = shown_by(_NAMES)
_FIRST_CONVS = tuple(f"layer{i}.0.conv1.weight" for i in range(1, 5))
_SIZED_BY = {"pooling.attention": 2, "fc.weight": 2, "layer4.0.se.fc.0.weight": 2} | dict.fromkeys(
    _FIRST_CONVS, 4
)


def read_resnetse34l(tensors: Mapping[str, Tensor], sample_scale: float, log_input: bool) -> Foreign:
    """Read a ResNetSE34L.

    `sample_scale` is 32768 for files trained before 2021-04-24 and `log_input` False for those
    trained without `--log_input`: neither can be read from the file. Raises `CheckpointError`.
    """
    buffers = {name: t for name, t in tensors.items() if is_buffer(name, "torchfb")}
    trunk = {renamed(name, _NAMES): t for name, t in tensors.items() if name not in buffers}
    options = _sizes(trunk)
    window, filterbank, pre_emphasis = front_end_buffers(buffers, "torchfb")
    options["n_mels"] = filterbank.shape[1]
    front_end = FrontEndOptions(
        n_mels=filterbank.shape[1],
        window=window_name(window),
        pre_emphasis=pre_emphasis,
        sample_scale=sample_scale,
        log_input=log_input,
    )
    config = NetworkConfig("ResNetSE34L", options, front_end)
    return Foreign("clovaai/voxceleb_trainer", config, trunk, _SHOWN, window, filterbank)


def _sizes(trunk: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the options of ResNetSE34L from the tensors' shapes: widths, depths, pooling, output size."""
    require_sizes("ResNetSE34L", trunk, _SIZED_BY, _SHOWN)
    pooled, channels = trunk["fc.weight"].shape[-1], trunk["pooling.attention"].shape[0]
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
