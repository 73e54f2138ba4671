"""Embeds files the way the service does, for commands that work through many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sayso.runtime.audio import decode
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import InputError
from sayso.runtime.session import available_cores
from sayso.runtime.speech import SpeechDetector, SpeechReport

LONGEST_S = 3600.0
_NAMED = 10  # files in an error's message


class FileError(InputError):
    """Some of the files cannot be used; the message names them."""

    code = "file_invalid"


@dataclass(frozen=True)
class EmbeddedFiles:
    """Unit vectors float32 `[files, dim]` and speech reports, in the order of the files.

    A file without detectable speech is embedded whole, since an evaluation needs a score for every trial; the
    service refuses it.
    """

    vectors: NDArray[np.float32]
    reports: tuple[SpeechReport, ...]

    @property
    def net_speech_s(self) -> NDArray[np.float64]:
        """Seconds of speech in each file, `[files]`."""
        return np.array([report.net_speech_s for report in self.reports], dtype=np.float64)

    @property
    def without_speech(self) -> int:
        """How many files hold no detectable speech."""
        return int((self.net_speech_s == 0.0).sum())


def embed_files(
    embedder: Embedder, files: Sequence[Path], progress: Callable[[int, int], None] = lambda done, total: None
) -> EmbeddedFiles:
    """Embed files; `progress` is called with the files done and their total.

    Raises `FileError`, after all were tried, naming those that cannot be read or decoded.
    """
    require_files(files)
    detector = SpeechDetector()

    def embed(file: Path) -> tuple[NDArray[np.float32], SpeechReport] | str:
        try:
            recording = decode(file.read_bytes(), LONGEST_S)
        except (OSError, InputError) as error:
            return f"{file}: {error.strerror if isinstance(error, OSError) else error}"
        report, speech = detector.detect(recording)
        vector = embedder.embed(speech if len(speech) else recording.samples).vector
        return vector, report

    with ThreadPoolExecutor(available_cores()) as pool:
        results = []
        for result in pool.map(embed, files):
            results.append(result)
            progress(len(results), len(files))
    embedded = [result for result in results if not isinstance(result, str)]
    if len(embedded) < len(results):
        raise FileError(_listed([result for result in results if isinstance(result, str)]))
    return EmbeddedFiles(
        np.stack([vector for vector, _ in embedded]), tuple(report for _, report in embedded)
    )


def require_files(files: Sequence[Path]) -> None:
    """Raise `FileError` naming the files that do not exist, before any work is done."""
    missing = [f"{file}: no such file" for file in files if not file.is_file()]
    if missing:
        raise FileError(_listed(missing))


def _listed(problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    shown = [*problems[:_NAMED]] + ([f"and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else [])
    return f"{len(problems)} files cannot be used: " + "; ".join(shown)
