"""Front-ends, written so that the same arithmetic trains in PyTorch and runs inside ONNX.

The short-time Fourier transform is two matrix products instead of a complex FFT: every ONNX provider
has a fast one, and the exported graph then holds the training code itself. Folding each frame about
its middle halves them: a cosine sees only the even part of a frame, a sine only the odd one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SAMPLE_RATE = 16_000
N_FFT = 512
WIN_LENGTH = 400
HOP_LENGTH = 160
LOG_FLOOR = 1e-6
NORM_EPS = 1e-5  # torch.nn.InstanceNorm1d's default, which the published network uses
_HALF = WIN_LENGTH // 2
_BLOCK = math.gcd(_HALF, HOP_LENGTH)  # 40 samples: half a window is 5 blocks, a hop is 4


@dataclass(frozen=True)
class FrontEndOptions:
    """What a front-end was trained with.

    `kind` is `log-mel` (`LogMel`), `speechbrain-fbank` (`SpeechBrainFbank`) or `waveform` (`Waveform`,
    which has 0 `n_mels`). `sample_scale` multiplies the waveform first: 32768 for voxceleb_trainer
    checkpoints made before 2021-04-24, whose audio was int16-scaled. `log_input` is False for networks
    trained without it. The filters reach from `low_hz` to `high_hz`. Without `variance` only the mean
    over time is taken away.
    """

    n_mels: int = 40
    window: str = "hamming"
    pre_emphasis: float = 0.0
    sample_scale: float = 1.0
    log_input: bool = True
    kind: str = "log-mel"
    low_hz: float = 0.0
    high_hz: float = SAMPLE_RATE / 2
    variance: bool = True

    @property
    def name(self) -> str:
        """What a card calls it."""
        if self.kind != "log-mel":
            return self.kind
        band = (self.low_hz, self.high_hz)
        name = "log-mel" if band == (0.0, SAMPLE_RATE / 2) else f"log-mel {band[0]:g}-{band[1]:g} Hz"
        return name if self.variance else f"{name}, mean only"

    def to_dict(self) -> dict[str, Any]:
        """All that is written down; what came later is left out at its default.

        Cached features and checkpoints are named by this, and must keep their names.
        """
        later = {"kind": "log-mel", "low_hz": 0.0, "high_hz": SAMPLE_RATE / 2, "variance": True}
        return {name: v for name, v in asdict(self).items() if name not in later or v != later[name]}


def _mel_points(n_mels: int, low_hz: float, high_hz: float) -> Tensor:
    """`n_mels + 2` frequencies equally spaced on the HTK mel scale, in Hz, float64."""
    low, high = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (low_hz, high_hz))
    return 700.0 * (10.0 ** (torch.linspace(low, high, n_mels + 2, dtype=torch.float64) / 2595.0) - 1.0)


def mel_filterbank(n_mels: int, low_hz: float = 0.0, high_hz: float = SAMPLE_RATE / 2) -> Tensor:
    """Triangular HTK-mel filters without area normalisation, `[n_fft // 2 + 1, n_mels]`.

    The filterbank of torchaudio's `melscale_fbanks(norm=None, mel_scale="htk")`.
    """
    freqs = torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)
    points = _mel_points(n_mels, low_hz, high_hz)
    width = points[1:] - points[:-1]
    slopes = points[None, :] - freqs[:, None]
    falling = -slopes[:, :-2] / width[:-1]
    rising = slopes[:, 2:] / width[1:]
    return torch.clamp(torch.minimum(falling, rising), min=0.0).float()


def _dft_basis(n_fft: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine DFT rows `[200, n_fft // 2 + 1]` for the folded frame, phase counted from its middle.

    The 400-sample window sits in the middle of the frame. Where the phase is counted from does not
    change the power, so the basis covers the 400 samples alone.
    """
    n = torch.arange(_HALF, dtype=torch.float64) - (WIN_LENGTH - 1) / 2
    k = torch.arange(n_fft // 2 + 1, dtype=torch.float64)
    angle = 2.0 * math.pi * n[:, None] * k[None, :] / n_fft
    return torch.cos(angle).float(), torch.sin(angle).float()


def _half_frames(x: Tensor, frames: int) -> Tensor:
    """The first 200 samples of each 400-sample frame of `[batch, samples]`: `[batch, frames, 200]`."""
    blocks = x[:, : (frames - 1) * HOP_LENGTH + _HALF].reshape(x.shape[0], -1, _BLOCK)
    hop = HOP_LENGTH // _BLOCK
    parts = [blocks[:, i : i + (frames - 1) * hop + 1 : hop] for i in range(_HALF // _BLOCK)]
    return torch.cat(parts, dim=2)


class FrontEnd(nn.Module, ABC):
    """Waveform `[batch, samples]` in [-1, 1] at 16 kHz to what a network hears, `[batch, channels, length]`.

    `frame` is its FFT, window and hop in samples, as a card names them.
    """

    frame: tuple[int, int, int]

    def __init__(self, options: FrontEndOptions) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def min_samples(self, length: int) -> int:
        """Return the fewest samples that give `length` in time."""

    @abstractmethod
    def unnormalised(self, waveform: Tensor) -> Tensor:
        """`[batch, channels, frames]` before normalisation, a frame every 160 samples: what training caches.

        Crops of it normalise by themselves.
        """

    @abstractmethod
    def normalise(self, features: Tensor) -> Tensor:
        """Turn what is cached into what the network hears."""

    def forward(self, waveform: Tensor) -> Tensor:
        return self.normalise(self.unnormalised(waveform))

    def _prepared(self, waveform: Tensor) -> Tensor:
        """Scale and pre-emphasis; the second sample stands before the first."""
        scale, coefficient = self.options.sample_scale, self.options.pre_emphasis
        x = waveform * scale if scale != 1.0 else waveform
        if not coefficient:
            return x
        previous = F.pad(x.unsqueeze(1), (1, 0), mode="reflect").squeeze(1)[:, :-1]
        return x - coefficient * previous


class Waveform(FrontEnd):
    """The waveform itself, `[batch, 1, samples]`, for a network that learns its filters.

    Two samples are needed for the pre-emphasis. What is cached has the 160 samples of a frame for channels.
    """

    frame = (0, 0, 0)

    def min_samples(self, length: int) -> int:
        return max(2, length)

    def unnormalised(self, waveform: Tensor) -> Tensor:
        frames = waveform.shape[1] // HOP_LENGTH
        whole = self._prepared(waveform)[:, : frames * HOP_LENGTH]
        return whole.reshape(whole.shape[0], frames, HOP_LENGTH).transpose(1, 2)

    def normalise(self, features: Tensor) -> Tensor:
        return features.transpose(1, 2).reshape(features.shape[0], 1, -1)

    def forward(self, waveform: Tensor) -> Tensor:
        return self._prepared(waveform).unsqueeze(1)  # to the last sample, not to the last whole frame


class LogMel(FrontEnd):
    """Waveform `[batch, samples]` in [-1, 1] at 16 kHz to features `[batch, n_mels, frames]`.

    512-point FFT, 400-sample window, 160-sample hop, centred with reflected edges, power spectrum,
    HTK mel filters, log, then zero mean and unit variance over time per utterance and mel.
    `frames = samples // 160 + 1`; at least 201 samples are needed for the reflection.
    """

    frame, pad_mode = (N_FFT, WIN_LENGTH, HOP_LENGTH), "reflect"
    window: Tensor
    filterbank: Tensor
    cosines: Tensor
    sines: Tensor

    def __init__(self, options: FrontEndOptions) -> None:
        super().__init__(options)
        windows = {"hamming": torch.hamming_window, "hann": torch.hann_window}
        if options.window not in (*windows, "file"):
            raise ValueError(f"unknown window {options.window!r}: use one of {sorted(windows)}")
        make_window = windows.get(options.window, torch.hamming_window)
        self.register_buffer("window", make_window(WIN_LENGTH))
        self.register_buffer("filterbank", self._filterbank())
        cosines, sines = _dft_basis(self.frame[0])
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def use(self, window: Tensor, filterbank: Tensor) -> None:
        """Take window `[400]` and filterbank `[257, n_mels]` from a checkpoint."""
        self.window.copy_(window)
        self.filterbank.copy_(filterbank)

    def min_samples(self, length: int) -> int:
        return max(_HALF + 1, (length - 1) * HOP_LENGTH)

    def unnormalised(self, waveform: Tensor) -> Tensor:
        x = self._prepared(waveform)
        frames = x.shape[1] // HOP_LENGTH + 1
        x = F.pad(x.unsqueeze(1), (_HALF, _HALF), mode=self.pad_mode).squeeze(1)
        x = x[:, : (frames - 1) * HOP_LENGTH + WIN_LENGTH]
        # Reversed, frame by frame, the second halves are the first halves of the reversed signal.
        first = _half_frames(x, frames) * self.window[:_HALF]
        second = _half_frames(x.flip(1), frames).flip(1) * self.window[_HALF:].flip(0)
        real = torch.matmul(first + second, self.cosines)
        imag = torch.matmul(first - second, self.sines)
        mel = torch.matmul(real * real + imag * imag, self.filterbank).transpose(1, 2)
        return self._compressed(mel)

    def normalise(self, features: Tensor) -> Tensor:
        """Instance normalisation over time without affine terms (biased variance)."""
        centred = features - features.mean(dim=2, keepdim=True)
        if not self.options.variance:
            return centred
        variance = (centred * centred).mean(dim=2, keepdim=True)
        return centred / torch.sqrt(variance + NORM_EPS)

    def _filterbank(self) -> Tensor:
        return mel_filterbank(self.options.n_mels, self.options.low_hz, self.options.high_hz)

    def _compressed(self, mel: Tensor) -> Tensor:
        mel = mel + LOG_FLOOR
        return torch.log(mel) if self.options.log_input else mel


class SpeechBrainFbank(LogMel):
    """SpeechBrain's `Fbank` as its ECAPA-TDNN is fed: decibels, no more than 80 below the loudest value.

    400-point FFT, edges padded with zeros, and triangles that fall as wide as they rise. After
    speechbrain/processing/features.py.
    """

    frame, pad_mode = (WIN_LENGTH, WIN_LENGTH, HOP_LENGTH), "constant"

    def _filterbank(self) -> Tensor:
        freqs = torch.linspace(0, SAMPLE_RATE / 2, self.frame[0] // 2 + 1, dtype=torch.float64)
        points = _mel_points(self.options.n_mels, self.options.low_hz, self.options.high_hz)
        width = points[1:-1] - points[:-2]
        slopes = (freqs[:, None] - points[None, 1:-1]) / width
        return torch.clamp(1.0 - slopes.abs(), min=0.0).float()

    def _compressed(self, mel: Tensor) -> Tensor:
        decibels = 10.0 * torch.log10(mel.clamp(min=1e-10))
        return torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - 80.0)


FRONT_ENDS: dict[str, type[FrontEnd]] = {
    "log-mel": LogMel,
    "speechbrain-fbank": SpeechBrainFbank,
    "waveform": Waveform,
}


def front_end_of(options: FrontEndOptions) -> FrontEnd:
    """Build the front-end that `options.kind` names; raises `ValueError` for an unknown one."""
    if options.kind not in FRONT_ENDS:
        raise ValueError(f"unknown front-end {options.kind!r}: use one of {sorted(FRONT_ENDS)}")
    return FRONT_ENDS[options.kind](options)
