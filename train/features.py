"""Recordings as cached log-mel features, so that a CPU's training time is all network."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sayso.models.frontend import HOP_LENGTH, SAMPLE_RATE, WIN_LENGTH, FrontEnd, FrontEndOptions, front_end_of
from sayso.runtime.audio import Recording
from sayso.runtime.speech import SpeechDetector
from sayso.train.manifest import DataError, Manifest
from sayso.train.waveform import Copy, augment, change_speed, check_recordings, read_recording

PLAIN = Copy()
_CHUNK = 100


@dataclass(frozen=True)
class Features:
    """Unnormalised log-mel of one copy: recording `i` is `frames[start[i] : start[i + 1]]`."""

    frames: NDArray[np.float16]
    start: NDArray[np.int64]

    def recording(self, i: int) -> NDArray[np.float16]:
        """`[frames, n_mels]` of recording `i`."""
        return self.frames[self.start[i] : self.start[i + 1]]

    def crop(self, i: int, length: int, at: float) -> NDArray[np.float16]:
        """Cut `length` frames, from `at` in [0, 1] of the possible starts; a short recording is repeated."""
        x = self.recording(i)
        if len(x) < length:
            return np.resize(x, (length, x.shape[1]))
        offset = round(at * (len(x) - length))
        return x[offset : offset + length]


@dataclass(frozen=True)
class FeatureStore:
    """The features of every copy of the recordings, and of the plain recordings for validation."""

    plain: Features
    copies: tuple[Features, ...]


def _features(x: NDArray[np.float32], front_end: FrontEnd, name: Path) -> NDArray[np.float16]:
    if len(x) <= WIN_LENGTH:
        x = np.resize(x, WIN_LENGTH + 1) if len(x) else np.zeros(WIN_LENGTH + 1, np.float32)
    with torch.inference_mode():
        features = front_end.unnormalised(torch.from_numpy(x).unsqueeze(0))[0]
    kept: NDArray[np.float16] = features.t().half().numpy()
    if not np.isfinite(kept).all():
        raise DataError(
            f"the features of {name} are not finite in 16 bits: look at it, or train with log_input"
        )
    return kept


def _chunk(
    rows: Sequence[int],
    root: Path,
    paths: tuple[str, ...],
    options: FrontEndOptions,
    copies: Sequence[Copy],
    served: bool,
) -> list[list[NDArray[np.float16]]]:
    """Compute features `[copy][row]`; babble is made of the other rows of the chunk."""
    torch.set_num_threads(1)
    front_end = front_end_of(options)
    plain = [read_recording(root / paths[row]) for row in rows]
    if served:
        detector = SpeechDetector()
        plain = [_speech(detector, x) for x in plain]
    done: list[list[NDArray[np.float16]]] = []
    for copy in copies:
        features = []
        for row, x in zip(rows, plain, strict=True):
            x = change_speed(x, copy.speed)
            if copy.augmentation and len(x):
                rng = np.random.default_rng([row, copy.augmentation, round(1000 * copy.speed)])
                x = augment(x, rng, plain)
            features.append(_features(x, front_end, root / paths[row]))
        done.append(features)
    return done


def cache_features(
    manifest: Manifest,
    options: FrontEndOptions,
    folder: Path,
    copies: Sequence[Copy] = (PLAIN,),
    served: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureStore:
    """Compute features once and keep them in `folder`, each copy's named by what it was made of.

    All recordings are read first; raises `DataError` naming those that cannot be.
    Copies other than the plain one hold training recordings only; dev recordings are empty there.
    With `served`, long pauses are cut out first, as the service does before it embeds.
    """
    stems = {copy: folder / _name(manifest, options, copy, served) for copy in (PLAIN, *copies)}
    missing = [copy for copy, stem in stems.items() if not stem.with_suffix(".start.npy").exists()]
    others = [copy for copy in missing if copy != PLAIN]
    passes = [group for group in ([PLAIN] if PLAIN in missing else [], others) if group]
    folder.mkdir(parents=True, exist_ok=True)
    if passes:
        check_recordings([manifest.root / path for path in manifest.paths], workers, progress)
    for group in passes:
        rows = np.arange(len(manifest.paths)) if group == [PLAIN] else np.flatnonzero(manifest.train)
        # In a fixed random order, so that a chunk's neighbours are other speakers.
        order = np.random.default_rng(0).permutation(rows).tolist()
        chunks = [order[i : i + _CHUNK] for i in range(0, len(order), _CHUNK)]
        job = partial(
            _chunk, root=manifest.root, paths=manifest.paths, options=options, copies=group, served=served
        )
        parts: list[dict[int, NDArray[np.float16]]] = [{} for _ in group]
        # Spawned, not forked: a progress bar's thread may hold a lock at the moment of a fork.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            for chunk, done in zip(chunks, pool.map(job, chunks), strict=True):
                for part, features in zip(parts, done, strict=True):
                    part.update(zip(chunk, features, strict=True))
                progress(len(parts[0]), len(order))
        for copy, part in zip(group, parts, strict=True):
            _keep(stems[copy], part, len(manifest.paths))
    kept = {copy: _load(stem) for copy, stem in stems.items()}
    return FeatureStore(kept[PLAIN], tuple(kept[copy] for copy in copies))


def _speech(detector: SpeechDetector, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut a recording to what the service would embed; all of it where no speech is detected."""
    if not len(x):
        return x
    _, speech = detector.detect(Recording(x, SAMPLE_RATE, 0.0, ()))
    return speech if len(speech) else x


def _name(manifest: Manifest, options: FrontEndOptions, copy: Copy, served: bool) -> str:
    facts = [manifest.sha256, options.to_dict()]
    if copy != PLAIN:  # holds only what is trained on
        facts += [asdict(copy), hashlib.sha256(manifest.train.tobytes()).hexdigest()]
    facts += ["served"] if served else []
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _keep(stem: Path, parts: dict[int, NDArray[np.float16]], recordings: int) -> None:
    lengths = [len(parts[i]) if i in parts else 0 for i in range(recordings)]
    np.save(stem.with_suffix(".frames.npy"), np.concatenate([parts[i] for i in sorted(parts)]))
    whole = stem.with_suffix(".partial.npy")
    np.save(whole, np.cumsum([0, *lengths]))
    os.replace(whole, stem.with_suffix(".start.npy"))  # last: where it is, the frames are whole


def _load(stem: Path) -> Features:
    return Features(
        np.load(stem.with_suffix(".frames.npy"), mmap_mode="r"), np.load(stem.with_suffix(".start.npy"))
    )


def seconds_to_frames(seconds: float) -> int:
    """Frames of a centred front-end for a waveform of `seconds`: 3 s are 301."""
    return round(seconds * SAMPLE_RATE) // HOP_LENGTH + 1
