"""ECAPA-TDNN (Desplanques, Thienpondt, Demuynck 2020, arXiv:2005.07143).

Parameter names are those of TaoRuijie/ECAPA-TDNN, so that its checkpoints map one to one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sayso.models.blocks import PaddingMode, Res2Block, SELayer
from sayso.models.pooling import ChannelPooling


@dataclass(frozen=True)
class Variant:
    """Where the implementations differ.

    `summed`: a block hears the sum of all that came before it, not only the block before.
    `padding_mode` is that of the convolutions. `aggregation_norm` and `embedding_norm` put a BatchNorm
    behind the aggregation of the blocks and behind the embedding. Variances stay above `floor`;
    `unbiased` says how the pooling's context divides its own.
    """

    summed: bool
    padding_mode: PaddingMode
    aggregation_norm: bool
    embedding_norm: bool
    floor: float
    unbiased: bool


VARIANTS = {
    "published": Variant(True, "zeros", False, True, 1e-4, True),
    "speechbrain": Variant(False, "reflect", True, False, 1e-12, False),
}


@dataclass(frozen=True)
class ECAPAOptions:
    """Sizes; the defaults are the published ones, whose larger network has 1024 `channels`.

    `aggregated` is the width of the last frame-level layer, `attention` and `squeezed` those of the
    bottlenecks in the pooling and in squeeze-and-excitation. TaoRuijie's has an `attention` of 256.
    """

    variant: str = "published"
    channels: int = 512
    embedding_dim: int = 192
    n_mels: int = 80
    aggregated: int = 1536
    attention: int = 128
    squeezed: int = 128
    scale: int = 8


class SERes2Block(Res2Block):
    """Res2Net's convolution, squeeze-and-excitation, and the input added."""

    def __init__(
        self, channels: int, dilation: int, scale: int, squeezed: int, padding_mode: PaddingMode
    ) -> None:
        super().__init__(channels, channels, dilation, scale, padding_mode)
        self.se = SELayer(channels, squeezed)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.se(super().forward(x)) + x
        return out


class ECAPATDNN(nn.Module):
    """Mean-normalised log-mel features `[batch, n_mels, frames]` to embeddings `[batch, embedding_dim]`.

    512 channels have 6.19 M parameters, 1024 have 14.66 M.
    """

    min_length = 5  # frames that padding by reflection needs

    def __init__(self, options: ECAPAOptions) -> None:
        super().__init__()
        if options.variant not in VARIANTS:
            raise ValueError(f"unknown variant {options.variant!r}: use one of {', '.join(VARIANTS)}")
        self.options, self.variant = options, VARIANTS[options.variant]
        v, channels, aggregated = self.variant, options.channels, options.aggregated
        self.conv1 = nn.Conv1d(options.n_mels, channels, 5, padding=2, padding_mode=v.padding_mode)
        self.bn1 = nn.BatchNorm1d(channels)
        for k in range(3):
            block = SERes2Block(channels, k + 2, options.scale, options.squeezed, v.padding_mode)
            self.add_module(f"layer{k + 1}", block)
        self.layer4 = nn.Conv1d(3 * channels, aggregated, 1)
        self.bn4 = nn.BatchNorm1d(aggregated) if v.aggregation_norm else nn.Identity()
        limits = (v.floor, math.inf)
        self.pooling = ChannelPooling(aggregated, options.attention, limits=limits, unbiased=v.unbiased)
        self.bn5 = nn.BatchNorm1d(2 * aggregated)
        self.fc6 = nn.Linear(2 * aggregated, options.embedding_dim)
        self.bn6 = nn.BatchNorm1d(options.embedding_dim) if v.embedding_norm else nn.Identity()

    @property
    def levels(self) -> list[nn.Module]:
        """The three blocks."""
        return [self.get_submodule(f"layer{k + 1}") for k in range(3)]

    def forward(self, features: Tensor) -> Tensor:
        heard = self.bn1(torch.relu(self.conv1(features)))
        outputs = []
        for level in self.levels:
            outputs.append(level(heard))
            heard = heard + outputs[-1] if self.variant.summed else outputs[-1]
        x = self.bn4(torch.relu(self.layer4(torch.cat(outputs, dim=1))))
        embedding: Tensor = self.bn6(self.fc6(self.bn5(self.pooling(x))))
        return embedding
