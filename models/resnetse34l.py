"""ResNetSE34L, the "baseline": the light SE-ResNet of clovaai/voxceleb_trainer.

Chung et al. 2020, "In defence of metric learning for speaker recognition" (arXiv:2003.11982).
Parameter names follow the published code, so that its checkpoints map one to one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sayso.models.blocks import SEResNet
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


class ResNetSE34L(SEResNet):
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
        self._add_stages(options.filters, options.blocks, self.STRIDES, options.reduction)
        self.pooling = AttentivePooling(options.pooling, last)
        pooled = self.pooling.out_channels
        self.pooled_norm = nn.BatchNorm1d(pooled) if options.embedding_norm else nn.Identity()
        self.fc = nn.Linear(pooled, options.embedding_dim)
        self.fc_norm = nn.BatchNorm1d(options.embedding_dim) if options.embedding_norm else nn.Identity()
        self._init_convolutions()

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
