"""Parts that several networks are made of."""

from __future__ import annotations

from collections.abc import Sequence
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


class SEBasicBlock(nn.Module):
    """Residual block of voxceleb_trainer's ResNets; ReLU comes before the first BatchNorm.

    `project` puts a 1x1 convolution on the shortcut.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: tuple[int, int], reduction: int, project: bool
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.se = SELayer(outputs, outputs // reduction)
        self.downsample: nn.Sequential | None = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn1(torch.relu(self.conv1(x)))
        out = self.se(self.bn2(self.conv2(out)))
        return torch.relu(out + shortcut)


class SEResNet(nn.Module):
    """What voxceleb_trainer's ResNets share: stages of `SEBasicBlock`s, named layer1 and on."""

    def _add_stages(
        self,
        filters: Sequence[int],
        blocks: Sequence[int],
        strides: Sequence[tuple[int, int]],
        reduction: int,
    ) -> None:
        """Add stages `filters` wide and `blocks` deep, each with its stride at its start.

        The published code projects at the start of each stage but the first, whatever the widths.
        """
        inputs = filters[0]
        self.stages = len(filters)
        for i, (outputs, depth) in enumerate(zip(filters, blocks, strict=True)):
            stage = []
            for j in range(depth):
                project = j == 0 and (i > 0 or inputs != outputs)
                stride = strides[i] if j == 0 else (1, 1)
                stage.append(SEBasicBlock(inputs, outputs, stride, reduction, project))
                inputs = outputs
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))

    def _init_convolutions(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def levels(self) -> list[nn.Module]:
        """The stages."""
        return [self.get_submodule(f"layer{i + 1}") for i in range(self.stages)]


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
