"""The mel front-end that a checkpoint holds: torchaudio's window and filterbank, and pre-emphasis."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sayso.models.errors import CheckpointError
from sayso.models.frontend import WIN_LENGTH

_BUFFER = re.compile(r"(?:\d+\.)?(flipped_filter|spectrogram\.window|mel_scale\.fb)")


def is_buffer(name: str, module: str) -> bool:
    """Return whether `name` is a tensor of the front-end `module`, which may be a sequence."""
    return name.startswith(f"{module}.") and _BUFFER.fullmatch(name[len(module) + 1 :]) is not None


def front_end_buffers(tensors: Mapping[str, Tensor], module: str) -> tuple[Tensor, Tensor, float]:
    """Return window `[400]`, filterbank `[257, mels]` and pre-emphasis coefficient (0 without one).

    `tensors` are those of the front-end, by their names in the file. Raises `CheckpointError`.
    """
    buffers = {}
    for name, tensor in tensors.items():
        match = _BUFFER.fullmatch(name[len(module) + 1 :])
        if match is None:
            raise CheckpointError(f"the checkpoint does not fit its front-end: unexpected {name}")
        buffers[match[1]] = tensor
    missing = [f"{module}.{n}" for n in ("spectrogram.window", "mel_scale.fb") if n not in buffers]
    if missing:
        raise CheckpointError(f"the front-end is not in the file: missing {', '.join(missing)}")
    window, filterbank = buffers["spectrogram.window"], buffers["mel_scale.fb"]
    if tuple(window.shape) != (WIN_LENGTH,):
        raise CheckpointError(
            f"{module}.spectrogram.window has shape {tuple(window.shape)}, expected ({WIN_LENGTH},)"
        )
    if filterbank.ndim != 2 or filterbank.shape[0] != 257 or not filterbank.numel():
        raise CheckpointError(
            f"{module}.mel_scale.fb has shape {tuple(filterbank.shape)}, expected (257, mels)"
        )
    kernel = buffers.get("flipped_filter")
    return window, filterbank, 0.0 if kernel is None else pre_emphasis(kernel, f"{module}.flipped_filter")


def pre_emphasis(kernel: Tensor, name: str) -> float:
    """Return the coefficient of the kernel `[[[-coefficient, 1]]]` under `name`. Raises `CheckpointError`."""
    if tuple(kernel.shape) != (1, 1, 2) or float(kernel[0, 0, 1]) != 1.0:
        raise CheckpointError(f"{name} is not a pre-emphasis kernel [[[-coefficient, 1]]]")
    return round(-float(kernel[0, 0, 0]), 6)


def window_name(window: Tensor) -> str:
    """Return what the window is called, `file` for one that has no name here."""
    for name, make in (("hamming", torch.hamming_window), ("hann", torch.hann_window)):
        if torch.allclose(window.float(), make(WIN_LENGTH), atol=1e-5):
            return name
    return "file"
