"""A training run from files to files: what `sayso train` calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from evaluate.trials import read_trials
from models.checkpoint import save_checkpoint
from train.features import DataError, Manifest, cache_features
from train.recipe import Recipe
from train.trainer import Trainer, TrainingData


@dataclass(frozen=True)
class Prepared:
    """A recipe with its data, ready to train."""

    recipe: Recipe
    data: TrainingData


def prepare(
    recipe_file: Path,
    manifest_file: Path,
    trials_file: Path,
    teacher_file: Path | None,
    work: Path,
    workers: int,
    progress: Callable[[int, int], None],
) -> Prepared:
    """Read everything and cache features under `work`.

    Raises `RecipeError`, `DataError` or `TrialListError`.
    """
    recipe = Recipe.read(recipe_file)
    manifest = Manifest.read(manifest_file)
    trials = read_trials(trials_file)
    unlisted = set(trials.recordings) - set(manifest.paths)
    if unlisted:
        raise DataError(f"{trials_file} names {len(unlisted)} recordings that {manifest_file} does not list")
    teacher = None
    if teacher_file is not None:
        try:
            teacher = np.load(teacher_file).astype(np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"cannot read the teacher's embeddings {teacher_file}: {error}") from error
        if teacher.ndim != 2 or len(teacher) != len(manifest.paths):
            raise DataError(
                f"{teacher_file} has shape {teacher.shape}, {manifest_file} has {len(manifest.paths)} rows"
            )
        if not np.isfinite(teacher).all():
            raise DataError(f"{teacher_file} holds values that are not finite")
    elif recipe.teacher_weight:
        raise DataError(
            f"the recipe {recipe.name!r} learns from a teacher: give --teacher, or set its "
            "teacher_weight to 0"
        )
    features = cache_features(
        manifest,
        recipe.network().front_end,
        work / "features",
        workers,
        progress=lambda done: progress(done, len(manifest.paths)),
    )
    return Prepared(recipe, TrainingData(manifest, features, trials, teacher))


def trainer(prepared: Prepared, work: Path, device: str, compile_trunk: bool) -> Trainer:
    """A trainer at the start, or where an earlier run in `work` stopped."""
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if chosen == "cuda" and not torch.cuda.is_available():
        raise DataError("CUDA was asked for, but PyTorch finds no GPU: use --device cpu")
    return Trainer(prepared.recipe, prepared.data, work, chosen, compile_trunk)


def finish(run: Trainer, prepared: Prepared, dev_eer: float, out: Path) -> None:
    """Write the checkpoint with a summary of its training."""
    manifest = prepared.data.manifest
    summary = {
        "recipe": asdict(prepared.recipe),
        "corpora": list(manifest.corpora),
        "manifest_sha256": manifest.sha256,
        "recordings": int(manifest.train.sum()),
        "speakers": run.speakers,
        "teacher": prepared.recipe.teacher_weight > 0,
        "dev_eer_one_window": round(dev_eer, 5),
        "torch": torch.__version__,
    }
    save_checkpoint(out, run.network, summary)
