"""The conditions that `calibrate` makes of a list of templates: bands and lengths."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf

from sayso.conditions import PROBES, compare_all
from sayso.evaluate.calibration import _conditions
from sayso.evaluate.tenants import Comparisons
from sayso.evaluate.trials import read_template_trials
from sayso.runtime.audio import Samples
from sayso.runtime.synthesis import synthetic_voice


class _Spectrum:
    """Stands for a network: a recording's power in 64 bands, as a unit vector."""

    def embed(self, speech: Samples) -> SimpleNamespace:
        bands = [b.sum() for b in np.array_split(np.abs(np.fft.rfft(speech)) ** 2, 64)]
        return SimpleNamespace(vector=(np.array(bands) / np.linalg.norm(bands)).astype(np.float32))


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> list[Comparisons]:
    """Ann has two recordings enrolled and three probes, bob one of each; a stranger speaks once."""
    root = tmp_path_factory.mktemp("calls") / "bank"
    root.mkdir()
    voices = {"ann": (205, 1.16, 5), "bob": (105, 0.94, 2), "eve": (150, 1.0, 1)}
    for name, (pitch, tract, takes) in voices.items():
        for take in range(takes):
            sf.write(root / f"{name}{take}.wav", synthetic_voice(5.0, pitch, tract, seed=take), 16_000)
    (root / "map").write_text("ann bank/ann0.wav bank/ann1.wav\nbob bank/bob0.wav\n")
    probes = ["ann2", "ann3", "ann4", "bob1", "eve0"]
    (root / "trials").write_text(
        "".join(
            f"{int(probe.startswith(template))} {template} bank/{probe}.wav\n"
            for template in ("ann", "bob")
            for probe in probes
        )
    )
    trials = read_template_trials(root / "trials", root / "map")
    return compare_all(_Spectrum(), [(trials, root.parent)])  # type: ignore[arg-type]


def test_each_pair_of_bands_is_made_with_every_length(comparisons: list[Comparisons]) -> None:
    assert Counter(c.condition for c in comparisons) == {
        "wide/wide": 6,  # whole and short, on the template and its first recording; both long
        "wide/narrow": 3,
        "narrow/wide": 3,
        "narrow/narrow": 4,
    }
    assert len(PROBES) == 4
    told_apart = {(c.condition, c.lengths) for c in comparisons}
    assert len(told_apart) == len(comparisons)
    assert ("wide/wide", "one recording enrolled, probe of 2 s") in told_apart


def test_long_probes_are_all_of_a_speakers_probes_as_one(comparisons: list[Comparisons]) -> None:
    whole = comparisons[0]
    calls = next(c for c in comparisons if len(c.probes.sides) == 1 and c.condition == "wide/wide")
    own = whole.probes.sides.net_speech_s[whole.probe[(whole.template == 0) & whole.labels]]
    assert calls.probes.sides.net_speech_s[0] == pytest.approx(own.sum())
    assert calls.probes.sides.recordings[0] == 1
    # One call of ann's, against her template and against bob's. Bob has one probe, eve no template.
    assert sorted(zip(calls.template.tolist(), calls.labels.tolist(), strict=True)) == [(0, True), (1, False)]


def test_long_templates_take_in_probes_that_then_are_no_probes(comparisons: list[Comparisons]) -> None:
    whole, grown = comparisons[0], comparisons[-2]
    assert grown.templates.sides.recordings.tolist() == [4, 1]
    assert grown.templates.sides.net_speech_s[0] > 1.8 * whole.templates.sides.net_speech_s[0]
    assert (int(grown.labels.sum()), int((~grown.labels).sum())) == (1, 2)  # ann4, bob1 and eve0 against ann


def test_the_range_of_a_calibration_reaches_what_any_condition_has(comparisons: list[Comparisons]) -> None:
    conditions = _conditions(comparisons)
    longest = max(c.probes.sides.net_speech_s.max() for c in comparisons)
    assert conditions.probe_speech_s.high == pytest.approx(longest, rel=0.05)
    assert conditions.probe_speech_s.low < 2.1
