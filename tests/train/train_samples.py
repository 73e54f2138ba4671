"""A tiny recipe, and a folder of synthetic speakers to train it on."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import yaml

from sayso.runtime.synthesis import synthetic_voice
from sayso.train.recipe import Recipe

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "architecture": "ResNetSE34L",
    "options": {
        "pooling": "SAP",
        "embedding_dim": 16,
        "n_mels": 24,
        "filters": [8, 8, 8, 8],
        "blocks": [1, 1, 1, 1],
    },
    "front_end": {"n_mels": 24},
    "crops": 20 * 16,
    "batch_size": 16,
    "crop_s": 0.8,
    "learning_rate": 0.01,
    "warmup": 0.1,
    "scale": 10.0,
    "margin": 0.1,
    "freq_mask": 2,
    "time_mask": 5,
    "masks": 1,
}
TRAIN = {"ann": (205, 1.16), "bob": (105, 0.94), "cat": (165, 1.08), "dan": (130, 0.88)}
DEV = {"eve": (185, 1.02), "fay": (115, 1.12)}


def recipe(**changes: Any) -> Recipe:
    return Recipe(**(RECIPE | changes))


@dataclass(frozen=True)
class Corpus:
    """Files of a run: recordings under `root`, and what names them."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.csv"

    @property
    def trials(self) -> Path:
        return self.root / "dev.trials"

    @property
    def teacher(self) -> Path:
        return self.root / "teacher.npy"

    def recipe(self, folder: Path, **changes: Any) -> Path:
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(RECIPE | changes))
        return path


def make_corpus(
    root: Path,
    corpus: str = "synthetic",
    train: dict[str, tuple[int, float]] = TRAIN,
    dev: dict[str, tuple[int, float]] = DEV,
) -> Corpus:
    """Three recordings of each speaker; the first one's are stereo at 44.1 kHz, very short, and FLAC.

    Speakers are given by pitch (Hz) and length of the vocal tract.
    """
    rows, teacher = [], []
    for number, (name, (pitch, tract)) in enumerate((train | dev).items()):
        split = "train" if name in train else "dev"
        for take in range(3):
            voice = synthetic_voice(1.2 + 0.4 * take, pitch, tract, seed=take)
            path, rate = root / split / name / f"{take}.wav", 16_000
            if number == 0 and take == 0:
                voice = np.stack([voice, 0.5 * voice], axis=1)
                rate = 44_100
            elif number == 0 and take == 1:
                voice = voice[:120]
            elif number == 0:
                path = path.with_suffix(".flac")
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, voice, rate)
            rows.append((path.relative_to(root), split, corpus, name, len(voice) / rate))
            own = np.random.default_rng(number).standard_normal(12)
            teacher.append(own + 0.1 * np.random.default_rng(len(rows)).standard_normal(12) + 5.0)
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split", "corpus", "speaker", "seconds"), *rows])
    unit = np.stack(teacher) / np.linalg.norm(teacher, axis=1, keepdims=True)
    np.save(root / "teacher.npy", unit.astype(np.float16))
    held_out = [(str(path), name) for path, split, _, name, _ in rows if split == "dev"]
    pairs = [(a, b) for i, a in enumerate(held_out) for b in held_out[:i]]
    lines = [f"{int(a[1] == b[1])} {a[0]} {b[0]}" for a, b in pairs]
    (root / "dev.trials").write_text("\n".join(lines) + "\n")
    return Corpus(root)
