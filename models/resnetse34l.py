"""ResNetSE34L, the "baseline": the light SE-ResNet of clovaai/voxceleb_trainer.

Chung et al. 2020, "In defence of metric learning for speaker recognition" (arXiv:2003.11982).
Parameter names follow the published code, so that its checkpoints map one to one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sayso.models.blocks import SELayer
from sayso.models.pooling import AttentivePooling


@dataclass(frozen=True)
class ResNetSE34LOptions:
    """Sizes of the network; the defaults are the published ones with `pooling` SAP or ASP.

    `embedding_norm` puts a BatchNorm on the pooled statistics and another on the embedding while
    training; `folded` takes them away again.
    """

    pooling: str = "SAP"
    embedding_dim: int = 512
    n_mels: int = 40
    filters: tuple[int, ...] = (16, 32, 64, 128)
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    reduction: int = 8
    embedding_norm: bool = False


class SEBasicBlock(nn.Module):
    """Residual block; ReLU comes before the first BatchNorm, as in the published code.

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


class ResNetSE34L(nn.Module):
    """Normalised log-mel features `[batch, n_mels, frames]` to embeddings `[batch, embedding_dim]`.

    The output is not length-normalised. SAP at 512 outputs has 1,437,078 parameters, ASP 1,502,614.
    """

    STRIDES = ((1, 1), (2, 2), (2, 2), (1, 1))

    def __init__(self, options: ResNetSE34LOptions) -> None:
        super().__init__()
        self.options = options
        stem, last = options.filters[0], options.filters[-1]
        self.conv1 = nn.Conv2d(1, stem, 7, stride=(2, 1), padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        inputs = stem
        for i, (outputs, blocks) in enumerate(zip(options.filters, options.blocks, strict=True)):
            stage = []
            for j in range(blocks):
                stride = self.STRIDES[i] if j == 0 else (1, 1)
                # The published code projects at the start of each stage but the first, whatever the widths.
                project = j == 0 and (i > 0 or inputs != outputs)
                stage.append(SEBasicBlock(inputs, outputs, stride, options.reduction, project))
                inputs = outputs
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.pooling = AttentivePooling(options.pooling, last)
        pooled = self.pooling.out_channels
        self.pooled_norm = nn.BatchNorm1d(pooled) if options.embedding_norm else nn.Identity()
        self.fc = nn.Linear(pooled, options.embedding_dim)
        self.fc_norm = nn.BatchNorm1d(options.embedding_dim) if options.embedding_norm else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def levels(self) -> list[nn.Module]:
        """The published code's layer1 to layer4."""
        return [self.get_submodule(f"layer{i + 1}") for i in range(len(self.options.filters))]

    def forward(self, features: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(features.unsqueeze(1))))
        for level in self.levels:
            x = level(x)
        embedding: Tensor = self.fc_norm(self.fc(self.pooled_norm(self.pooling(x.mean(dim=2)))))
        return embedding

    @torch.no_grad()
    def folded(self) -> ResNetSE34L:
        """The published network that computes the same in evaluation: both norms become part of `fc`."""
        plain = ResNetSE34L(replace(self.options, embedding_norm=False))
        plain.load_state_dict(self.state_dict(), strict=False)  # all but the norms
        weight: Tensor = self.fc.weight
        bias: Tensor = self.fc.bias
        if isinstance(self.pooled_norm, nn.BatchNorm1d):
            scale, shift = _affine(self.pooled_norm)
            weight, bias = weight * scale, bias + weight @ shift
        if isinstance(self.fc_norm, nn.BatchNorm1d):
            scale, shift = _affine(self.fc_norm)
            weight, bias = weight * scale[:, None], bias * scale + shift
        plain.fc.weight.copy_(weight)
        plain.fc.bias.copy_(bias)
        return plain.train(self.training)


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """`scale` and `shift` of what a BatchNorm does in evaluation."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight / torch.sqrt(variance + norm.eps)
    return scale, norm.bias - mean * scale
