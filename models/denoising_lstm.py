"""DenoisingLSTM: the encoder of a denoising autoencoder, an LSTM on its code, attentive pooling.

The study that Sayso answers named it as its next step. The idea is the study's: an autoencoder that is
pre-trained for robustness against noise, in front of an LSTM with attentive pooling. The sizes are ours,
near the 1.5 M parameters of the study's other networks (its repository sketches one of about 3.9 M): two
convolutions for the encoder, two bidirectional layers of 160 cells, ASP. So is the pre-training, which is a
stage of the recipe (`train/denoising.py`); its decoder is thrown away with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sayso.models.pooling import AttentivePooling


@dataclass(frozen=True)
class DenoisingLSTMOptions:
    """Sizes; `code` is the width of the autoencoder's code, `cells` that of each direction of the LSTM."""

    pooling: str = "ASP"
    embedding_dim: int = 512
    n_mels: int = 80
    code: int = 128
    cells: int = 160
    layers: int = 2


class DenoisingLSTM(nn.Module):
    """Normalised log-mel features `[batch, n_mels, frames]` to embeddings `[batch, embedding_dim]`.

    `encoder` gives the code, `[batch, code, frames]`.
    """

    def __init__(self, options: DenoisingLSTMOptions) -> None:
        super().__init__()
        self.options = options
        self.encoder = nn.Sequential(
            nn.Conv1d(options.n_mels, options.code, 5, padding=2),
            nn.BatchNorm1d(options.code),
            nn.ReLU(),
            nn.Conv1d(options.code, options.code, 3, padding=1),
            nn.BatchNorm1d(options.code),
            nn.ReLU(),
        )
        self.lstm = nn.LSTM(options.code, options.cells, options.layers, batch_first=True, bidirectional=True)
        self.pooling = AttentivePooling(options.pooling, 2 * options.cells)
        self.fc = nn.Linear(self.pooling.out_channels, options.embedding_dim)

    @property
    def levels(self) -> list[nn.Module]:
        """The encoder alone: the LSTM's layers are one module."""
        return [self.encoder]

    def forward(self, features: Tensor) -> Tensor:
        heard, _ = self.lstm(self.encoder(features).transpose(1, 2))
        embedding: Tensor = self.fc(self.pooling(heard.transpose(1, 2)))
        return embedding
