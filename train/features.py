"""Recordings as cached log-mel features, so that a CPU's training time is all network."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
import torch
from numpy.typing import NDArray

from models.frontend import HOP_LENGTH, SAMPLE_RATE, WIN_LENGTH, FrontEndOptions, LogMel


class DataError(ValueError):
    """The training data cannot be used; the message says which file or row and why."""


@dataclass(frozen=True)
class Manifest:
    """The rows of a CSV with `path, speaker, split` (other columns are free); split train or dev."""

    root: Path
    sha256: str
    paths: tuple[str, ...]
    speakers: tuple[str, ...]
    train: NDArray[np.bool_]
    corpora: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest; paths in it are relative to its folder. Raises `DataError`."""
        try:
            content = path.read_bytes()
            text = content.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the manifest {path}: {error}") from error
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        missing = {"path", "speaker", "split"} - set(rows[0] if rows else ())
        if missing:
            raise DataError(f"the manifest {path} lacks the columns {', '.join(sorted(missing))}")
        for number, row in enumerate(rows, start=1):
            if not row["path"] or not row["speaker"] or row["split"] not in ("train", "dev"):
                raise DataError(f"row {number} of {path} needs a path, a speaker, and train or dev as split")
        if not any(row["split"] == "train" for row in rows):
            raise DataError(f"the manifest {path} has no row whose split is train")
        return cls(
            root=path.parent,
            sha256=hashlib.sha256(content).hexdigest(),
            paths=tuple(r["path"] for r in rows),
            speakers=tuple(r["speaker"] for r in rows),
            train=np.array([r["split"] == "train" for r in rows]),
            corpora=tuple(sorted({r.get("corpus") or "" for r in rows if r["split"] == "train"} - {""})),
        )


@dataclass(frozen=True)
class FeatureStore:
    """Unnormalised log-mel of every recording: recording `i` is `frames[start[i] : start[i + 1]]`."""

    frames: NDArray[np.float16]
    start: NDArray[np.int64]

    def recording(self, i: int) -> NDArray[np.float16]:
        """`[frames, n_mels]` of recording `i`."""
        return self.frames[self.start[i] : self.start[i + 1]]

    def crop(self, i: int, length: int, at: float) -> NDArray[np.float16]:
        """`length` frames, `at` in [0, 1] between the first and the last start; short ones wrap."""
        x = self.recording(i)
        if len(x) < length:
            return np.resize(x, (length, x.shape[1]))
        offset = round(at * (len(x) - length))
        return x[offset : offset + length]


def _log_mel(path: Path, front_end: LogMel) -> NDArray[np.float16]:
    try:
        audio, rate = sf.read(path, dtype="float32", always_2d=True)
    except (OSError, sf.SoundFileError) as error:
        raise DataError(f"cannot read the recording {path}: {error}") from error
    mono = audio.mean(axis=1)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    if len(mono) <= WIN_LENGTH:
        mono = np.resize(mono, WIN_LENGTH + 1) if len(mono) else np.zeros(WIN_LENGTH + 1, np.float32)
    with torch.inference_mode():
        features = front_end.log_mel(torch.from_numpy(mono).unsqueeze(0))[0]
    kept: NDArray[np.float16] = features.t().half().numpy()
    if not np.isfinite(kept).all():
        raise DataError(
            f"the features of {path} are not finite in 16 bits: look at it, or train with log_input"
        )
    return kept


def _chunk(paths: list[Path], options: FrontEndOptions) -> list[NDArray[np.float16]]:
    torch.set_num_threads(1)
    front_end = LogMel(options)
    return [_log_mel(path, front_end) for path in paths]


def cache_features(
    manifest: Manifest,
    options: FrontEndOptions,
    folder: Path,
    workers: int = 2,
    progress: Callable[[int], None] = lambda done: None,
) -> FeatureStore:
    """Compute features once and keep them in `folder`, named by the manifest and the front-end."""
    facts = json.dumps([manifest.sha256, options.to_dict()], sort_keys=True)
    stem = folder / hashlib.sha256(facts.encode()).hexdigest()[:16]
    frames_file, start_file = stem.with_suffix(".frames.npy"), stem.with_suffix(".start.npy")
    if not start_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        paths = [manifest.root / p for p in manifest.paths]
        chunks = [paths[i : i + 100] for i in range(0, len(paths), 100)]
        done: list[NDArray[np.float16]] = []
        # Spawned, not forked: a progress bar's thread may hold a lock at the moment of a fork.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            for part in pool.map(partial(_chunk, options=options), chunks):
                done += part
                progress(len(done))
        np.save(frames_file, np.concatenate(done))
        whole = stem.with_suffix(".partial.npy")
        np.save(whole, np.cumsum([0, *map(len, done)]))
        os.replace(whole, start_file)  # last: its presence means all is there
    return FeatureStore(np.load(frames_file, mmap_mode="r"), np.load(start_file))


def seconds_to_frames(seconds: float) -> int:
    """Frames of a centred front-end for a waveform of `seconds`: 3 s are 301."""
    return round(seconds * SAMPLE_RATE) // HOP_LENGTH + 1
