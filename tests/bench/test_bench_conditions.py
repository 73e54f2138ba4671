"""EER by condition: the second recording is changed, the first is not, and too short ones are left out."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sayso.bench import conditions
from sayso.bench.conditions import measure, table
from sayso.evaluate.trials import TrialList, read_trials
from sayso.runtime.audio import Recording
from sayso.runtime.speech import SpeechDetector
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.settings import SHIPPED_MODELS

VOICES = {"ann": (205, 1.16), "bob": (105, 0.94)}


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialList, Path]:
    """Two takes of two voices, one of 7 s, one of 2.5 s."""
    root = tmp_path_factory.mktemp("trials")
    for name, (pitch, tract) in VOICES.items():
        for take, seconds in enumerate((7.0, 2.5)):
            sf.write(root / f"{name}{take}.wav", synthetic_voice(seconds, pitch, tract, seed=take), 16_000)
    (root / "t.trials").write_text(
        "1 ann0.wav ann1.wav\n1 bob0.wav bob1.wav\n0 ann0.wav bob1.wav\n0 bob0.wav ann1.wav\n"
        "1 ann1.wav ann0.wav\n0 bob1.wav ann0.wav\n"
    )
    return read_trials(root / "t.trials"), root


def test_each_condition_is_measured_on_the_trials_long_enough(trials: tuple[TrialList, Path]) -> None:
    listed, root = trials
    told: list[tuple[int, int]] = []
    model = {"baseline": SHIPPED_MODELS / "baseline.onnx"}
    rows = {r.condition: r for r in measure(model, listed, root, "cpu", lambda *n: told.append(n))}
    assert told[-1] == (4, 4)
    assert set(rows) == {"whole", "1 s", "2 s", "3 s", "5 s", "8 kHz", "20 dB", "10 dB", "5 dB"}
    assert (rows["whole"].targets, rows["whole"].nontargets) == (3, 3)
    assert (rows["5 s"].targets, rows["5 s"].nontargets) == (1, 1)  # second recordings of 7 s alone
    assert rows["whole"].eer == rows["whole"].reference == rows["8 kHz"].reference
    for row in rows.values():
        assert 0.0 <= row.eer <= 1.0
    drawn = table(list(rows.values()))
    assert "| baseline | 5 s | 1 + 1 |" in drawn


def test_what_is_heard_under_a_condition_is_what_its_name_says() -> None:
    voice = synthetic_voice(4.0, 150, 1.0, seed=1)
    recording = Recording(voice, 16_000, 0.0, ())
    heard = dict(conditions._heard(recording, 7, SpeechDetector()))
    assert len(heard["1 s"]) == 16_000
    assert len(heard["3 s"]) == 48_000
    assert "5 s" not in heard
    start = (len(heard["whole"]) - 16_000) // 2
    np.testing.assert_array_equal(heard["1 s"], heard["whole"][start : start + 16_000])
    narrow = np.abs(np.fft.rfft(heard["8 kHz"])) ** 2
    cut = len(narrow) * 4_200 // 8_000
    assert narrow[cut:].sum() < 1e-4 * narrow[:cut].sum()
    again = dict(conditions._heard(recording, 7, SpeechDetector()))
    np.testing.assert_array_equal(again["5 dB"], heard["5 dB"])  # the same noise for every model
