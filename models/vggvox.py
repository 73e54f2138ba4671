"""VGGVox, the VGG-M of clovaai/voxceleb_trainer (Nagrani, Chung, Zisserman 2017, arXiv:1706.08612)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sayso.models.pooling import AttentivePooling

N_MELS = 40  # the last convolution takes in the four frequencies that are left of them


@dataclass(frozen=True)
class VGGVoxOptions:
    """Sizes; the defaults are the published ones. `pooling` is SAP, or TAP: the mean over time."""

    pooling: str = "SAP"
    embedding_dim: int = 1024
    n_mels: int = N_MELS
    filters: tuple[int, ...] = (96, 256, 384, 256, 256, 512)


class VGGVox(nn.Module):
    """Normalised log-mel features `[batch, 40, frames]` to embeddings `[batch, embedding_dim]`."""

    min_length = 63  # frames, below which nothing is left to pool

    def __init__(self, options: VGGVoxOptions) -> None:
        super().__init__()
        if options.n_mels != N_MELS:
            raise ValueError(f"VGGVox takes {N_MELS} mels, not {options.n_mels}")
        if options.pooling not in ("SAP", "TAP"):
            raise ValueError(f"unknown pooling {options.pooling!r}: use SAP or TAP")
        self.options = options
        a, b, c, d, e, last = options.filters
        self.levels = nn.ModuleList(
            [
                _level(nn.Conv2d(1, a, (5, 7), (1, 2), padding=2), nn.MaxPool2d((1, 3), (1, 2))),
                _level(nn.Conv2d(a, b, 5, 2, padding=1), nn.MaxPool2d(3, 2)),
                _level(nn.Conv2d(b, c, 3, padding=1)),
                _level(nn.Conv2d(c, d, 3, padding=1)),
                _level(nn.Conv2d(d, e, 3, padding=1), nn.MaxPool2d(3, 2)),
                _level(nn.Conv2d(e, last, (4, 1))),
            ]
        )
        self.pooling = AttentivePooling("SAP", last) if options.pooling == "SAP" else nn.AdaptiveAvgPool1d(1)
        self.fc = nn.Linear(last, options.embedding_dim)

    def forward(self, features: Tensor) -> Tensor:
        x = features.unsqueeze(1)
        for level in self.levels:
            x = level(x)
        embedding: Tensor = self.fc(self.pooling(x.squeeze(2)).flatten(1))
        return embedding


def _level(convolution: nn.Conv2d, *pool: nn.Module) -> nn.Sequential:
    norm = nn.BatchNorm2d(convolution.out_channels)
    return nn.Sequential(convolution, norm, nn.ReLU(inplace=True), *pool)
