"""Kaldi's filterbank features as matrix products, so that they can be put into a graph.

The arithmetic is that of Kaldi's `compute-fbank-feats` (feature-window.cc, mel-computations.cc) at its
defaults for 16 kHz, without dither. WeSpeaker and 3D-Speaker feed their networks by torchaudio's
`compliance.kaldi.fbank`, which is the same.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sayso.models.frontend import HOP_LENGTH, N_FFT, SAMPLE_RATE, WIN_LENGTH
from sayso.models.kaldi import kaldi_fbank

PRE_EMPHASIS = 0.97
_LOW_HZ = 20.0
_LEAST_ENERGY = 1.1920928955078125e-07  # float32's epsilon, as Kaldi floors
_BLOCK = math.gcd(WIN_LENGTH, HOP_LENGTH)  # 80 samples: a window is 5 blocks, a hop is 2

Window = Literal["povey", "hamming"]


@dataclass(frozen=True)
class KaldiOptions:
    """Which filterbank a network was trained on; `sample_scale` multiplies samples in [-1, 1] first."""

    n_mels: int = 80
    window: Window = "povey"
    sample_scale: float = 32768.0

    @classmethod
    def parse(cls, name: str, window: Window, sample_scale: float) -> KaldiOptions:
        """Read a front-end's name, such as `kaldi-fbank80`; raises `ValueError` for another one."""
        match = re.fullmatch(r"kaldi-fbank(\d{2,3})", name)
        if match is None or not 20 <= int(match[1]) <= 128:
            raise ValueError(f"no front-end {name!r}: there is kaldi-fbank80, with 20 to 128 for the mels")
        return cls(int(match[1]), window, sample_scale)

    @property
    def name(self) -> str:
        return f"kaldi-fbank{self.n_mels}"

    def features(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute `[frames, n_mels]` with kaldi-native-fbank, which `KaldiFbank` is measured against."""
        return kaldi_fbank(x, self.n_mels, self.window, self.sample_scale)


class KaldiFbank(nn.Module):
    """Waveform `[batch, samples]` in [-1, 1] at 16 kHz to `[batch, frames, n_mels]`, centred over time.

    `frames = (samples - 400) // 160 + 1`; at least 400 samples are needed. Taking the mean off a frame is
    done by itself, so that constant input stays zero; pre-emphasis, window and DFT are one matrix.
    """

    basis: Tensor
    filterbank: Tensor

    def __init__(self, options: KaldiOptions) -> None:
        super().__init__()
        self.bins = N_FFT // 2  # Kaldi leaves the last bin, half the sample rate, out
        self.register_buffer("basis", _basis(options), persistent=False)
        self.register_buffer("filterbank", _mel_filterbank(options.n_mels), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        frames = (waveform.shape[1] - WIN_LENGTH) // HOP_LENGTH + 1
        per_window, per_hop = WIN_LENGTH // _BLOCK, HOP_LENGTH // _BLOCK
        last = (frames - 1) * per_hop
        blocks = waveform[:, : (last + per_window) * _BLOCK].reshape(waveform.shape[0], -1, _BLOCK)
        x = torch.cat([blocks[:, i : i + last + 1 : per_hop] for i in range(per_window)], dim=2)
        spectrum = torch.matmul(x - x.mean(dim=2, keepdim=True), self.basis)
        real, imag = spectrum[:, :, : self.bins], spectrum[:, :, self.bins :]
        energies = torch.matmul(real * real + imag * imag, self.filterbank)
        features = torch.log(torch.clamp(energies, min=_LEAST_ENERGY))
        return features - features.mean(dim=1, keepdim=True)


def _basis(options: KaldiOptions) -> Tensor:
    """`[400, 2 * 256]`: scale, pre-emphasis within the frame, window, then cosines and sines."""
    n = torch.arange(WIN_LENGTH, dtype=torch.float64)
    turn = 2.0 * math.pi * n / (WIN_LENGTH - 1)
    if options.window == "povey":
        window = (0.5 - 0.5 * torch.cos(turn)) ** 0.85
    else:
        window = 0.54 - 0.46 * torch.cos(turn)
    emphasis = torch.eye(WIN_LENGTH, dtype=torch.float64)  # row: sample in, column: sample out
    emphasis[n[:-1].long(), n[1:].long()] = -PRE_EMPHASIS
    emphasis[0, 0] -= PRE_EMPHASIS  # before the first sample Kaldi sees the first sample again
    angle = 2.0 * math.pi * n[:, None] * torch.arange(N_FFT // 2, dtype=torch.float64) / N_FFT
    dft = torch.cat([torch.cos(angle), torch.sin(angle)], dim=1)
    return (options.sample_scale * emphasis @ (window[:, None] * dft)).float()


def _mel_filterbank(n_mels: int) -> Tensor:
    """`[256, n_mels]`: triangles from 20 Hz to 8 kHz, straight in Kaldi's mel (1127 ln(1 + f / 700))."""

    def mel(hz: Tensor) -> Tensor:
        return 1127.0 * torch.log(1.0 + hz / 700.0)

    bins = mel(torch.arange(N_FFT // 2, dtype=torch.float64) * SAMPLE_RATE / N_FFT)[:, None]
    ends = mel(torch.tensor([_LOW_HZ, SAMPLE_RATE / 2], dtype=torch.float64))
    points = torch.linspace(float(ends[0]), float(ends[1]), n_mels + 2, dtype=torch.float64)
    left, centre, right = points[:-2], points[1:-1], points[2:]
    triangles = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return torch.clamp(triangles, min=0.0).float()
