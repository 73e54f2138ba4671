"""Searches counted over HTTP: on a few synthetic voices, since what is tested is the counting."""

from pathlib import Path

import pytest
import soundfile as sf

from sayso.bench.identification import measure
from sayso.evaluate.trials import TemplateTrials, read_template_trials
from sayso.runtime.synthesis import synthetic_voice

VOICES = {"ann": (205, 1.16), "bob": (105, 0.94), "eve": (150, 1.02)}


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> tuple[TemplateTrials, Path]:
    """Three people with a template and a probe each."""
    root = tmp_path_factory.mktemp("searches")
    for name, (pitch, tract) in VOICES.items():
        for take, seconds in enumerate((6.0, 3.0)):
            sf.write(root / f"{name}{take}.wav", synthetic_voice(seconds, pitch, tract, seed=take), 16_000)
    (root / "t.map").write_text("".join(f"{name}-t {name}0.wav\n" for name in VOICES))
    (root / "t.trials").write_text("".join(f"{int(t == p)} {t}-t {p}1.wav\n" for t in VOICES for p in VOICES))
    return read_template_trials(root / "t.trials", root / "t.map"), root


def test_probes_of_people_who_are_not_enrolled_are_strangers(trials: tuple[TemplateTrials, Path]) -> None:
    told: list[tuple[int, int]] = []
    (row,) = measure(
        "nested", *trials, sizes=(2,), progress=lambda corpus, done, total: told.append((done, total))
    )
    assert (row.people, row.own, row.strangers) == (2, 2, 1)
    assert row.fpir == pytest.approx(0.05)
    assert row.own_missed in (0.0, 0.5, 1.0)
    assert told[-1] == (3, 3)


def test_with_everybody_enrolled_there_are_no_strangers(trials: tuple[TemplateTrials, Path]) -> None:
    (row,) = measure("nested", *trials, sizes=(400,))
    assert (row.people, row.own, row.strangers, row.strangers_matched) == (3, 3, 0, 0.0)
