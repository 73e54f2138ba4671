"""Augmentation on features."""

from __future__ import annotations

import torch
from torch import Tensor


def spec_augment(
    features: Tensor, freq_mask: int, time_mask: int, masks: int, generator: torch.Generator
) -> Tensor:
    """SpecAugment (Park et al. 2019, arXiv:1904.08779) without time warping.

    `masks` bands of up to `freq_mask` mels and `masks` spans of up to `time_mask` frames are set to
    zero, the mean of normalised features `[batch, n_mels, frames]`; each example has its own.
    """
    batch, mels, frames = features.shape
    kept = []
    for size, widest in ((mels, freq_mask), (frames, time_mask)):
        position = torch.arange(size)
        keep = torch.ones(batch, size, dtype=torch.bool)
        for _ in range(masks):
            width = torch.randint(0, widest + 1, (batch, 1), generator=generator)
            first = (torch.rand(batch, 1, generator=generator) * (size - width + 1)).long()
            keep &= (position < first) | (position >= first + width)
        kept.append(keep.to(features.device))
    return features * kept[0].unsqueeze(2) * kept[1].unsqueeze(1)
