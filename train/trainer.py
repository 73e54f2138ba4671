"""The training loop: schedule, checkpoint and resume, dev EER, and a clear stop when a loss is not finite."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from evaluate.metrics import eer
from evaluate.trials import TrialList
from models.network import SpeakerNetwork
from train.augment import spec_augment
from train.features import FeatureStore, Manifest, seconds_to_frames
from train.losses import AAMSoftmax, TeacherLoss
from train.recipe import Recipe, RecipeError
from train.sampling import Batch, CropSampler

VALIDATION_WINDOW_S = 3.0


class NonFiniteLoss(RuntimeError):
    """Training met a loss or gradient that is not finite; the message says where."""


@dataclass(frozen=True)
class TrainingData:
    """What a run reads: features of all recordings, who speaks, the teacher's vectors, dev trials."""

    manifest: Manifest
    features: FeatureStore
    trials: TrialList
    teacher: NDArray[np.float32] | None = None

    def validation_rows(self) -> NDArray[np.int64]:
        """Rows of the trial list's recordings, in its order."""
        row = {path: i for i, path in enumerate(self.manifest.paths)}
        return np.array([row[path] for path in self.trials.recordings])


class Objective(nn.Module):
    """AAM-softmax plus, where the recipe asks for it, the teacher's loss."""

    def __init__(self, recipe: Recipe, embedding_dim: int, speakers: int, teacher: Tensor | None) -> None:
        super().__init__()
        self.recipe = recipe
        self.aam = AAMSoftmax(embedding_dim, speakers, recipe.scale)
        self.teacher = teacher
        self.distil = TeacherLoss(embedding_dim, teacher.shape[1]) if teacher is not None else None

    def forward(self, embedding: Tensor, batch: Batch, margin: float) -> dict[str, Tensor]:
        device = embedding.device
        losses = {"aam": self.aam(embedding, torch.from_numpy(batch.speakers).to(device), margin)}
        if self.distil is not None and self.teacher is not None:
            target = self.teacher[torch.from_numpy(batch.rows)].to(device)
            losses["teacher"] = self.recipe.teacher_weight * self.distil(embedding, target)
        return losses


def _centred(teacher: NDArray[np.float32], train: NDArray[np.bool_]) -> Tensor:
    vectors = teacher.astype(np.float32)
    return F.normalize(torch.from_numpy(vectors - vectors[train].mean(axis=0)), dim=1)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only: biases, norms and gates are left alone."""
    decayed = [p for p in module.parameters() if p.ndim > 1]
    free = [p for p in module.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


class Trainer:
    """One run of a recipe. `work` keeps its state, its log (JSON lines) and nothing else."""

    def __init__(
        self, recipe: Recipe, data: TrainingData, work: Path, device: str, compile_trunk: bool
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.data, self.work = recipe, data, work
        self.device = torch.device(device)
        self.network = SpeakerNetwork(recipe.network()).to(self.device)
        train = data.manifest.train
        names = sorted({s for s, t in zip(data.manifest.speakers, train, strict=True) if t})
        number = {name: i for i, name in enumerate(names)}
        rows = np.flatnonzero(train)
        speakers = np.array([number[data.manifest.speakers[i]] for i in rows])
        frames = seconds_to_frames(recipe.crop_s)
        self.sampler = CropSampler(data.features, rows, speakers, frames, recipe.speaker_balance, recipe.seed)
        wanted = recipe.teacher_weight > 0 and data.teacher is not None
        teacher = _centred(data.teacher, train) if wanted and data.teacher is not None else None
        self.objective = Objective(recipe, self.network.embedding_dim, len(names), teacher).to(self.device)
        self.trained = nn.ModuleList([self.network.trunk, self.objective])
        groups = _parameter_groups(self.trained, recipe.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
        self.trunk = torch.compile(self.network.trunk) if compile_trunk else self.network.trunk
        self.step = 0
        self.speakers = len(names)
        work.mkdir(parents=True, exist_ok=True)
        if self.state_file.exists():
            self._resume()

    @property
    def state_file(self) -> Path:
        return self.work / "state.pt"

    def run(
        self,
        on_step: Callable[[int, dict[str, float]], None],
        validate_every: int = 500,
        save_every: int = 200,
    ) -> float:
        """Train to the end of the schedule; returns the last dev EER. Raises `NonFiniteLoss`."""
        dev_eer = self.validate() if self.step == self.recipe.steps else math.nan
        started, first = time.monotonic(), self.step
        while self.step < self.recipe.steps:
            facts = self._train_step()
            self.step += 1
            facts["crops_per_s"] = (self.step - first) * self.recipe.batch_size / (time.monotonic() - started)
            last = self.step == self.recipe.steps
            if last or self.step % validate_every == 0:
                facts["dev_eer"] = dev_eer = self.validate()
            if "dev_eer" in facts or self.step % 20 == 0:
                self._log(facts)
            if last or self.step % save_every == 0:
                self._save()
            on_step(self.step, facts)
        return dev_eer

    def _train_step(self) -> dict[str, float]:
        recipe = self.recipe
        progress = self.step / recipe.steps
        warm = min(1.0, progress / recipe.warmup) if recipe.warmup else 1.0
        rate = recipe.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * progress))
        margin = recipe.margin * (min(1.0, progress / recipe.margin_ramp) if recipe.margin_ramp else 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.sampler.batch(self.step, recipe.batch_size)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
        features = self.network.front_end.normalise(torch.from_numpy(batch.features))
        features = spec_augment(features, recipe.freq_mask, recipe.time_mask, recipe.masks, generator)
        self.trained.train()
        with torch.autocast(self.device.type, torch.bfloat16):
            embedding = self.trunk(features.to(self.device))
        losses = self.objective(embedding.float(), batch, margin)
        loss = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(), recipe.gradient_clip)
        facts = {name: value.item() for name, value in losses.items()}
        facts |= {"loss": loss.item(), "grad_norm": norm.item(), "rate": rate, "margin": margin}
        self._check_finite(facts)
        self.optimizer.step()
        return facts

    def _check_finite(self, facts: dict[str, float]) -> None:
        bad = [name for name, value in facts.items() if not math.isfinite(value)]
        if not bad:
            return
        where = [
            name
            for name, p in self.trained.named_parameters()
            if p.grad is not None and not torch.isfinite(p.grad).all()
        ]
        raise NonFiniteLoss(
            f"step {self.step + 1} of {self.recipe.steps}: {', '.join(bad)} not finite; "
            f"non-finite gradients in {', '.join(where[:5]) or 'no parameter'}"
            f"{' and more' if len(where) > 5 else ''}. What was saved before is kept in {self.state_file}"
        )

    @torch.inference_mode()
    def validate(self) -> float:
        """EER on the dev trials from one centred 3 s window a recording (the full pipeline comes later)."""
        self.network.eval()
        frames = seconds_to_frames(VALIDATION_WINDOW_S)
        rows = self.data.validation_rows()
        parts = []
        for i in range(0, len(rows), 64):
            crops = [self.data.features.crop(row, frames, 0.5).T for row in rows[i : i + 64]]
            features = torch.from_numpy(np.stack(crops).astype(np.float32))
            features = self.network.front_end.normalise(features).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16):
                embedding = self.network.trunk(features)
            parts.append(F.normalize(embedding.float(), dim=1).cpu())
        scores = self.data.trials.scores(torch.cat(parts).numpy())
        return eer(scores, self.data.trials.labels)[0]

    def _log(self, facts: dict[str, float]) -> None:
        with (self.work / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, **{k: round(v, 5) for k, v in facts.items()}}) + "\n")

    def _save(self) -> None:
        state = {
            "step": self.step,
            "recipe": json.dumps(asdict(self.recipe), sort_keys=True),
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.state_file.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.state_file)

    def _resume(self) -> None:
        state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        if state["recipe"] != json.dumps(asdict(self.recipe), sort_keys=True):
            raise RecipeError(f"{self.state_file} belongs to another recipe: give another --work folder")
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
