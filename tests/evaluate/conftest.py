from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sayso.evaluate.trials import TrialList, read_trials

Made = tuple[np.ndarray, TrialList]


@pytest.fixture
def make_trials(tmp_path: Path) -> Callable[..., Made]:
    """Scores and a trial list of synthetic speakers: every pair of recordings of a corpus is a trial."""

    def make(
        speakers: int = 8, recordings: int = 3, separation: float = 0.35, corpora: int = 1, seed: int = 0
    ) -> Made:
        rng = np.random.default_rng(seed)
        lines, scores = [], []
        for corpus in range(corpora):
            paths = [
                (s, f"dev/corpus{corpus}/s{s}/{r}.wav") for s in range(speakers) for r in range(recordings)
            ]
            for i, (speaker, path) in enumerate(paths):
                for other, other_path in paths[:i]:
                    same = speaker == other
                    lines.append(f"{int(same)} {path} {other_path}")
                    scores.append(rng.normal(0.2 + separation * same, 0.12))
        target = tmp_path / f"made{speakers}-{corpora}-{seed}.trials"
        target.write_text("\n".join(lines) + "\n")
        return np.clip(scores, -1, 1), read_trials(target)

    return make
