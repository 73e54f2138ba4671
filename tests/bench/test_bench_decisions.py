"""Decisions counted over HTTP: on a few synthetic voices, since what is tested is the counting."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sayso.bench import decisions
from sayso.evaluate.trials import TemplateTrials, read_template_trials
from sayso.runtime.synthesis import synthetic_voice

VOICES = {"ann": (205, 1.16), "bob": (105, 0.94)}


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> tuple[TemplateTrials, Path]:
    """Two people with a template each, and a probe of each against both templates."""
    root = tmp_path_factory.mktemp("decisions")
    for name, (pitch, tract) in VOICES.items():
        for take, seconds in enumerate((6.0, 3.0)):
            sf.write(root / f"{name}{take}.wav", synthetic_voice(seconds, pitch, tract, seed=take), 16_000)
    (root / "t.map").write_text("ann-t ann0.wav\nbob-t bob0.wav\n")
    (root / "t.trials").write_text("1 ann-t ann1.wav\n1 bob-t bob1.wav\n0 ann-t bob1.wav\n0 bob-t ann1.wav\n")
    return read_template_trials(root / "t.trials", root / "t.map"), root


def test_what_the_service_answered_is_counted(trials: tuple[TemplateTrials, Path]) -> None:
    listed, root = trials
    told: list[tuple[int, int]] = []
    (row,) = decisions.measure(
        "nested", listed, root, "fmr=0.01", False, lambda corpus, done, total: told.append((done, total))
    )
    assert (row.people, row.targets, row.nontargets) == (2, 2, 2)
    assert row.own_refused == 0.0  # another take of the very same synthetic voice
    assert row.false_accepts == 0.0
    assert row.stated_fmr is None or row.stated_fmr == pytest.approx(0.01, rel=0.1)
    assert told[-1] == (4, 4)


def test_a_telephone_line_leaves_out_what_is_high(trials: tuple[TemplateTrials, Path]) -> None:
    _, root = trials
    sent, rate = sf.read(io.BytesIO(decisions._sent(root / "ann1.wav", True, 0)))
    assert rate == 16_000
    power = np.abs(np.fft.rfft(sent)) ** 2
    cut = len(power) * 4_200 // 8_000
    assert power[cut:].sum() < 1e-3 * power.sum()
