"""Reads ECAPA-TDNN checkpoints of TaoRuijie/ECAPA-TDNN and of SpeechBrain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sayso.models.foreign import Foreign, renamed, require_sizes, shown_by
from sayso.models.frontend import FrontEndOptions
from sayso.models.mel_buffers import front_end_buffers, window_name
from sayso.models.network import NetworkConfig

_TAO = (
    ("layer{}.se.se.1", "layer{}.se.fc.0"),
    ("layer{}.se.se.3", "layer{}.se.fc.2"),
    ("attention", "pooling.attention"),
)
_SPEECHBRAIN = (
    ("blocks.0.conv.conv", "conv1"),
    ("blocks.0.norm.norm", "bn1"),
    ("blocks.{}.tdnn1.conv.conv", "layer{}.conv1"),
    ("blocks.{}.tdnn1.norm.norm", "layer{}.bn1"),
    ("blocks.{}.res2net_block.blocks.{}.conv.conv", "layer{}.convs.{}"),
    ("blocks.{}.res2net_block.blocks.{}.norm.norm", "layer{}.bns.{}"),
    ("blocks.{}.tdnn2.conv.conv", "layer{}.conv3"),
    ("blocks.{}.tdnn2.norm.norm", "layer{}.bn3"),
    ("blocks.{}.se_block.conv1.conv", "layer{}.se.fc.0"),
    ("blocks.{}.se_block.conv2.conv", "layer{}.se.fc.2"),
    ("mfa.conv.conv", "layer4"),
    ("mfa.norm.norm", "bn4"),
    ("asp.tdnn.conv.conv", "pooling.attention.0"),
    ("asp.tdnn.norm.norm", "pooling.attention.2"),
    ("asp.conv.conv", "pooling.attention.4"),
    ("asp_bn.norm", "bn5"),
    ("fc.conv", "fc6"),
)
_SIZED_BY = {
    "conv1.weight": 3,
    "layer1.convs.0.weight": 3,
    "layer1.se.fc.0.weight": 2,
    "layer4.weight": 3,
    "pooling.attention.0.weight": 3,
    "fc6.weight": 2,
}


def is_taoruijie(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("torchfbank.") or ".se.se." in name for name in tensors)


def read_taoruijie(tensors: Mapping[str, Tensor]) -> Foreign:
    """Read TaoRuijie's: log-mel from 20 to 7600 Hz with pre-emphasis, less its mean over time."""
    buffers = {name: t for name, t in tensors.items() if name.startswith("torchfbank.")}
    trunk = _linear({renamed(name, _TAO): t for name, t in tensors.items() if name not in buffers})
    shown = shown_by(_TAO)
    options = _sizes(trunk, "published", shown)
    window, filterbank, pre_emphasis = front_end_buffers(buffers, "torchfbank")
    front_end = FrontEndOptions(
        n_mels=filterbank.shape[1],
        window=window_name(window),
        pre_emphasis=pre_emphasis,
        low_hz=20.0,
        high_hz=7600.0,
        variance=False,
    )
    config = NetworkConfig("ECAPA-TDNN", options, front_end)
    return Foreign("TaoRuijie/ECAPA-TDNN", config, trunk, shown, window, filterbank)


def is_speechbrain(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(("blocks.", "mfa.", "asp.", "asp_bn.")) for name in tensors)


def read_speechbrain(tensors: Mapping[str, Tensor]) -> Foreign:
    """Read SpeechBrain's `embedding_model.ckpt`: its Fbank, less its mean over time.

    The front-end is not in the file. Its recipes for VoxCeleb have `Fbank(n_mels=80)` and
    `InputNormalization(norm_type="sentence", std_norm=False)`.
    """
    shown = shown_by(_SPEECHBRAIN)
    trunk = _linear({renamed(name, _SPEECHBRAIN): t for name, t in tensors.items()})
    options = _sizes(trunk, "speechbrain", shown)
    trunk = {name: _last_group_first(name, t, options["scale"]) for name, t in trunk.items()}
    front_end = FrontEndOptions(n_mels=options["n_mels"], kind="speechbrain-fbank", variance=False)
    return Foreign("speechbrain", NetworkConfig("ECAPA-TDNN", options, front_end), trunk, shown)


def _linear(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make matrices of the 1x1 convolutions that work on one value a channel."""
    single = (".se.fc.0.weight", ".se.fc.2.weight", "fc6.weight")
    return {
        name: t.squeeze(2) if name.endswith(single) and t.ndim == 3 and t.shape[2] == 1 else t
        for name, t in trunk.items()
    }


def _last_group_first(name: str, tensor: Tensor, scale: int) -> Tensor:
    """Move the group that is passed on as it is to the end: SpeechBrain's is the first, ours the last."""
    layer, _, below = name.partition(".")
    if layer not in ("layer1", "layer2", "layer3") or not tensor.ndim:
        return tensor
    if below.startswith(("conv1.", "bn1.")):
        return torch.roll(tensor, -(tensor.shape[0] // scale), 0)
    if below == "conv3.weight" and tensor.ndim == 3:
        return torch.roll(tensor, -(tensor.shape[1] // scale), 1)
    return tensor


def _sizes(trunk: Mapping[str, Tensor], variant: str, shown: Callable[[str], str]) -> dict[str, Any]:
    require_sizes("ECAPA-TDNN", trunk, _SIZED_BY, shown)
    channels, n_mels, _ = trunk["conv1.weight"].shape
    return {
        "variant": variant,
        "channels": int(channels),
        "embedding_dim": int(trunk["fc6.weight"].shape[0]),
        "n_mels": int(n_mels),
        "aggregated": int(trunk["layer4.weight"].shape[0]),
        "attention": int(trunk["pooling.attention.0.weight"].shape[0]),
        "squeezed": int(trunk["layer1.se.fc.0.weight"].shape[0]),
        "scale": int(channels // trunk["layer1.convs.0.weight"].shape[0]),
    }
