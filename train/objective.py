"""The sum that a run minimises: the recipe's losses, each times its weight."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sayso.train.losses import AAMSoftmax, AngularPrototypical, TeacherLoss
from sayso.train.recipe import Recipe
from sayso.train.sampling import Batch
from sayso.train.teacher import Teacher


class Objective(nn.Module):
    """The recipe's losses over training speakers and one or more teachers."""

    def __init__(self, recipe: Recipe, embedding_dim: int, classes: int, teachers: list[Tensor]) -> None:
        """`teachers` are centred targets `[speeds, rows, dim]`."""
        super().__init__()
        self.recipe, self.teachers = recipe, teachers
        self.aam: AAMSoftmax | None = None
        if recipe.aam_weight:
            self.aam = AAMSoftmax(embedding_dim, classes, recipe.scale, recipe.sine_floor)
        self.prototypes = AngularPrototypical() if recipe.prototypical_weight else None
        self.distil = nn.ModuleList(TeacherLoss(embedding_dim, t.shape[2]) for t in teachers)

    def forward(self, embedding: Tensor, batch: Batch, margin: float) -> dict[str, Tensor]:
        recipe, losses = self.recipe, {}
        if self.aam is not None:
            speakers = torch.from_numpy(batch.speakers).to(embedding.device)
            losses["aam"] = recipe.aam_weight * self.aam(embedding, speakers, margin)
        if self.prototypes is not None:
            losses["prototypical"] = recipe.prototypical_weight * self.prototypes(embedding)
        if self.teachers:
            speeds, rows = torch.from_numpy(batch.speeds), torch.from_numpy(batch.rows)
            targets = [t[speeds, rows].to(embedding.device) for t in self.teachers]
            parts = [distil(embedding, t) for distil, t in zip(self.distil, targets, strict=True)]
            losses["teacher"] = recipe.teacher_weight * torch.stack(parts).mean()
        return losses

    def mixed(
        self, embedding: Tensor, batch: Batch, partner: NDArray[np.int64], share: float, margin: float
    ) -> dict[str, Tensor]:
        """Compute the losses of crops mixed with those of `partner`; both targets count, by their share."""
        own: dict[str, Tensor] = self(embedding, batch, margin)
        if share == 1.0:
            return own
        other = Batch(batch.features, batch.speakers[partner], batch.rows[partner], batch.speeds[partner])
        others = self(embedding, other, margin)
        return {name: share * value + (1.0 - share) * others[name] for name, value in own.items()}


def centred(teacher: Teacher, speeds: tuple[float, ...], train: NDArray[np.bool_]) -> Tensor:
    """Subtract the training mean and scale to unit length: `[speeds, rows, dim]`, zero without a target."""
    known = [teacher.speeds.index(s) if s in teacher.speeds else None for s in speeds]
    mean = np.mean([teacher.embeddings[k][train].mean(axis=0) for k in known if k is not None], axis=0)
    targets = [
        np.zeros_like(teacher.embeddings[0]) if k is None else teacher.embeddings[k] - mean for k in known
    ]
    return F.normalize(torch.from_numpy(np.stack(targets).astype(np.float32)), dim=2)
