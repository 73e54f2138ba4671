"""The training loop: schedule, checkpoint and resume, dev EER, and a clear stop at what is not finite."""

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
from torch.optim.swa_utils import AveragedModel

from sayso.domain.errors import SaysoError
from sayso.evaluate.metrics import eer
from sayso.evaluate.trials import TrialList
from sayso.models.network import SpeakerNetwork
from sayso.train.augment import spec_augment
from sayso.train.features import Features, FeatureStore, seconds_to_frames
from sayso.train.journal import Journal
from sayso.train.manifest import Manifest
from sayso.train.objective import Objective, centred
from sayso.train.recipe import Recipe, RecipeError
from sayso.train.sampling import Batch, CropSampler, Prefetcher
from sayso.train.teacher import Teacher

VALIDATION_WINDOW_S = 3.0
_Tensors = tuple[Tensor, ...] | list[Tensor]


class NonFiniteLoss(SaysoError, RuntimeError):
    """Training met a loss or gradient that is not finite; the message says where."""


@dataclass(frozen=True)
class TrainingData:
    """All that a run reads: the recordings' features and speakers, the teachers' vectors, the dev trials.

    `noisy` are the features of the denoising stage's copies.
    """

    manifest: Manifest
    features: FeatureStore
    trials: TrialList
    teachers: tuple[Teacher, ...] = ()
    noisy: tuple[Features, ...] = ()

    def validation_rows(self) -> NDArray[np.int64]:
        """Rows of the trial list's recordings, in its order."""
        return self.manifest.rows(self.trials.recordings)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only: biases, norms and gates are left alone."""
    decayed = [p for p in module.parameters() if p.ndim > 1]
    free = [p for p in module.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _moving_average(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """Make an exponential moving average that soon forgets the useless weights of the first steps."""

    def average(averaged: _Tensors, current: _Tensors, steps: Tensor | int) -> None:
        kept = min(decay, (1.0 + float(steps)) / (10.0 + float(steps)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1.0 - kept)
        else:
            torch._foreach_copy_(averaged, current)

    return average


class Trainer:
    """One run of a recipe. `work` keeps its state and its journal (JSON lines, an epoch each)."""

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
        self.sampler = CropSampler(
            dict(zip(recipe.copies, data.features.copies, strict=True)),
            rows,
            speakers,
            tuple(seconds_to_frames(seconds) for seconds in recipe.crop_lengths_s),
            recipe.speaker_balance,
            recipe.seed,
            pairs=recipe.prototypical_weight > 0,
        )
        self.crops = Prefetcher(self.sampler, recipe.batch_size)
        teachers = [centred(t, recipe.speeds, train) for t in data.teachers] if recipe.teacher_weight else []
        self.objective = Objective(recipe, self.network.embedding_dim, self.sampler.classes, teachers)
        self.objective.to(self.device)
        self.trained = nn.ModuleList([self.network.trunk, self.objective])
        groups = _parameter_groups(self.network.trunk, recipe.weight_decay)
        self.trunk_groups = len(groups)
        groups += _parameter_groups(self.objective, recipe.weight_decay)
        fused = self.device.type == "cuda"  # elsewhere the default is as fast
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=fused)
        self.averaged: AveragedModel | None = None
        if recipe.averaging:
            average = _moving_average(recipe.averaging)
            self.averaged = AveragedModel(self.network.trunk, multi_avg_fn=average, use_buffers=True)
        self.trunk = torch.compile(self.network.trunk) if compile_trunk else self.network.trunk
        self.step = 0
        self.speakers = len(names)
        self.steps_per_epoch = -(-len(rows) // recipe.batch_size)
        work.mkdir(parents=True, exist_ok=True)
        if self.state_file.exists():
            self._resume()
        self.journal = Journal(work / "log.jsonl", self.step)

    @property
    def state_file(self) -> Path:
        return self.work / "state.pt"

    @property
    def validated(self) -> nn.Module:
        """The trunk that is validated and kept: the moving average where the recipe asks for it."""
        trunk: nn.Module = self.averaged.module if self.averaged is not None else self.network.trunk
        return trunk

    def run(self, on_step: Callable[[int, dict[str, float]], None], save_every: int = 200) -> float:
        """Train to the end of the schedule; returns the last dev EER. Raises `NonFiniteLoss`."""
        dev_eer = self.validate() if self.step == self.recipe.steps else math.nan
        started, first = time.monotonic(), self.step
        while self.step < self.recipe.steps:
            facts = self._train_step()
            self.step += 1
            self.journal.add(facts)
            last = self.step == self.recipe.steps
            if last or self.step % self.steps_per_epoch == 0:
                scored = {}
                if last or self.step % (self.steps_per_epoch * self.recipe.validate_every) == 0:
                    dev_eer = self.validate()
                    scored = {"dev_eer": dev_eer}
                facts |= scored
                seconds = time.monotonic() - started
                self.journal.write(
                    self.step,
                    epoch=self.step / self.steps_per_epoch,
                    **scored,
                    crops_per_s=(self.step - first) * self.recipe.batch_size / seconds,
                    gates=self._gates(),
                )
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
        for i, group in enumerate(self.optimizer.param_groups):
            group["lr"] = 0.0 if i < self.trunk_groups and progress < recipe.heads_first else rate
        batch = self.crops.batch(self.step)
        features, partner, share = self._features(batch)
        self.trained.train()
        with torch.autocast(self.device.type, torch.bfloat16):
            embedding = self.trunk(features)
            if recipe.loss_autocast:
                losses = self.objective.mixed(embedding, batch, partner, share, margin)
        if not recipe.loss_autocast:
            losses = self.objective.mixed(embedding.float(), batch, partner, share, margin)
        loss = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(), recipe.gradient_clip or math.inf)
        length = embedding.detach().float().norm(dim=1).mean()
        measured = losses | {"loss": loss, "grad_norm": norm, "embedding_norm": length}
        # Read at once: a GPU stops for every number that is read.
        values = torch.stack([value.detach().float() for value in measured.values()]).tolist()
        facts = dict(zip(measured, values, strict=True)) | {"rate": rate, "margin": margin}
        self._check_finite(facts, features)
        self.optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network.trunk)
        return facts

    def _features(self, batch: Batch) -> tuple[Tensor, NDArray[np.int64], float]:
        """Normalised, masked and mixed features; with whom each was mixed, and its own share."""
        recipe = self.recipe
        seed = recipe.seed * 1_000_003 + self.step
        generator = torch.Generator().manual_seed(seed)
        features = torch.from_numpy(batch.features).to(self.device).float().transpose(1, 2)
        features = self.network.front_end.normalise(features)
        features = spec_augment(features, recipe.freq_mask, recipe.time_mask, recipe.masks, generator)
        partner, share = np.arange(len(features)), 1.0
        if recipe.mixup:
            rng = np.random.default_rng(seed)
            partner, share = rng.permutation(len(features)), float(rng.beta(recipe.mixup, recipe.mixup))
            features = share * features + (1.0 - share) * features[partner]
        return features, partner, share

    def _gates(self) -> dict[str, float]:
        """Gates of a nested network, after their sigmoid, by parameter name."""
        named = self.network.trunk.named_parameters()
        return {n: torch.sigmoid(p).item() for n, p in named if n.endswith(".gate")}

    def _check_finite(self, facts: dict[str, float], features: Tensor) -> None:
        bad = [name for name, value in facts.items() if not math.isfinite(value)]
        if not bad:
            return
        where = [
            name
            for name, p in self.trained.named_parameters()
            if p.grad is not None and not torch.isfinite(p.grad).all()
        ]
        largest = largest_outputs(self.network.trunk, features)
        self.journal.write(self.step, stopped=bad, gradients=where, largest_outputs=largest)
        raise NonFiniteLoss(
            f"step {self.step + 1} of {self.recipe.steps}: {', '.join(bad)} not finite; "
            f"non-finite gradients in {', '.join(where[:5]) or 'no parameter'}"
            f"{' and more' if len(where) > 5 else ''}. What was saved before is kept in {self.state_file}, "
            f"each layer's largest output in {self.journal.path}"
        )

    @torch.inference_mode()
    def validate(self) -> float:
        """Measure the EER on the dev trials from the middle 3 s of each recording."""
        trunk = self.validated.eval()
        frames = seconds_to_frames(VALIDATION_WINDOW_S)
        rows = self.data.validation_rows()
        parts = []
        for i in range(0, len(rows), 64):
            crops = [self.data.features.plain.crop(row, frames, 0.5).T for row in rows[i : i + 64]]
            features = torch.from_numpy(np.stack(crops).astype(np.float32))
            features = self.network.front_end.normalise(features.to(self.device))
            with torch.autocast(self.device.type, torch.bfloat16):
                embedding = trunk(features)
            parts.append(F.normalize(embedding.float(), dim=1).cpu())
        scores = self.data.trials.scores(torch.cat(parts).numpy())
        return eer(scores, self.data.trials.labels)[0]

    def _save(self) -> None:
        state = {
            "step": self.step,
            "recipe": json.dumps(asdict(self.recipe), sort_keys=True),
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else {},
            "rng": torch.get_rng_state(),
        }
        partial = self.state_file.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.state_file)

    def _resume(self) -> None:
        state = torch.load(self.state_file, map_location="cpu", weights_only=True)
        if state["recipe"] != json.dumps(asdict(self.recipe), sort_keys=True):
            raise RecipeError(f"{self.state_file} belongs to another recipe: give another --work folder")
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        torch.set_rng_state(state["rng"])
        self.step = int(state["step"])


@torch.inference_mode()
def largest_outputs(trunk: nn.Module, features: Tensor) -> dict[str, float]:
    """Measure the largest magnitude of each layer's output for a batch, in the order of running."""
    largest: dict[str, float] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                largest[name] = output.detach().float().abs().max().item()

        return hook

    hooks = [m.register_forward_hook(note(n)) for n, m in trunk.named_modules() if n]
    try:
        trunk(features)
    finally:
        for hook in hooks:
            hook.remove()
    return largest
