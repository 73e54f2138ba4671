"""Kaldi's filterbank features as kaldi-native-fbank computes them, for networks that were trained on them."""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np
from numpy.typing import NDArray

from sayso.models.frontend import SAMPLE_RATE


def kaldi_fbank(
    x: NDArray[np.float32], n_mels: int = 80, window: str = "povey", sample_scale: float = 32768.0
) -> NDArray[np.float32]:
    """`[frames, n_mels]` of one recording in [-1, 1] at 16 kHz, without dither, centred over time."""
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = window
    options.mel_opts.num_bins = n_mels
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(SAMPLE_RATE, x * np.float32(sample_scale))
    bank.input_finished()
    features = np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)]).astype(np.float32)
    centred: NDArray[np.float32] = features - features.mean(axis=0)
    return centred
