"""RawNet3 of clovaai/voxceleb_trainer, on the waveform itself.

Jung et al. 2022, "Pushing the limits of raw waveform speaker recognition" (arXiv:2203.08488). Its first
layer is asteroid-filterbanks' `ParamSincFB` (Pariente et al. 2020, arXiv:1910.10400).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sayso.models.blocks import Res2Block
from sayso.models.frontend import SAMPLE_RATE
from sayso.models.pooling import ChannelPooling

_KERNEL, _STRIDE = 251, 10  # samples
_MIN_HZ = 50.0  # the lowest edge and the narrowest band


@dataclass(frozen=True)
class RawNet3Options:
    """Sizes; the defaults are those of the published checkpoint.

    `pooling` is ECA, a weight for every channel and frame, or ASP, one for every frame.
    """

    pooling: str = "ECA"
    embedding_dim: int = 256
    channels: int = 1024
    aggregated: int = 1536
    attention: int = 128
    scale: int = 8


class WaveformNorm(nn.Module):
    """Zero mean and unit variance of `[batch, 1, samples]` in 64 bits, then a learnt scale and shift."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=2, keepdim=True)
        # Not of the centred samples: ONNX Runtime would make a LayerNorm of that, which it lacks in 64 bits.
        variance = x.square().mean(dim=2, keepdim=True) - mean.square()
        scale = self.weight.to(x.dtype) / torch.sqrt(variance + 1e-4)
        return (x - mean) * scale + self.bias.to(x.dtype)


class SincFilters(nn.Module):
    """Band-pass filters with learnt edges: `[batch, 1, samples]` to `[batch, channels, frames]`.

    Each band has a cosine and a sine filter, 251 samples long, every 10 samples. The edges are in Hz.
    Samples and outputs have 64 bits, `weight` has 32, since the logarithm of a band's zero crossings
    magnifies what rounding leaves there: the embeddings of two runtimes would differ in the third digit.
    """

    window: Tensor
    time: Tensor
    fixed: Tensor | None = None

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = _KERNEL // 2
        low, high = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (30.0, SAMPLE_RATE / 2 - 2 * _MIN_HZ))
        edges = 700.0 * (10.0 ** (torch.linspace(low, high, channels // 2 + 1) / 2595.0) - 1.0)
        self.low_hz = nn.Parameter(edges[:-1, None])
        self.band_hz = nn.Parameter(edges.diff()[:, None])
        self.register_buffer("window", torch.hamming_window(_KERNEL, periodic=False)[:half])
        self.register_buffer("time", 2.0 * math.pi * torch.arange(-half, 0.0)[None] / SAMPLE_RATE)

    @property
    def weight(self) -> Tensor:
        """The filters, `[channels, 1, 251]`, computed in the order of the published code, to its last bit."""
        if self.fixed is not None:
            return self.fixed
        low = _MIN_HZ + self.low_hz.abs()
        high = (low + _MIN_HZ + self.band_hz.abs()).clamp(_MIN_HZ, SAMPLE_RATE / 2)
        band = high - low
        at_low, at_high = torch.matmul(low, self.time), torch.matmul(high, self.time)
        even = (torch.sin(at_high) - torch.sin(at_low)) / (self.time / 2) * self.window
        odd = (torch.cos(at_low) - torch.cos(at_high)) / (self.time / 2) * self.window
        cosines = torch.cat([even, 2 * band, even.flip(1)], dim=1) / (2 * band)
        sines = torch.cat([odd, torch.zeros_like(band), -odd.flip(1)], dim=1) / (2 * band)
        return torch.cat([cosines, sines]).unsqueeze(1)

    def fix(self) -> None:
        """Keep the filters as they are now: another runtime's sine would round otherwise."""
        self.fixed = self.weight.detach()

    def forward(self, x: Tensor) -> Tensor:
        # A matrix product of frames, which ONNX Runtime has in 64 bits, as it does not have convolutions.
        frames = (x.shape[2] - _KERNEL) // _STRIDE + 1
        hops = _KERNEL // _STRIDE
        blocks = x[:, 0, : (frames + hops - 1) * _STRIDE].reshape(x.shape[0], -1, _STRIDE)
        last = x[:, 0, hops * _STRIDE : (frames + hops - 1) * _STRIDE + 1 : _STRIDE]
        parts = [blocks[:, i : i + frames] for i in range(hops)]
        framed = torch.cat([*parts, last.unsqueeze(2)], dim=2)
        return torch.matmul(framed, self.weight.squeeze(1).t().to(x.dtype)).transpose(1, 2)


class MaxPool(nn.Module):
    """Max pooling over `frames`; PyTorch's own over one dimension exports with one length only."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x.unsqueeze(2), (1, self.frames)).squeeze(2)


class AFMS(nn.Module):
    """Alpha feature map scaling (Jung et al. 2020, RawNet2): `(x + alpha)` times a weight a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels, 1))
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.alpha) * torch.sigmoid(self.fc(x.mean(dim=2))).unsqueeze(2)


class RawBlock(Res2Block):
    """Res2Net's convolution, the input added, max pooling over `pool` frames, feature map scaling."""

    def __init__(self, inputs: int, outputs: int, dilation: int, scale: int, pool: int) -> None:
        super().__init__(inputs, outputs, dilation, scale)
        self.residual: nn.Module = nn.Identity()
        if inputs != outputs:
            self.residual = nn.Sequential(nn.Conv1d(inputs, outputs, 1, bias=False))
        self.pool = MaxPool(pool) if pool > 1 else nn.Identity()
        self.afms = AFMS(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.afms(self.pool(super().forward(x) + self.residual(x)))
        return out


class RawNet3(nn.Module):
    """Waveforms `[batch, 1, samples]`, pre-emphasised, to embeddings `[batch, embedding_dim]`.

    As `MainModel` of the published code sets it: filters in logarithms, less their mean over time; the
    third block hears the first two; the pooling hears the whole utterance; no BatchNorm on the embedding.
    """

    min_length = _KERNEL + 29 * _STRIDE  # samples that leave two frames, for a variance

    def __init__(self, options: RawNet3Options) -> None:
        super().__init__()
        if options.pooling not in ("ECA", "ASP"):
            raise ValueError(f"unknown pooling {options.pooling!r}: use ECA or ASP")
        if options.channels % 8:
            raise ValueError(f"RawNet3 takes a multiple of 8 channels, not {options.channels}")
        self.options = options
        channels, aggregated = options.channels, options.aggregated
        self.norm = WaveformNorm()
        self.filters = SincFilters(channels // 4)
        self.layer1 = RawBlock(channels // 4, channels, 2, options.scale, pool=5)
        self.layer2 = RawBlock(channels, channels, 3, options.scale, pool=3)
        self.layer3 = RawBlock(channels, channels, 4, options.scale, pool=1)
        self.mp3 = MaxPool(3)
        self.layer4 = nn.Conv1d(3 * channels, aggregated, 1)
        self.pooling = ChannelPooling(
            aggregated,
            options.attention,
            weights=1 if options.pooling == "ASP" else aggregated,
            tanh=False,
            limits=(1e-4, 1e4),
        )
        self.bn5 = nn.BatchNorm1d(2 * aggregated)
        self.fc6 = nn.Linear(2 * aggregated, options.embedding_dim)

    @property
    def levels(self) -> list[nn.Module]:
        """The three blocks."""
        return [self.layer1, self.layer2, self.layer3]

    def forward(self, waveform: Tensor) -> Tensor:
        with _without_autocast(waveform.device.type):
            bands = torch.log(self.filters(self.norm(waveform.double())).abs() + 1e-6).float()
            bands = bands - bands.mean(dim=2, keepdim=True)
        x1 = self.layer1(bands)
        x2 = self.layer2(x1)
        pooled = self.mp3(x1)
        x3 = self.layer3(pooled + x2)
        x = torch.relu(self.layer4(torch.cat([pooled, x2, x3], dim=1)))
        embedding: Tensor = self.fc6(self.bn5(self.pooling(x)))
        return embedding


def _without_autocast(device: str) -> AbstractContextManager[object]:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
