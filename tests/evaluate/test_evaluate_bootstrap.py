import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from sayso.evaluate.bootstrap import speaker_bootstrap
from sayso.evaluate.metrics import eer, min_dcf
from sayso.evaluate.trials import TrialList

Make = Callable[..., tuple[np.ndarray, TrialList]]


def test_the_seed_decides(make_trials: Make) -> None:
    scores, trials = make_trials()
    assert speaker_bootstrap(scores, trials, 50, seed=3) == speaker_bootstrap(scores, trials, 50, seed=3)
    assert speaker_bootstrap(scores, trials, 50, seed=3) != speaker_bootstrap(scores, trials, 50, seed=4)


def test_intervals_agree_with_repeating_trials(make_trials: Make) -> None:
    scores, trials = make_trials(speakers=6)
    speakers = trials.speakers()
    rng = np.random.default_rng(0)
    measured = []
    while len(measured) < 30:
        drawn = np.bincount(rng.integers(6, size=6), minlength=6)
        pairs = list(zip(speakers[trials.first], speakers[trials.second], strict=True))
        times = [drawn[a] if a == b else drawn[a] * drawn[b] for a, b in pairs]
        some, labels = np.repeat(scores, times), np.repeat(trials.labels, times)
        if labels.any() and not labels.all():
            measured.append((eer(some, labels).rate, min_dcf(some, labels)))
    low, high = np.percentile(measured, (2.5, 97.5), axis=0)
    intervals = speaker_bootstrap(scores, trials, 30)
    assert intervals is not None
    assert intervals.eer == pytest.approx((low[0], high[0]))
    assert intervals.min_dcf == pytest.approx((low[1], high[1]))


def test_more_speakers_narrow_the_interval(make_trials: Make) -> None:
    few, many = make_trials(speakers=5), make_trials(speakers=25)
    intervals = [made for made in (speaker_bootstrap(*few, 100), speaker_bootstrap(*many, 100)) if made]
    widths = [high - low for low, high in (made.eer for made in intervals)]
    assert widths[1] < widths[0]


def test_order_within_pairs_changes_nothing(make_trials: Make) -> None:
    scores, trials = make_trials()
    swapped = dataclasses.replace(trials, first=trials.second, second=trials.first)
    assert speaker_bootstrap(scores, swapped, 50) == speaker_bootstrap(scores, trials, 50)


def test_few_speakers_have_no_interval(make_trials: Make) -> None:
    """Two speakers are drawn as they are or leave no non-targets: their interval would have no width."""
    for speakers in (2, 3, 4):
        assert speaker_bootstrap(*make_trials(speakers=speakers), 40) is None
    assert speaker_bootstrap(*make_trials(speakers=5), 40) is not None


def test_no_resamples_are_refused(make_trials: Make) -> None:
    with pytest.raises(ValueError, match="resamples"):
        speaker_bootstrap(*make_trials(), 0)
