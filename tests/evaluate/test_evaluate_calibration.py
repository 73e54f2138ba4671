import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from sayso.evaluate.calibration import false_match_curve, fit_calibration, fit_llr_line
from sayso.evaluate.metrics import cllr, error_rates, min_cllr
from sayso.evaluate.trials import TrialList

Make = Callable[..., tuple[np.ndarray, TrialList]]


def gaussian(targets: int, nontargets: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.concatenate((rng.normal(0.6, 0.1, targets), rng.normal(0.3, 0.1, nontargets)))
    return scores, np.arange(targets + nontargets) < targets


def test_the_line_agrees_with_a_general_optimiser() -> None:
    scores, labels = gaussian(200, 900)
    best = minimize(lambda line: cllr(line[0] * scores + line[1], labels), (1.0, 0.0), method="BFGS")
    line = fit_llr_line(scores, labels)
    assert (line.slope, line.offset) == pytest.approx(tuple(best.x), rel=1e-3)


def test_the_line_finds_the_true_llr_of_gaussian_scores() -> None:
    # Two Gaussians of one variance: llr = (m1 - m0) / v * (score - (m1 + m0) / 2) = 30 * score - 13.5.
    line = fit_llr_line(*gaussian(40_000, 40_000))
    assert line.slope == pytest.approx(30, rel=0.03)
    assert line.offset == pytest.approx(-13.5, rel=0.03)


def test_the_line_holds_no_prior() -> None:
    scores, labels = gaussian(300, 300)
    repeated = np.concatenate((scores, np.tile(scores[~labels], 9)))
    line, same = fit_llr_line(scores, labels), fit_llr_line(repeated, np.arange(repeated.size) < 300)
    # Only the ridge, which is in units of the pooled spread, can tell the two apart.
    assert (same.slope, same.offset) == pytest.approx((line.slope, line.offset), rel=1e-3)


@pytest.mark.parametrize("gap", [1e-6, 0.01, 1.0])
def test_separated_scores_give_a_finite_line(gap: float) -> None:
    scores, labels = np.array([0.1, 0.1 - gap, 0.1 + gap, 0.1 + 2 * gap]), np.array([0, 0, 1, 1])
    line = fit_llr_line(scores, labels)
    assert np.isfinite([line.slope, line.offset]).all()
    assert line.slope > 0
    assert cllr(line(scores), labels) < 1e-3


def test_one_hard_nontarget_does_not_derail_the_fit() -> None:
    # Newton's full steps run off to a singular Hessian here.
    scores = np.array([-1.0] * 65 + [-0.27, 0.805] + [1.0] * 21)
    line = fit_llr_line(scores, np.arange(88) >= 67)
    assert line.slope > 0
    assert 0.805 < -line.offset / line.slope < 1


def test_equal_scores_tell_nothing() -> None:
    line = fit_llr_line([0.3, 0.3, 0.3], [1, 0, 0])
    assert (line.slope, line.offset) == (0, 0)


@given(
    st.lists(st.tuples(st.integers(-20, 20).map(lambda n: n / 20), st.booleans()), min_size=3, max_size=30)
)
def test_the_fit_is_never_worse_than_saying_nothing(rows: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in rows] + [0.1, 0.2])
    labels = np.array([label for _, label in rows] + [False, True])
    line = fit_llr_line(scores, labels)
    assert min_cllr(scores, labels) - 1e-9 <= cllr(line(scores), labels) or line.slope < 0
    assert cllr(line(scores), labels) <= 1 + 1e-9


def test_the_card_entry_has_the_agreed_shape(make_trials: Make) -> None:
    scores, trials = make_trials(speakers=20)
    entry = fit_calibration(scores, trials).to_dict()
    assert json.loads(json.dumps(entry)) == entry
    assert entry["trials"] == {
        "name": trials.name,
        "sha256": trials.sha256,
        "targets": 60,
        "nontargets": 1710,
        "speakers": 20,
    }
    assert set(entry) == {"trials", "llr", "operating_points", "false_match_curve", "histogram"}
    assert set(entry["llr"]) == {"slope", "offset"}
    assert set(entry["operating_points"]) == {"eer", "fmr=0.01", "fmr=0.001"}
    for point in entry["operating_points"].values():
        assert set(point) == {"threshold", "fmr", "fnmr"}
    assert set(entry["false_match_curve"]) == {"fmr", "threshold", "tail_scale"}
    assert set(entry["histogram"]) == {"edges", "target", "nontarget"}
    assert [len(entry["histogram"][key]) for key in ("edges", "target", "nontarget")] == [81, 80, 80]


def test_stored_rates_are_those_of_the_stored_threshold(make_trials: Make) -> None:
    scores, trials = make_trials(speakers=20)
    points = fit_calibration(scores, trials).operating_points
    for point in points.values():
        rates = error_rates(scores, trials.labels, point.threshold)
        assert (point.fmr, point.fnmr) == pytest.approx(rates, abs=1e-6)
    assert points["fmr=0.01"].fmr <= 0.01
    assert points["fmr=0.001"].fmr <= 0.001
    assert points["eer"].fmr == pytest.approx(points["eer"].fnmr, abs=1 / 60)


def test_rounded_scores_keep_the_promised_fmr(make_trials: Make) -> None:
    # Scores on the grid that thresholds are stored on: rounding down by one step would accept one more.
    scores, trials = make_trials(speakers=20)
    scores = np.round(scores, 2)
    points = fit_calibration(scores, trials).operating_points
    assert error_rates(scores, trials.labels, points["fmr=0.01"].threshold).fmr <= 0.01


def test_the_calibration_reports_its_own_cost(make_trials: Make) -> None:
    calibration = fit_calibration(*make_trials(speakers=20))
    assert 0 < calibration.min_cllr <= calibration.cllr < 0.5


def test_histograms_are_densities(make_trials: Make) -> None:
    histogram = fit_calibration(*make_trials()).histogram
    for heights in (histogram.target, histogram.nontarget):
        assert sum(heights) * 0.025 == pytest.approx(1, abs=1e-4)


def test_order_within_pairs_changes_nothing(make_trials: Make) -> None:
    scores, trials = make_trials()
    swapped = dataclasses.replace(trials, first=trials.second, second=trials.first)
    assert fit_calibration(scores, swapped) == fit_calibration(scores, trials)


def test_scores_that_are_no_cosines_are_refused(make_trials: Make) -> None:
    scores, trials = make_trials()
    with pytest.raises(ValueError, match="cosines"):
        fit_calibration(scores * 20, trials)
    with pytest.raises(ValueError, match="one label per score"):
        fit_calibration(scores[:-1], trials)


@given(st.lists(st.integers(-30, 30).map(lambda n: n / 30), min_size=1, max_size=200))
def test_the_false_match_curve_keeps_its_promise(scores: list[float]) -> None:
    nontargets = np.array(scores)
    curve = false_match_curve(nontargets)
    assert len(curve.fmr) == len(curve.threshold) > 0
    assert np.all(np.diff(curve.fmr) < 0)
    assert np.all(np.diff(curve.threshold) > 0)
    assert curve.tail_scale > 0
    for fmr, threshold in zip(curve.fmr, curve.threshold, strict=True):
        assert np.mean(nontargets >= threshold) <= fmr


def test_stored_thresholds_are_never_rounded_down() -> None:
    # In 47 of these a threshold just over the score, times a million, comes out as the score's own step.
    for step in range(-1000, 1001):
        assert false_match_curve([step / 1000]).threshold[0] > step / 1000


def test_the_false_match_curve_spans_what_the_trials_support() -> None:
    curve = false_match_curve(np.random.default_rng(0).uniform(-1, 1, 20_000))
    assert curve.fmr[0] == 0.3
    assert curve.fmr[-1] == pytest.approx(10 / 20_000)


def test_the_tail_carries_on_an_exponential() -> None:
    # Tuned on 20,000, checked at 2e-5 on two million fresh draws of the same law.
    rng = np.random.default_rng(0)
    curve = false_match_curve(rng.exponential(0.05, 20_000) - 0.5)
    assert curve.tail_scale == pytest.approx(0.05, rel=0.15)
    threshold = curve.threshold[-1] + curve.tail_scale * np.log(curve.fmr[-1] / 2e-5)
    fresh = rng.exponential(0.05, 2_000_000) - 0.5
    assert 0.5e-5 < np.mean(fresh >= threshold) < 8e-5


@pytest.mark.parametrize("scores", [[0.1], [0.1, 0.1, 0.1], [0.1, 0.2]])
def test_a_handful_of_nontargets_still_give_a_curve(scores: list[float]) -> None:
    curve = false_match_curve(scores)
    assert curve.fmr == (0.3,)
    assert curve.threshold[0] > max(scores)
    assert curve.tail_scale >= 1e-6
