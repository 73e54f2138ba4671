"""Embeds files the way the service does, for commands that work through many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sayso.runtime.audio import decode
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import InputError
from sayso.runtime.session import available_cores
from sayso.runtime.speech import SpeechDetector

LONGEST_S = 3600.0


class FileError(InputError):
    """One of the files cannot be used; the message names it."""

    code = "file_invalid"


def embed_files(
    embedder: Embedder, files: Sequence[Path], advance: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.float32], int]:
    """Unit vectors `[files, dim]` in the order given, and how many files hold no detectable speech.

    Those are embedded whole, since an evaluation needs a score for every trial; the service refuses
    them. Raises `FileError` naming the file that cannot be read or decoded.
    """
    detector = SpeechDetector()

    def embed(file: Path) -> tuple[NDArray[np.float32], bool]:
        try:
            recording = decode(file.read_bytes(), LONGEST_S)
        except (OSError, InputError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise FileError(f"{file}: {reason}") from error
        report, speech = detector.detect(recording)
        vector = embedder.embed(speech if len(speech) else recording.samples).vector
        advance()
        return vector, report.net_speech_s == 0.0

    with ThreadPoolExecutor(available_cores()) as pool:
        results = list(pool.map(embed, files))
    return np.stack([vector for vector, _ in results]), sum(silent for _, silent in results)
