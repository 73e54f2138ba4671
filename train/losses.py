"""Training objectives; all computed in float32 whatever the network ran in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AAMSoftmax(nn.Module):
    """Additive angular margin softmax (Deng et al. 2019, arXiv:1801.07698) over training speakers.

    The sine's square is kept at `sine_floor` and above: at a floor of 0, as in published code, the
    gradient of its root is infinite at cos = 1 and NaN just above, which rounding reaches.
    """

    def __init__(self, embedding_dim: int, speakers: int, scale: float, sine_floor: float = 1e-7) -> None:
        super().__init__()
        self.scale, self.sine_floor = scale, sine_floor
        self.weight = nn.Parameter(torch.empty(speakers, embedding_dim))
        nn.init.xavier_normal_(self.weight)

    def forward(self, embedding: Tensor, speaker: Tensor, margin: float) -> Tensor:
        """Mean loss of embeddings `[batch, dim]` against speaker numbers `[batch]`."""
        cosine = F.linear(F.normalize(embedding.float()), F.normalize(self.weight))
        sine = torch.sqrt((1.0 - cosine * cosine).clamp(min=self.sine_floor))
        angle = torch.tensor(margin)
        shifted = cosine * torch.cos(angle) - sine * torch.sin(angle)
        # Past pi - margin the shifted cosine would rise again: continue it linearly instead.
        shifted = torch.where(
            cosine > -torch.cos(angle), shifted, cosine - torch.sin(angle) * torch.sin(angle)
        )
        target = F.one_hot(speaker, cosine.shape[1]).bool()
        return F.cross_entropy(self.scale * torch.where(target, shifted, cosine), speaker)


class AngularPrototypical(nn.Module):
    """Angular prototypical loss (Chung et al. 2020, arXiv:2003.11982) for two crops a speaker."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.tensor(-5.0))

    def forward(self, embedding: Tensor) -> Tensor:
        """Mean loss of `[2 * speakers, dim]`, crops 2i and 2i + 1 being the same speaker's."""
        query, prototype = F.normalize(embedding.float(), dim=1).reshape(-1, 2, embedding.shape[1]).unbind(1)
        logits = query @ prototype.t() * self.weight.clamp(min=1e-6) + self.bias
        return F.cross_entropy(logits, torch.arange(len(query), device=logits.device))


class TeacherLoss(nn.Module):
    """One minus the cosine between the projected embedding and a teacher's, centred.

    Centring matters: raw speaker embeddings share a large mean, and matching that mean alone is a
    trivial solution the loss would settle in.
    """

    def __init__(self, embedding_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(embedding_dim, teacher_dim)

    def forward(self, embedding: Tensor, teacher: Tensor) -> Tensor:
        """Mean loss of embeddings `[batch, dim]` against centred `[batch, teacher_dim]`.

        A teacher's row of zeros means that there is no target for that crop.
        """
        known = teacher.abs().sum(dim=1) > 0
        cosine = F.cosine_similarity(self.projection(embedding.float()), teacher, dim=1)
        return ((1.0 - cosine) * known).sum() / known.sum().clamp(min=1)
