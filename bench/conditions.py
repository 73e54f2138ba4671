"""EER where it is hard: short speech, a narrow band, noise, for several models on the same trials.

Only the second recording of each trial is changed, as when somebody enrols in peace and verifies from
wherever they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sayso.evaluate.metrics import eer
from sayso.evaluate.trials import TrialList
from sayso.runtime.audio import SAMPLE_RATE, Recording, Samples, decode
from sayso.runtime.embedder import Embedder
from sayso.runtime.session import Provider, available_cores
from sayso.runtime.speech import SpeechDetector
from sayso.train.waveform import change_bandwidth, coloured_noise, mix

LENGTHS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
SNRS_DB = (20.0, 10.0, 5.0)
_LONGEST_S = 3600.0


@dataclass(frozen=True)
class Row:
    """One model under one condition. `reference` is its EER on the same trials left as they are."""

    model: str
    condition: str
    eer: float
    reference: float
    targets: int
    nontargets: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    models: Mapping[str, Path],
    trials: TrialList,
    root: Path,
    provider: Provider,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Score every trial under every condition. Conditions without targets or non-targets are left out."""
    detector = SpeechDetector()
    rows = []
    with ExitStack() as stack:
        loaded = {name: stack.enter_context(Embedder(path, provider, 1)) for name, path in models.items()}

        def embed(name: str) -> dict[tuple[str, str], NDArray[np.float32]]:
            recording = decode((root / name).read_bytes(), _LONGEST_S)
            heard = dict(_heard(recording, crc32(name.encode()), detector))
            return {
                (model, condition): embedder.embed(samples).vector
                for model, embedder in loaded.items()
                for condition, samples in heard.items()
            }

        with ThreadPoolExecutor(available_cores()) as pool:
            vectors = []
            for done in pool.map(embed, trials.recordings):
                vectors.append(done)
                progress(len(vectors), len(trials.recordings))
    for model in models:
        for condition in _conditions():
            rows += _score(model, condition, vectors, trials)
    return rows


def _conditions() -> list[str]:
    lengths = [f"{seconds:g} s" for seconds in LENGTHS_S]
    return ["whole", *lengths, "8 kHz", *(f"{snr:g} dB" for snr in SNRS_DB)]


def _heard(recording: Recording, seed: int, detector: SpeechDetector) -> list[tuple[str, Samples]]:
    """What is embedded under each condition that the recording is long enough for."""
    report, speech = detector.detect(recording)
    whole = speech if len(speech) else recording.samples
    found = [("whole", whole)]
    for seconds in LENGTHS_S:
        wanted = round(seconds * SAMPLE_RATE)
        # Net speech is counted tightly and embedded with its pauses: both must reach the length.
        if report.net_speech_s >= seconds and len(speech) >= wanted:
            start = (len(speech) - wanted) // 2
            found.append((f"{seconds:g} s", speech[start : start + wanted]))
    changed = {"8 kHz": change_bandwidth(recording.samples, 8_000)}
    rng = np.random.default_rng(seed)
    for snr in SNRS_DB:
        noise = coloured_noise(len(recording.samples), 1.0, rng)
        changed[f"{snr:g} dB"] = mix(recording.samples, noise, snr)
    for name, samples in changed.items():
        _, speech = detector.detect(replace(recording, samples=samples))
        found.append((name, speech if len(speech) else samples))
    return found


def _score(
    model: str,
    condition: str,
    vectors: Sequence[Mapping[tuple[str, str], NDArray[np.float32]]],
    trials: TrialList,
) -> list[Row]:
    whole = np.stack([v[model, "whole"] for v in vectors])
    has = np.array([(model, condition) in v for v in vectors])
    changed = np.stack([v.get((model, condition), v[model, "whole"]) for v in vectors])
    kept = has[trials.second]
    labels = trials.labels[kept]
    if not labels.any() or labels.all():
        return []
    first = whole[trials.first[kept]]

    def rate(second: NDArray[np.float32]) -> float:
        return eer((first * second[trials.second[kept]]).sum(axis=1), labels)[0]

    return [Row(model, condition, rate(changed), rate(whole), int(labels.sum()), int((~labels).sum()))]


def table(rows: Sequence[Row]) -> str:
    """Rows as Markdown."""
    lines = [
        "| model | second recording | trials | EER | unchanged |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.model} | {r.condition} | {r.targets} + {r.nontargets} | {r.eer:.2%} | {r.reference:.2%} |"
        for r in rows
    ]
    return "\n".join(lines)
