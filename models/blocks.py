"""Parts that several networks are made of."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

PaddingMode = Literal["zeros", "reflect"]


class SELayer(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507) of `[batch, channels, ...]`."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed),
            nn.ReLU(inplace=True),
            nn.Linear(squeezed, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.fc(x.mean(dim=tuple(range(2, x.ndim))))
        return x * weight[(..., *(None,) * (x.ndim - 2))]


class Res2Block(nn.Module):
    """Res2Net's multi-scale convolution (Gao et al. 2019, arXiv:1904.01169) of `[batch, channels, frames]`.

    A 1x1 convolution, then `scale` groups of channels of which each but the last is convolved after the
    one before was added to it, then a 1x1 convolution. ReLU comes before every BatchNorm. Names are
    those of voxceleb_trainer's and TaoRuijie's `Bottle2neck`.
    """

    def __init__(
        self, inputs: int, outputs: int, dilation: int, scale: int, padding_mode: PaddingMode = "zeros"
    ) -> None:
        super().__init__()
        if scale < 1 or outputs % scale:
            raise ValueError(f"{outputs} channels do not divide into {scale} groups")
        self.width = outputs // scale
        self.conv1 = nn.Conv1d(inputs, outputs, 1)
        self.bn1 = nn.BatchNorm1d(outputs)
        self.convs = nn.ModuleList(
            nn.Conv1d(
                self.width, self.width, 3, dilation=dilation, padding=dilation, padding_mode=padding_mode
            )
            for _ in range(scale - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(self.width) for _ in range(scale - 1))
        self.conv3 = nn.Conv1d(outputs, outputs, 1)
        self.bn3 = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        *groups, last = torch.split(self.bn1(torch.relu(self.conv1(x))), self.width, dim=1)
        done: list[Tensor] = []
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=True):
            done.append(norm(torch.relu(conv(group + done[-1] if done else group))))
        out: Tensor = self.bn3(torch.relu(self.conv3(torch.cat([*done, last], dim=1))))
        return out
