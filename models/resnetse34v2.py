"""ResNetSE34V2, the wide SE-ResNet of clovaai/voxceleb_trainer.

Heo et al. 2020, "Clova baseline system for the VoxCeleb Speaker Recognition Challenge 2020"
(arXiv:2009.14153). Parameter names follow the published code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sayso.models.blocks import SEResNet
from sayso.models.pooling import ChannelPooling


@dataclass(frozen=True)
class ResNetSE34V2Options:
    """Sizes; the defaults are those of the published checkpoint. `n_mels` is a multiple of 8."""

    pooling: str = "ASP"
    embedding_dim: int = 512
    n_mels: int = 64
    filters: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    reduction: int = 8


class ResNetSE34V2(SEResNet):
    """Normalised log-mel features `[batch, n_mels, frames]` to embeddings `[batch, embedding_dim]`.

    Channels and frequencies are pooled together, each with attention weights of its own.
    """

    STRIDES = ((1, 1), (2, 2), (2, 2), (2, 2))

    def __init__(self, options: ResNetSE34V2Options) -> None:
        super().__init__()
        if options.n_mels % 8 or not options.n_mels:
            raise ValueError(f"ResNetSE34V2 takes a multiple of 8 mels, not {options.n_mels}")
        self.options = options
        self.conv1 = nn.Conv2d(1, options.filters[0], 3, padding=1)
        self.bn1 = nn.BatchNorm2d(options.filters[0])
        self._add_stages(options.filters, options.blocks, self.STRIDES, options.reduction)
        channels = options.filters[-1] * (options.n_mels // 8)
        limits = (1e-5, math.inf)
        self.pooling = ChannelPooling(
            channels, 128, options.pooling, context=False, tanh=False, limits=limits
        )
        self.fc = nn.Linear(self.pooling.out_channels, options.embedding_dim)
        self._init_convolutions()

    def forward(self, features: Tensor) -> Tensor:
        x = self.bn1(torch.relu(self.conv1(features.unsqueeze(1))))
        for level in self.levels:
            x = level(x)
        embedding: Tensor = self.fc(self.pooling(x.flatten(1, 2)))
        return embedding
