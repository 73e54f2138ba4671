"""Whether an exported graph is the same function, over lengths and batch sizes, on voices and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sayso.domain.errors import SaysoError
from sayso.runtime.audio import SAMPLE_RATE, Samples, decode
from sayso.runtime.card import Parity
from sayso.runtime.session import EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice

SECONDS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0)
BATCH_SIZES = (1, 2, 3, 8)
MAX_ABS_DIFFERENCE = 1e-4
MIN_COSINE = 0.99999
_LONGEST_RECORDING_S = 600.0

# How far long work is: a stage's name, how much of it is done, and the total (None where it is not known).
Stage = Callable[[str, int, int | None], None]


class ParityError(SaysoError, ValueError):
    """The exported graph differs from the network by more than the limits; nothing was written."""


def no_stage(what: str, done: int, total: int | None) -> None:
    """Show nothing."""


def speech_from(recordings: Path | None) -> tuple[list[Samples], str]:
    """Return voices to compare on and words for the card; synthetic voices where no folder is given."""
    if recordings is None:
        voices = [synthetic_voice(20, pitch, tract) for pitch, tract in ((110, 1.0), (200, 1.1))]
        return voices, "2 synthetic voices and noise"
    voices = recordings_under(recordings, 8)
    return voices, f"{len(voices)} recordings and noise"


def recordings_under(folder: Path, most: int) -> list[Samples]:
    """Return up to `most` recordings, spread over a folder. Raises `ParityError` where there is none."""
    suffixes = {".wav", ".flac", ".mp3", ".ogg", ".opus"}
    files = sorted(
        f for f in folder.rglob("*") if f.suffix.lower() in suffixes and not f.name.startswith(".")
    )
    if not files:
        raise ParityError(f"no recordings under {folder}")
    chosen = files[:: max(1, len(files) // most)][:most]
    return [decode(file.read_bytes(), _LONGEST_RECORDING_S).samples for file in chosen]


def measure(
    reference: Callable[[Samples], Samples],
    model: bytes,
    voices: Sequence[Samples],
    named: str,
    stage: Stage = no_stage,
    min_samples: int = 0,
) -> Parity:
    """Compare a model on the CPU with what `reference` gives for the same batches.

    `named` says on the card what the voices are; lengths under `min_samples` are left out. Raises
    `ParityError` where the two differ by more than 1e-4 in any value, or have a cosine under 0.99999.
    """
    session = EmbeddingSession(model, "the exported graph", provider="cpu")
    worst, cosine = 0.0, 1.0
    seconds = tuple(s for s in SECONDS if s * SAMPLE_RATE >= min_samples)
    total = 2 * len(seconds) * len(BATCH_SIZES)
    for number, batch in enumerate(_batches(voices, seconds)):
        stage("comparing", number, total)
        expected = reference(batch)
        got = session.run(batch)
        difference = np.abs(got - expected).max()
        # A NaN compares false with every limit, so it counts as infinitely far.
        worst = max(worst, float(difference) if np.isfinite(difference) else np.inf)
        cosine = min(cosine, float(np.sum(got * expected, axis=1).min()))
    if not worst < MAX_ABS_DIFFERENCE or not cosine > MIN_COSINE:
        raise ParityError(
            f"the exported graph differs from what it was made of by {worst:.2g} (limit "
            f"{MAX_ABS_DIFFERENCE:g}), cosine {cosine:.6f} (limit {MIN_COSINE:g}): not written"
        )
    return Parity(worst, min(cosine, 1.0), seconds, BATCH_SIZES, named)


def _batches(voices: Sequence[Samples], lengths: Sequence[float]) -> Iterator[Samples]:
    """Every length in every batch size, of voices and of noise."""
    rng = np.random.default_rng(0)
    for seconds in lengths:
        count = round(seconds * SAMPLE_RATE)
        for size in BATCH_SIZES:
            rows = [np.resize(voices[i % len(voices)], count) for i in range(size)]
            yield np.stack(rows).astype(np.float32)
            yield (0.1 * rng.standard_normal((size, count))).astype(np.float32)
