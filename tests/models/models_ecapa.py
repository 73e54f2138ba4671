"""ECAPA-TDNN as TaoRuijie/ECAPA-TDNN and SpeechBrain have it, written again: the references.

They share nothing with `models/`: front-ends on `torch.stft`, the projects' own parameter names, and
each its own order of groups, padding and statistics. The projects' own code was tried beside them.
"""

import math
from itertools import pairwise

import torch
from models_published import MelSpectrogram, PreEmphasis
from torch import Tensor, nn
from torch.nn import functional as F


def tdnn(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=(kernel - 1) // 2 * dilation)


class TaoSE(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool1d(1),
            tdnn(channels, squeezed),
            nn.ReLU(),
            tdnn(squeezed, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.se(x)


class TaoBlock(nn.Module):
    def __init__(self, channels: int, dilation: int, squeezed: int, scale: int = 8) -> None:
        super().__init__()
        width = channels // scale
        self.conv1, self.bn1 = tdnn(channels, channels), nn.BatchNorm1d(channels)
        self.convs = nn.ModuleList(tdnn(width, width, 3, dilation) for _ in range(scale - 1))
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(scale - 1))
        self.conv3, self.bn3 = tdnn(channels, channels), nn.BatchNorm1d(channels)
        self.se = TaoSE(channels, squeezed)

    def forward(self, x: Tensor) -> Tensor:
        groups = self.bn1(F.relu(self.conv1(x))).chunk(len(self.convs) + 1, dim=1)
        out, last = [], torch.zeros_like(groups[0])
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=False):
            last = norm(F.relu(conv(last + group)))
            out.append(last)
        y = self.bn3(F.relu(self.conv3(torch.cat([*out, groups[-1]], dim=1))))
        return self.se(y) + x


class Tao(nn.Module):
    """TaoRuijie's `ECAPA_TDNN`, whose files call it `speaker_encoder`."""

    def __init__(self, channels: int, aggregated: int = 48, squeezed: int = 8, n_out: int = 24) -> None:
        super().__init__()
        torch.manual_seed(0)
        mel = MelSpectrogram(80, torch.hamming_window, 20.0, 7600.0)
        self.torchfbank = nn.Sequential(PreEmphasis(), mel)
        self.conv1, self.bn1 = tdnn(80, channels, 5), nn.BatchNorm1d(channels)
        self.layer1, self.layer2, self.layer3 = (TaoBlock(channels, d, squeezed) for d in (2, 3, 4))
        self.layer4 = tdnn(3 * channels, aggregated)
        self.attention = nn.Sequential(
            tdnn(3 * aggregated, 16),
            nn.ReLU(),
            nn.BatchNorm1d(16),
            nn.Tanh(),
            tdnn(16, aggregated),
            nn.Softmax(dim=2),
        )
        self.bn5 = nn.BatchNorm1d(2 * aggregated)
        self.fc6, self.bn6 = nn.Linear(2 * aggregated, n_out), nn.BatchNorm1d(n_out)

    def forward(self, waveform: Tensor) -> Tensor:
        x = (self.torchfbank(waveform) + 1e-6).log()
        x = self.bn1(F.relu(self.conv1(x - x.mean(dim=-1, keepdim=True))))
        x1 = self.layer1(x)
        x2 = self.layer2(x + x1)
        x3 = self.layer3(x + x1 + x2)
        x = F.relu(self.layer4(torch.cat([x1, x2, x3], dim=1)))
        context = [x.mean(dim=2), x.var(dim=2).clamp(min=1e-4).sqrt()]
        heard = torch.cat([x, *(c[:, :, None].repeat(1, 1, x.shape[2]) for c in context)], dim=1)
        w = self.attention(heard)
        mu = (x * w).sum(dim=2)
        sigma = ((x**2 * w).sum(dim=2) - mu**2).clamp(min=1e-4).sqrt()
        return self.bn6(self.fc6(self.bn5(torch.cat([mu, sigma], dim=1))))


class Wrapped(nn.Module):
    """SpeechBrain wraps layers so that a name comes twice: `conv.conv`, `norm.norm`."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.get_submodule(self.name)
        if isinstance(layer, nn.Conv1d):
            reach = (layer.kernel_size[0] - 1) // 2 * layer.dilation[0]
            x = F.pad(x, (reach, reach), mode="reflect") if reach else x
        return layer(x)


def convolution(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> Wrapped:
    return Wrapped("conv", nn.Conv1d(inputs, outputs, kernel, dilation=dilation))


class TDNNBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs, kernel, dilation)
        self.norm = Wrapped("norm", nn.BatchNorm1d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.conv(x)))


class Res2Net(nn.Module):
    def __init__(self, channels: int, dilation: int, scale: int = 8) -> None:
        super().__init__()
        width = channels // scale
        self.blocks = nn.ModuleList(TDNNBlock(width, width, 3, dilation) for _ in range(scale - 1))

    def forward(self, x: Tensor) -> Tensor:
        first, *groups = x.chunk(len(self.blocks) + 1, dim=1)
        out = [first]
        for i, (group, block) in enumerate(zip(groups, self.blocks, strict=True)):
            out.append(block(group + out[-1] if i else group))
        return torch.cat(out, dim=1)


class SEBlock(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = convolution(channels, squeezed), convolution(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean(dim=2, keepdim=True)
        return torch.sigmoid(self.conv2(F.relu(self.conv1(s)))) * x


class SERes2Net(nn.Module):
    def __init__(self, channels: int, dilation: int, squeezed: int) -> None:
        super().__init__()
        self.tdnn1, self.tdnn2 = TDNNBlock(channels, channels), TDNNBlock(channels, channels)
        self.res2net_block = Res2Net(channels, dilation)
        self.se_block = SEBlock(channels, squeezed)

    def forward(self, x: Tensor) -> Tensor:
        return self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x)))) + x


class StatisticsPooling(nn.Module):
    def __init__(self, channels: int, attention: int) -> None:
        super().__init__()
        self.tdnn, self.conv = TDNNBlock(3 * channels, attention), convolution(attention, channels)

    def forward(self, x: Tensor) -> Tensor:
        even = torch.full_like(x[:, :1], 1.0 / x.shape[2])
        heard = torch.cat([x, *(s.unsqueeze(2).expand_as(x) for s in self.statistics(x, even))], dim=1)
        weight = F.softmax(self.conv(torch.tanh(self.tdnn(heard))), dim=2)
        return torch.cat(self.statistics(x, weight), dim=1)

    @staticmethod
    def statistics(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        mean = (weight * x).sum(dim=2)
        return mean, (weight * (x - mean.unsqueeze(2)) ** 2).sum(dim=2).clamp(1e-12).sqrt()


def fbank(waveform: Tensor, n_mels: int = 80) -> Tensor:
    """`Fbank(n_mels=80)`: `[batch, n_mels, frames]` in decibels."""
    stft = torch.stft(
        waveform,
        400,
        160,
        400,
        torch.hamming_window(400),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    mels = torch.linspace(0, 2595 * math.log10(1 + 8000 / 700), n_mels + 2)
    hertz = [700 * (10 ** (mel / 2595) - 1) for mel in mels]
    bins = torch.arange(201) * 40.0
    # As wide on the right of the centre as on its left.
    filters = [
        (1 - (bins - centre).abs() / (centre - left)).clamp(min=0) for left, centre in pairwise(hertz[:-1])
    ]
    power = torch.einsum("bft,mf->bmt", stft.abs() ** 2, torch.stack(filters))
    decibels = 10 * torch.log10(power.clamp(min=1e-10))
    return torch.stack([x.clamp(min=float(x.max()) - 80) for x in decibels])


class SpeechBrain(nn.Module):
    """SpeechBrain's `ECAPA_TDNN`, fed as its VoxCeleb recipe feeds it."""

    def __init__(self, channels: int, aggregated: int = 48, squeezed: int = 8, n_out: int = 24) -> None:
        super().__init__()
        torch.manual_seed(0)
        blocks = [SERes2Net(channels, dilation, squeezed) for dilation in (2, 3, 4)]
        self.blocks = nn.ModuleList([TDNNBlock(80, channels, 5), *blocks])
        self.mfa = TDNNBlock(3 * channels, aggregated)
        self.asp = StatisticsPooling(aggregated, 16)
        self.asp_bn = Wrapped("norm", nn.BatchNorm1d(2 * aggregated))
        self.fc = convolution(2 * aggregated, n_out)

    def forward(self, waveform: Tensor) -> Tensor:
        x = fbank(waveform)
        x = x - x.mean(dim=2, keepdim=True)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        pooled = self.asp_bn(self.asp(self.mfa(torch.cat(outputs[1:], dim=1))))
        return self.fc(pooled.unsqueeze(2)).squeeze(2)
