"""Attentive pooling over time: `[batch, channels, frames]` to one vector an utterance."""

from __future__ import annotations

import math

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


class ChannelPooling(nn.Module):
    """Attentive statistics with a weight for every channel (ECAPA-TDNN, arXiv:2005.07143).

    `[batch, channels, frames]` to weighted means and standard deviations `[batch, 2 * channels]`, or
    to the means alone where the `kind` is SAP. With
    `context` the attention hears the utterance's mean and standard deviation beside each frame.
    `attention` is conv1x1-ReLU-BatchNorm-(Tanh)-conv1x1-softmax with `hidden` channels; `weights` is 1
    for one weight a frame, as in ASP. Variances are kept within `limits`. The context's variance is
    divided by frames - 1 where it is `unbiased`, so two frames are needed then.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        kind: str = "ASP",
        weights: int | None = None,
        context: bool = True,
        tanh: bool = True,
        limits: tuple[float, float] = (1e-4, math.inf),
        unbiased: bool = True,
    ) -> None:
        super().__init__()
        if kind not in AttentivePooling.KINDS:
            raise ValueError(f"unknown pooling {kind!r}: use one of {AttentivePooling.KINDS}")
        self.kind, self.context, self.limits, self.unbiased = kind, context, limits, unbiased
        self.out_channels = channels * (2 if kind == "ASP" else 1)
        self.attention = nn.Sequential(
            nn.Conv1d(channels * (3 if context else 1), hidden, 1),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            *([nn.Tanh()] if tanh else []),
            nn.Conv1d(hidden, weights or channels, 1),
            nn.Softmax(dim=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()  # variances would cancel to noise in bfloat16
        heard = x
        if self.context:
            mean = x.mean(dim=2, keepdim=True)
            square = (x - mean).square()
            frames = x.shape[2] - 1 if self.unbiased else x.shape[2]
            spread = self._root(square.sum(dim=2, keepdim=True) / frames)
            heard = torch.cat([x, mean.expand_as(x), spread.expand_as(x)], dim=1)
        weight = self.attention(heard).float()
        mean = torch.sum(x * weight, dim=2)
        if self.kind == "SAP":
            return mean
        variance = torch.sum((x - mean.unsqueeze(2)).square() * weight, dim=2)
        return torch.cat([mean, self._root(variance)], dim=1)

    def _root(self, variance: Tensor) -> Tensor:
        low, high = self.limits
        return torch.sqrt(variance.clamp(min=low, max=high))
