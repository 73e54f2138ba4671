"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from sayso.models.network import SpeakerNetwork
from sayso.models.rawnet3 import SincFilters


def count_parameters(network: SpeakerNetwork) -> int:
    """Trainable parameters of the trunk; window and filterbank are not trained."""
    return sum(p.numel() for p in network.trunk.parameters())


def count_macs(network: SpeakerNetwork, samples: int = 48_000) -> int:
    """Multiply-accumulates of the trunk's convolutions, linear layers and LSTMs for one waveform."""
    return sum(macs_by_module(network, samples).values())


def macs_by_module(network: SpeakerNetwork, samples: int) -> dict[nn.Module, int]:
    """Multiply-accumulates of each convolution, linear layer and LSTM of the trunk."""
    counted: dict[nn.Module, int] = {}

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = cast(Tensor, module.weight)
        # Inputs that each output value sums over, times outputs.
        counted[module] = counted.get(module, 0) + output[0].numel() * weight[0].numel()

    def add_lstm(module: nn.LSTM, inputs: tuple[Tensor, ...], output: tuple[Tensor, Any]) -> None:
        weights = sum(p.numel() for name, p in module.named_parameters() if name.startswith("weight"))
        counted[module] = output[0].shape[1] * weights

    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear, SincFilters)
    modules = list(network.trunk.modules())
    hooks = [m.register_forward_hook(add) for m in modules if isinstance(m, kinds)]
    hooks += [m.register_forward_hook(add_lstm) for m in modules if isinstance(m, nn.LSTM)]
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, samples))
    finally:
        for hook in hooks:
            hook.remove()
    return counted
