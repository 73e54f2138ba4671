"""ResNetSE34V2 and VGGVox as voxceleb_trainer publishes them, written again: the references.

They share nothing with `models/`. The project's own code was tried beside them.
"""

import torch
from models_published import Block, MelSpectrogram, PreEmphasis
from torch import Tensor, nn
from torch.nn import functional as F


def sap(x: Tensor, linear: nn.Linear, attention: Tensor) -> Tensor:
    """Self-attentive pooling of `[batch, frames, channels]`."""
    weight = F.softmax(torch.tanh(linear(x)) @ attention, dim=1)
    return (x * weight).sum(dim=1)


class ResNetSE34V2(nn.Module):
    def __init__(
        self,
        encoder: str = "ASP",
        n_out: int = 24,
        n_mels: int = 40,
        filters: tuple[int, ...] = (8, 16, 16, 24),
        log_input: bool = True,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.log_input = encoder, log_input
        self.torchfb = nn.Sequential(PreEmphasis(), MelSpectrogram(n_mels, torch.hamming_window))
        self.instancenorm = nn.InstanceNorm1d(n_mels)
        before = filters[0]
        self.conv1, self.bn1 = nn.Conv2d(1, before, 3, 1, 1), nn.BatchNorm2d(before)
        for i, (after, depth) in enumerate(zip(filters, (3, 4, 6, 3), strict=True)):
            first = Block(before, after, (2, 2) if i else 1)
            self.add_module(
                f"layer{i + 1}", nn.Sequential(first, *(Block(after, after, 1) for _ in range(depth - 1)))
            )
            before = after
        channels = before * (n_mels // 8)
        self.attention = nn.Sequential(
            nn.Conv1d(channels, 128, 1),
            nn.ReLU(),
            nn.BatchNorm1d(128),
            nn.Conv1d(128, channels, 1),
            nn.Softmax(dim=2),
        )
        self.fc = nn.Linear(channels * (2 if encoder == "ASP" else 1), n_out)

    def forward(self, waveform: Tensor) -> Tensor:
        x = self.torchfb(waveform) + 1e-6
        x = self.instancenorm(x.log() if self.log_input else x).unsqueeze(1)
        x = self.bn1(F.relu(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = x.reshape(len(x), -1, x.shape[-1])
        w = self.attention(x)
        pooled = (x * w).sum(dim=2)
        if self.encoder == "ASP":
            spread = ((x**2 * w).sum(dim=2) - pooled**2).clamp(min=1e-5).sqrt()
            pooled = torch.cat([pooled, spread], dim=1)
        return self.fc(pooled)


class VGGVox(nn.Module):
    def __init__(
        self,
        encoder: str = "SAP",
        n_out: int = 24,
        filters: tuple[int, ...] = (8, 12, 16, 12, 12, 16),
        log_input: bool = True,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.log_input = encoder, log_input
        layers: list[nn.Module] = []
        before = 1
        for after, convolution, pool in zip(
            filters,
            (((5, 7), (1, 2), 2), (5, 2, 1), (3, 1, 1), (3, 1, 1), (3, 1, 1), ((4, 1), 1, 0)),
            (((1, 3), (1, 2)), (3, 2), None, None, (3, 2), None),
            strict=True,
        ):
            layers += [nn.Conv2d(before, after, *convolution), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(*pool)] if pool else []
            before = after
        self.netcnn = nn.Sequential(*layers)
        if encoder == "SAP":
            self.sap_linear, self.attention = nn.Linear(before, before), nn.Parameter(torch.randn(before, 1))
        self.fc = nn.Linear(before, n_out)
        self.instancenorm = nn.InstanceNorm1d(40)
        self.torchfb = MelSpectrogram(40, torch.hann_window)  # torchaudio's default, as none is named

    def forward(self, waveform: Tensor) -> Tensor:
        x = self.torchfb(waveform) + 1e-6
        x = self.netcnn(self.instancenorm(x.log() if self.log_input else x).unsqueeze(1)).squeeze(2).mT
        return self.fc(sap(x, self.sap_linear, self.attention) if self.encoder == "SAP" else x.mean(dim=1))
