"""ResNetSE34L as voxceleb_trainer publishes it, written again from its description: the reference.

It shares nothing with `models/`: its own front-end on `torch.stft`, its own blocks, and the published
parameter names, so that its `state_dict()` is what a checkpoint file of that project holds.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sayso.models.checkpoint import read_foreign
from sayso.models.network import SpeakerNetwork
from sayso.runtime.synthesis import synthetic_voice


def network_from(content: object, **flags: Any) -> SpeakerNetwork:
    """The network of a checkpoint that `torch.load` returned."""
    return read_foreign(content, **flags).network()


def waveforms(seconds: float = 1.5, batch: int = 2) -> Tensor:
    """Two voices and noise under each, `[batch, samples]`."""
    rng = np.random.default_rng(0)
    voices = [synthetic_voice(seconds, 110 + 60 * i, 0.9 + 0.1 * i, seed=i) for i in range(batch)]
    return torch.stack([torch.from_numpy(v + 0.01 * rng.standard_normal(len(v))).float() for v in voices])


def htk_triangles(n_mels: int, low: float = 0.0, high: float = 8000.0) -> Tensor:
    """Triangles between points equally spaced on the HTK mel scale, `[257, n_mels]`."""
    mels = np.linspace(*(2595 * np.log10(1 + hz / 700) for hz in (low, high)), n_mels + 2)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    bins = np.arange(257) * 16000 / 512
    columns = [np.interp(bins, hertz[i : i + 3], [0.0, 1.0, 0.0], left=0, right=0) for i in range(n_mels)]
    return torch.tensor(np.stack(columns, axis=1), dtype=torch.float32)


def enlivened(network: nn.Module, batch: int = 4) -> nn.Module:
    """`network` in evaluation, its BatchNorms those of voices, then moved: else all voices sound alike.

    What is learnt by training starts at the same value for every channel, which would hide a swap.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(waveforms(batch=batch))
        for norm in norms:
            norm.running_mean += 0.2 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
    return network.eval()


class Spectrogram(nn.Module):
    def __init__(self, window: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.register_buffer("window", window(400))

    def forward(self, waveform: Tensor) -> Tensor:
        transformed = torch.stft(
            waveform, 512, 160, 400, self.window, center=True, pad_mode="reflect", return_complex=True
        )
        return transformed.abs() ** 2


class MelScale(nn.Module):
    def __init__(self, n_mels: int, *band: float) -> None:
        super().__init__()
        self.register_buffer("fb", htk_triangles(n_mels, *band))

    def forward(self, power: Tensor) -> Tensor:
        return (power.transpose(1, 2) @ self.fb).transpose(1, 2)


class MelSpectrogram(nn.Module):
    """What torchaudio documents for `MelSpectrogram(n_fft=512, win_length=400, hop_length=160)`."""

    def __init__(self, n_mels: int, window: Callable[[int], Tensor], *band: float) -> None:
        super().__init__()
        self.spectrogram = Spectrogram(window)
        self.mel_scale = MelScale(n_mels, *band)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.mel_scale(self.spectrogram(waveform))


class PreEmphasis(nn.Module):
    def __init__(self, coefficient: float = 0.97) -> None:
        super().__init__()
        self.register_buffer("flipped_filter", torch.tensor([[[-coefficient, 1.0]]]))

    def forward(self, waveform: Tensor) -> Tensor:
        padded = F.pad(waveform.unsqueeze(1), (1, 0), "reflect")
        return F.conv1d(padded, self.flipped_filter).squeeze(1)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = channels // 8
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed), nn.ReLU(), nn.Linear(squeezed, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)).unflatten(1, (-1, 1, 1))


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int | tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.se = SqueezeExcite(after)
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(F.relu(self.conv1(x)))
        y = self.se(self.bn2(self.conv2(y)))
        return F.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Published(nn.Module):
    """Raw embeddings `[batch, n_out]` of waveforms; random weights and random BatchNorm statistics."""

    def __init__(
        self,
        encoder: str = "SAP",
        n_out: int = 512,
        n_mels: int = 40,
        filters: tuple[int, ...] = (16, 32, 64, 128),
        window: Callable[[int], Tensor] = torch.hamming_window,
        pre_emphasis: bool = False,
        log_input: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder, self.log_input = encoder, log_input
        mel = MelSpectrogram(n_mels, window)
        self.torchfb = nn.Sequential(PreEmphasis(), mel) if pre_emphasis else mel
        self.instancenorm = nn.InstanceNorm1d(n_mels)
        self.conv1 = nn.Conv2d(1, filters[0], 7, (2, 1), 3, bias=False)
        self.bn1 = nn.BatchNorm2d(filters[0])
        before = filters[0]
        for i, (after, blocks, stride) in enumerate(
            zip(filters, (3, 4, 6, 3), (1, (2, 2), (2, 2), (1, 1)), strict=True), start=1
        ):
            stage = [
                Block(before if j == 0 else after, after, stride if j == 0 else 1) for j in range(blocks)
            ]
            self.add_module(f"layer{i}", nn.Sequential(*stage))
            before = after
        self.sap_linear = nn.Linear(before, before)
        self.attention = nn.Parameter(torch.randn(before, 1))
        self.fc = nn.Linear(before * (2 if encoder == "ASP" else 1), n_out)
        enlivened(self, batch=2)
        with torch.no_grad():  # most of what voices share goes; without any of it, rounding would show
            self.fc.bias -= 0.7 * self(waveforms()).mean(dim=0)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.fc(self.pooled(waveform))

    def pooled(self, waveform: Tensor) -> Tensor:
        x = self.torchfb(waveform) + 1e-6
        x = self.instancenorm(x.log() if self.log_input else x).unsqueeze(1)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=2).transpose(1, 2)
        w = F.softmax(torch.tanh(self.sap_linear(x)) @ self.attention, dim=1)
        pooled = (x * w).sum(dim=1)
        if self.encoder == "ASP":
            spread = ((x**2 * w).sum(dim=1) - pooled**2).clamp(min=1e-5).sqrt()
            pooled = torch.cat([pooled, spread], dim=1)
        return pooled

    @torch.inference_mode()
    def directions(self, waveform: Tensor) -> Tensor:
        """Unit-length embeddings."""
        return F.normalize(self(waveform), dim=1)
