"""NestedSpeakerNet: every level sees all earlier levels, not only the one before it.

Level k takes level k-1's output plus an aggregate of all earlier levels, each aligned in space and
brought to its width by a 1x1 convolution of its own. `variant` says how the aggregate is made: the
three ways of the study that Sayso answers, and the fix that it named and did not try.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sayso.models.blocks import SELayer
from sayso.models.pooling import AttentivePooling

Stride = tuple[int, int]
STUDY_PARAMETERS = 1_620_000


@dataclass(frozen=True)
class Variant:
    """How earlier levels are aggregated.

    `normed` puts a BatchNorm after each source's projection; `scale` is fixed, or None for a
    learnt sigmoid gate that starts at `gate` (before the sigmoid).
    """

    last_level: int | None = None
    scale: float | None = 0.5
    gate: float = 0.0
    groups: int = 0
    bilinear: bool = True
    normed: bool = False
    dropout: float = 0.0


# Levels are counted from 0. The study's `deep` nests its second and third level only; `gated-batchnorm` is
# not the study's: it tells what `gated` owes to GroupNorm.
VARIANTS = {
    "full": Variant(),
    "gated": Variant(scale=None, groups=8, bilinear=False, dropout=0.1),
    "gated-batchnorm": Variant(scale=None, bilinear=False, dropout=0.1),
    "deep": Variant(last_level=2),
    "per-source": Variant(scale=None, gate=-2.0, bilinear=False, normed=True),
}


@dataclass(frozen=True)
class NestedOptions:
    """Sizes; `study_options` gives the study's. `channels` is the stem's width, then each level's.

    `stem_stride` and `strides` are (frequency, time); `strides[k]` is taken at the start of level
    k + 1. Without `previous`, level k-1 comes into level k as it is and is not a source as well.
    `excitation` puts squeeze-and-excitation into every `block`, or once after the `fusion` of all
    levels, where it costs next to nothing. `collapse` takes each level's frequencies to one value a
    channel and frame: `mean`, or `depthwise`, a learnt weighting for every channel. `embedding_norm`
    is a BatchNorm on the pooled statistics and another on the embedding.
    """

    variant: str = "per-source"
    pooling: str = "ASP"
    embedding_dim: int = 512
    n_mels: int = 80
    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    blocks: tuple[int, ...] = (1, 1, 1, 1)
    stem_stride: Stride = (1, 1)
    strides: tuple[Stride, ...] = ((2, 2), (2, 2), (2, 2))
    previous: bool = True
    fusion: int = 512
    reduction: int = 8
    excitation: str = "block"
    collapse: str = "mean"
    embedding_norm: bool = False


def _norm(groups: int, channels: int) -> nn.Module:
    return nn.GroupNorm(groups, channels) if groups else nn.BatchNorm2d(channels)


class DepthwiseSeparable(nn.Module):
    """Depthwise 3x3, pointwise 1x1 (MobileNet, arXiv:1704.04861), squeeze-and-excitation, shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: Stride, groups: int, reduction: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        self.norm1 = _norm(groups, inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm2 = _norm(groups, outputs)
        self.se = SELayer(outputs, outputs // reduction) if reduction else nn.Identity()
        self.shortcut = inputs == outputs and stride == (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.norm1(self.depthwise(x)))
        out = self.se(self.norm2(self.pointwise(out)))
        return torch.relu(out + x if self.shortcut else out)


class Source(nn.Module):
    """One earlier level on its way into a later one."""

    def __init__(self, variant: Variant, inputs: int, outputs: int, ratio: Stride) -> None:
        super().__init__()
        self.ratio, self.bilinear, self.scale = ratio, variant.bilinear, variant.scale
        self.project = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs) if variant.normed else nn.Identity()
        self.gate = nn.Parameter(torch.tensor(variant.gate)) if variant.scale is None else None

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        if self.bilinear:
            x = F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
        elif self.ratio != (1, 1):
            # Adaptive pooling, up to the last column: fixed windows also export with any duration.
            x = F.avg_pool2d(x, self.ratio, ceil_mode=True, count_include_pad=False)
        weight = self.scale if self.gate is None else torch.sigmoid(self.gate)
        projected: Tensor = self.norm(self.project(x)) * weight
        return projected


class Collapse(nn.Module):
    """`[batch, channels, frequencies, frames]` to `[batch, channels, frames]`."""

    def __init__(self, kind: str, channels: int, frequencies: int) -> None:
        super().__init__()
        if kind not in ("mean", "depthwise"):
            raise ValueError(f"unknown collapse {kind!r}: use mean or depthwise")
        self.weight: nn.Conv2d | None = None
        if kind == "depthwise":
            self.weight = nn.Conv2d(channels, channels, (frequencies, 1), groups=channels, bias=False)
            nn.init.normal_(self.weight.weight, 1.0 / frequencies, 0.5 / frequencies)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=2) if self.weight is None else self.weight(x).squeeze(2)


class NestedSpeakerNet(nn.Module):
    """Normalised log-mel features `[batch, n_mels, frames]` to embeddings `[batch, embedding_dim]`."""

    def __init__(self, options: NestedOptions) -> None:
        super().__init__()
        if options.variant not in VARIANTS:
            raise ValueError(f"unknown variant {options.variant!r}: use one of {', '.join(VARIANTS)}")
        levels = len(options.channels) - 1
        if len(options.blocks) != levels or len(options.strides) != levels - 1:
            raise ValueError(f"{levels} levels need {levels} blocks and {levels - 1} strides")
        if options.excitation not in ("block", "fusion"):
            raise ValueError(f"unknown excitation {options.excitation!r}: use block or fusion")
        self.options, self.variant = options, VARIANTS[options.variant]
        groups, stem = self.variant.groups, options.channels[0]
        # Wide enough to see every input at any stride: 3 for 1, 5 for 2, 9 for 4.
        kernel = (2 * options.stem_stride[0] + 1, 2 * options.stem_stride[1] + 1)
        self.stem = nn.Conv2d(1, stem, kernel, options.stem_stride, padding=options.stem_stride, bias=False)
        self.stem_norm = _norm(groups, stem)
        self.levels, self.sources = nn.ModuleList(), nn.ModuleList()
        self.collapses = nn.ModuleList()
        strides = ((1, 1), *options.strides)
        frequencies = -(-options.n_mels // options.stem_stride[0])
        for k, (inputs, outputs) in enumerate(zip(options.channels, options.channels[1:], strict=False)):
            self.sources.append(self._sources_of(k, strides))
            reduction = options.reduction if options.excitation == "block" else 0
            blocks = [DepthwiseSeparable(inputs, outputs, strides[k], groups, reduction)]
            for _ in range(options.blocks[k] - 1):
                blocks.append(DepthwiseSeparable(outputs, outputs, (1, 1), groups, reduction))
            self.levels.append(nn.Sequential(*blocks))
            frequencies = -(-frequencies // strides[k][0])
            self.collapses.append(Collapse(options.collapse, outputs, frequencies))
        self.steps = [math.prod(s[1] for s in strides[k + 1 :]) for k in range(levels)]
        self.dropout = nn.Dropout2d(self.variant.dropout)
        self.fusion = nn.Conv1d(sum(options.channels[1:]), options.fusion, 1, bias=False)
        self.fusion_norm = nn.BatchNorm1d(options.fusion)
        self.excitation = (
            SELayer(options.fusion, options.fusion // options.reduction)
            if options.excitation == "fusion"
            else None
        )
        self.pooling = AttentivePooling(options.pooling, options.fusion)
        pooled = self.pooling.out_channels
        self.pooled_norm = nn.BatchNorm1d(pooled) if options.embedding_norm else nn.Identity()
        self.fc = nn.Linear(pooled, options.embedding_dim)
        self.fc_norm = nn.BatchNorm1d(options.embedding_dim) if options.embedding_norm else nn.Identity()

    def _sources_of(self, k: int, strides: tuple[Stride, ...]) -> nn.ModuleList:
        """Projections of levels 0 .. k-1 to what level k takes in, at level k-1's resolution."""
        v = self.variant
        if v.last_level is not None and k > v.last_level:
            return nn.ModuleList()
        widths = self.options.channels
        earlier = range(k if self.options.previous else k - 1)
        return nn.ModuleList(
            Source(
                v,
                widths[j + 1],
                widths[k],
                (math.prod(s[0] for s in strides[j + 1 : k]), math.prod(s[1] for s in strides[j + 1 : k])),
            )
            for j in earlier
        )

    def forward(self, features: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(features.unsqueeze(1))))
        outputs: list[Tensor] = []
        for level, sources in zip(self.levels, self.sources, strict=True):
            for source, earlier in zip(sources.children(), outputs, strict=False):
                x = x + source(earlier, outputs[-1])
            x = self.dropout(level(x))
            outputs.append(x)
        seen = []
        for k, (collapse, output) in enumerate(zip(self.collapses, outputs, strict=True)):
            seen.append(self._align(k, collapse(output)))
        fused = torch.relu(self.fusion_norm(self.fusion(torch.cat(seen, dim=1))))
        if self.excitation is not None:
            fused = self.excitation(fused.unsqueeze(2)).squeeze(2)
        embedding: Tensor = self.fc_norm(self.fc(self.pooled_norm(self.pooling(fused))))
        return embedding

    def _align(self, level: int, x: Tensor) -> Tensor:
        step = self.steps[level]
        return F.avg_pool1d(x, step, ceil_mode=True, count_include_pad=False) if step > 1 else x


def study_options(variant: str, pooling: str, levels: int) -> NestedOptions:
    """The study's sizes: 80 mels, level k at 1 / 2^(k-1) of 80 x 301, and 1.62M parameters.

    The study does not say how wide its fusion was; it is what brings the network to its size.
    """
    widths = {4: (32, 64, 128, 256, 512), 5: (32, 32, 64, 128, 256, 512)}
    if levels not in widths:
        raise ValueError(f"the study had networks of {sorted(widths)} levels, not {levels}")

    def options(fusion: int) -> NestedOptions:
        return NestedOptions(
            variant=variant,
            pooling=pooling,
            channels=widths[levels],
            blocks=(1,) * levels,
            strides=((2, 2),) * (levels - 1),
            fusion=fusion,
        )

    def miss(fusion: int) -> int:
        with torch.device("meta"):
            network = NestedSpeakerNet(options(fusion))
        return abs(sum(p.numel() for p in network.parameters()) - STUDY_PARAMETERS)

    return options(min(range(128, 1024, 8), key=miss))
