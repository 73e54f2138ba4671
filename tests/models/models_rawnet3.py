"""RawNet3 as voxceleb_trainer's `MainModel` builds it, written again: the reference.

It shares nothing with `models/`. It runs in 64 bits, all but pre-emphasis and filters: in 32 bits the
published code differs from itself in 64 by up to 3e-3, which the logarithm of the filters' zero crossings
makes of rounding.
The project's own code was tried beside it.
"""

import numpy as np
import torch
from models_published import PreEmphasis
from torch import Tensor, nn
from torch.nn import functional as F


class ParamSincFB(nn.Module):
    """asteroid-filterbanks' filters, in its order of steps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        mels = np.linspace(2595 * np.log10(1 + 30 / 700), 2595 * np.log10(1 + 7900 / 700), channels // 2 + 1)
        hertz = torch.tensor(700 * (10 ** (mels / 2595) - 1), dtype=torch.float32)
        self.low_hz_ = nn.Parameter(hertz[:-1].unsqueeze(1))
        self.band_hz_ = nn.Parameter(hertz.diff().unsqueeze(1))
        self.register_buffer("window_", torch.from_numpy(np.hamming(251)[:125]).float())
        self.register_buffer("n_", 2 * np.pi * (torch.arange(-125.0, 0.0).view(1, -1) / 16000.0))

    def filters(self) -> Tensor:
        low, band, n, window = (t.float() for t in (self.low_hz_, self.band_hz_, self.n_, self.window_))
        low = 50 + low.abs()
        high = (low + 50 + band.abs()).clamp(50, 8000)
        width = high - low
        left = {
            "cos": (torch.sin(high @ n) - torch.sin(low @ n)) / (n / 2) * window,
            "sin": (torch.cos(low @ n) - torch.cos(high @ n)) / (n / 2) * window,
        }
        middle = {"cos": 2 * width, "sin": 0 * width}
        sign = {"cos": 1, "sin": -1}
        parts = [torch.cat([left[k], middle[k], sign[k] * left[k].flip(1)], dim=1) for k in ("cos", "sin")]
        return torch.cat([part / (2 * width) for part in parts]).unsqueeze(1)


class Encoder(nn.Module):
    def __init__(self, filterbank: ParamSincFB) -> None:
        super().__init__()
        self.filterbank = filterbank

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.filterbank.filters().to(x.dtype), stride=10)


class AFMS(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha, self.fc = nn.Parameter(torch.rand(channels, 1)), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.alpha) * torch.sigmoid(self.fc(F.adaptive_avg_pool1d(x, 1).squeeze(2)))[:, :, None]


class Bottle2neck(nn.Module):
    def __init__(self, before: int, after: int, dilation: int, pool: int) -> None:
        super().__init__()
        width = after // 8
        self.conv1, self.bn1 = nn.Conv1d(before, after, 1), nn.BatchNorm1d(after)
        convs = [nn.Conv1d(width, width, 3, dilation=dilation, padding=dilation) for _ in range(7)]
        self.convs, self.bns = nn.ModuleList(convs), nn.ModuleList(nn.BatchNorm1d(width) for _ in convs)
        self.conv3, self.bn3 = nn.Conv1d(after, after, 1), nn.BatchNorm1d(after)
        self.afms, self.pool = AFMS(after), pool
        if before != after:
            self.residual = nn.Sequential(nn.Conv1d(before, after, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        groups = self.bn1(F.relu(self.conv1(x))).chunk(8, dim=1)
        out, last = [], torch.zeros_like(groups[0])
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=False):
            last = norm(F.relu(conv(last + group)))
            out.append(last)
        y = self.bn3(F.relu(self.conv3(torch.cat([*out, groups[7]], dim=1))))
        y = y + (self.residual(x) if hasattr(self, "residual") else x)
        return self.afms(F.max_pool1d(y, self.pool) if self.pool else y)


class RawNet3(nn.Module):
    """Raw embeddings `[batch, n_out]` in float32; `bn1` and `bn6` are in its files and never run."""

    def __init__(
        self, encoder: str = "ECA", n_out: int = 24, channels: int = 64, aggregated: int = 48
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.preprocess = nn.Sequential(PreEmphasis(), nn.InstanceNorm1d(1, eps=1e-4, affine=True))
        nn.init.constant_(self.preprocess[1].weight, 1.3)
        nn.init.constant_(self.preprocess[1].bias, -0.2)
        self.conv1, self.bn1 = Encoder(ParamSincFB(channels // 4)), nn.BatchNorm1d(channels // 4)
        self.layer1 = Bottle2neck(channels // 4, channels, 2, pool=5)
        self.layer2 = Bottle2neck(channels, channels, 3, pool=3)
        self.layer3 = Bottle2neck(channels, channels, 4, pool=0)
        self.layer4 = nn.Conv1d(3 * channels, aggregated, 1)
        self.attention = nn.Sequential(
            nn.Conv1d(3 * aggregated, 16, 1),
            nn.ReLU(),
            nn.BatchNorm1d(16),
            nn.Conv1d(16, aggregated if encoder == "ECA" else 1, 1),
            nn.Softmax(dim=2),
        )
        self.bn5, self.fc6 = nn.BatchNorm1d(2 * aggregated), nn.Linear(2 * aggregated, n_out)
        self.bn6 = nn.BatchNorm1d(n_out)
        self.double()

    def forward(self, waveform: Tensor) -> Tensor:
        emphasised = self.preprocess[0].float()(waveform).double().unsqueeze(1)
        x = (self.conv1(self.preprocess[1](emphasised)).abs() + 1e-6).log()
        x1 = self.layer1(x - x.mean(dim=2, keepdim=True))
        x2 = self.layer2(x1)
        x3 = self.layer3(F.max_pool1d(x1, 3) + x2)
        x = F.relu(self.layer4(torch.cat([F.max_pool1d(x1, 3), x2, x3], dim=1)))
        context = [x.mean(dim=2), x.var(dim=2).clamp(1e-4, 1e4).sqrt()]
        w = self.attention(torch.cat([x, *(c[:, :, None].repeat(1, 1, x.shape[2]) for c in context)], dim=1))
        mu = (x * w).sum(dim=2)
        sigma = ((x**2 * w).sum(dim=2) - mu**2).clamp(1e-4, 1e4).sqrt()
        return self.fc6(self.bn5(torch.cat([mu, sigma], dim=1))).float()

    def saved(self) -> dict[str, Tensor]:
        """Its tensors as a file holds them."""
        return {k: v.float() if v.is_floating_point() else v for k, v in self.state_dict().items()}
