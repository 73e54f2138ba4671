"""A training run from files to files: what `sayso train` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sayso.evaluate.trials import read_trials
from sayso.models.checkpoint import load_checkpoint, save_checkpoint
from sayso.models.errors import CheckpointError
from sayso.train.denoising import pretrain
from sayso.train.features import FeatureStore, cache_features
from sayso.train.manifest import DataError, Manifest
from sayso.train.plots import draw_journals
from sayso.train.recipe import Recipe
from sayso.train.teacher import Teacher
from sayso.train.trainer import Trainer, TrainingData


@dataclass(frozen=True)
class Prepared:
    """A recipe with its data, ready to train."""

    recipe: Recipe
    data: TrainingData


def prepare(
    recipe_file: Path,
    manifest_files: Sequence[Path],
    trials_file: Path,
    teacher_files: Sequence[Sequence[Path]],
    cache: Path,
    workers: int,
    progress: Callable[[int, int], None],
    seed: int | None = None,
) -> Prepared:
    """Read all that a run needs, and compute the features of the recordings.

    `teacher_files` holds the files of each teacher, as `Teacher.load` takes them. Features are kept in the
    folder `cache`, which runs may share. `progress` is called with the recordings done and their total.
    `seed` is used in place of the recipe's. Raises `RecipeError`, `DataError` or `TrialListError`.
    """
    recipe = Recipe.read(recipe_file)
    if seed is not None:
        recipe = replace(recipe, seed=seed)
    trials = read_trials(trials_file)
    manifest = Manifest.read(manifest_files, trials.recordings).without(recipe.leave_out)
    manifest.check_speakers()
    manifest.rows(trials.recordings)  # raises now, not at the first validation, if one is missing
    teachers = tuple(Teacher.load(paths, len(manifest.paths)) for paths in teacher_files)
    if recipe.teacher_weight and not teachers:
        raise DataError(
            f"the recipe {recipe.name!r} learns from a teacher: give --teacher, or set its "
            "teacher_weight to 0"
        )
    untaught = set(recipe.speeds) - {speed for t in teachers for speed in t.speeds}
    if recipe.teacher_weight and untaught:
        raise DataError(
            f"no teacher has embeddings at the recipe's speeds {sorted(untaught)}: see sayso teach"
        )
    front_end = recipe.network().front_end
    copies = (*recipe.copies, *(recipe.denoising.copies if recipe.denoising else ()))
    cached = cache_features(manifest, front_end, cache, copies, recipe.served, workers, progress)
    features = FeatureStore(cached.plain, cached.copies[: len(recipe.copies)])
    noisy = cached.copies[len(recipe.copies) :]
    if recipe.speakers:
        manifest = manifest.drawn(recipe.speakers)
        manifest.check_speakers()
    return Prepared(recipe, TrainingData(manifest, features, trials, teachers, noisy))


def trainer(
    prepared: Prepared,
    work: Path,
    device: str,
    compile_trunk: bool,
    start: Path | None = None,
    on_denoising: Callable[[int, int], None] = lambda done, total: None,
) -> Trainer:
    """A trainer at the start, or where an earlier run in `work` stopped.

    `start` is a checkpoint of the same architecture whose trunk the run begins with; without one the recipe's
    denoising stage comes first, and `on_denoising` hears of its steps. Raises
    `CheckpointError` for one that cannot be loaded or is of another network.
    """
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if chosen == "cuda" and not torch.cuda.is_available():
        raise DataError("CUDA was asked for, but PyTorch finds no GPU: use --device cpu")
    made = Trainer(prepared.recipe, prepared.data, work, chosen, compile_trunk)
    if start is not None and made.step == 0:
        earlier = load_checkpoint(start)
        if earlier.network.config not in (made.network.config, made.network.folded().config):
            raise CheckpointError(f"{start} is another network than the recipe's {prepared.recipe.name!r}")
        # What was folded away when it was kept begins anew.
        made.network.trunk.load_state_dict(earlier.network.trunk.state_dict(), strict=False)
    elif prepared.recipe.denoising is not None and made.step == 0:
        data = prepared.data
        rows = np.flatnonzero(data.manifest.train)
        first, last = pretrain(
            made.network, prepared.recipe, data.features.plain, data.noisy, rows, on_denoising
        )
        made.journal.write(0, denoising_first=first, denoising_last=last)
    return made


def finish(run: Trainer, prepared: Prepared, dev_eer: float, out: Path, start: Path | None = None) -> None:
    """Write the checkpoint with a summary of its training, and draw the run into its work folder.

    The summary of a run that began with the checkpoint `start` includes that one's.
    """
    manifest = prepared.data.manifest
    summary: dict[str, Any] = {
        "recipe": asdict(prepared.recipe),
        "corpora": list(manifest.corpora),
        "manifest_sha256": manifest.sha256,
        "recordings": int(manifest.train.sum()),
        "speakers": run.speakers,
        "teacher": prepared.recipe.teacher_weight > 0,
        "dev_eer_one_window": round(dev_eer, 5),
        "torch": torch.__version__,
    }
    if start is not None:
        summary["started_from"] = load_checkpoint(start).training
    run.network.trunk.load_state_dict(run.validated.state_dict())
    run.network.cpu()
    save_checkpoint(out, run.network.folded(), summary)
    draw_journals({prepared.recipe.name: run.journal.path}, run.work / "journal.png")
