"""Training objectives; all computed in float32 whatever the network ran in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AAMSoftmax(nn.Module):
    """Additive angular margin softmax (Deng et al. 2019, arXiv:1801.07698) over training speakers.

    The sine is clamped at 1e-7 before its square root: unclamped, its gradient is infinite at
    cos = 1 and NaN just above, which float rounding reaches.
    """

    def __init__(self, embedding_dim: int, speakers: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(speakers, embedding_dim))
        nn.init.xavier_normal_(self.weight)

    def forward(self, embedding: Tensor, speaker: Tensor, margin: float) -> Tensor:
        """Mean loss of embeddings `[batch, dim]` against speaker numbers `[batch]`."""
        cosine = F.linear(F.normalize(embedding.float()), F.normalize(self.weight))
        sine = torch.sqrt((1.0 - cosine * cosine).clamp(min=1e-7))
        angle = torch.tensor(margin)
        shifted = cosine * torch.cos(angle) - sine * torch.sin(angle)
        # Past pi - margin the shifted cosine would rise again: continue it linearly instead.
        shifted = torch.where(
            cosine > -torch.cos(angle), shifted, cosine - torch.sin(angle) * torch.sin(angle)
        )
        target = F.one_hot(speaker, cosine.shape[1]).bool()
        return F.cross_entropy(self.scale * torch.where(target, shifted, cosine), speaker)


class TeacherLoss(nn.Module):
    """One minus the cosine between the projected embedding and a teacher's, centred.

    Centring matters: raw speaker embeddings share a large mean, and matching that mean alone is a
    trivial solution the loss would settle in.
    """

    def __init__(self, embedding_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(embedding_dim, teacher_dim)

    def forward(self, embedding: Tensor, teacher: Tensor) -> Tensor:
        """Mean loss of embeddings `[batch, dim]` against centred `[batch, teacher_dim]`."""
        projected = self.projection(embedding.float())
        return (1.0 - F.cosine_similarity(projected, teacher, dim=1)).mean()
