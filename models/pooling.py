"""Attentive pooling over time: `[batch, channels, frames]` to one vector an utterance."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentivePooling(nn.Module):
    """Self-attentive (SAP) or attentive statistics (ASP) pooling as voxceleb_trainer computes them.

    SAP (Cai et al. 2018, arXiv:1804.05160) is the attention-weighted mean; ASP (Okabe et al. 2018,
    arXiv:1803.10963) appends the weighted standard deviation, so its output has twice the channels.
    """

    KINDS = ("SAP", "ASP")

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        if kind not in self.KINDS:
            raise ValueError(f"unknown pooling {kind!r}: use one of {self.KINDS}")
        self.kind = kind
        self.out_channels = channels * (2 if kind == "ASP" else 1)
        self.linear = nn.Linear(channels, channels)
        self.attention = nn.Parameter(torch.empty(channels, 1))
        nn.init.xavier_normal_(self.attention)

    def forward(self, x: Tensor) -> Tensor:
        # Under bfloat16 autocast E[x^2] - mean^2 would cancel to noise, and its root's gradient explode.
        x = x.float().transpose(1, 2)
        weight = torch.softmax(torch.matmul(torch.tanh(self.linear(x)), self.attention), dim=1)
        mean = torch.sum(x * weight, dim=1)
        if self.kind == "SAP":
            return mean
        variance = torch.sum(x * x * weight, dim=1) - mean * mean
        return torch.cat([mean, torch.sqrt(variance.clamp(min=1e-5))], dim=1)
