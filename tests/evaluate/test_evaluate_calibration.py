import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from sayso.evaluate.calibration import false_match_curve, fit_llr_line
from sayso.evaluate.metrics import cllr, min_cllr


def gaussian(targets: int, nontargets: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.concatenate((rng.normal(0.6, 0.1, targets), rng.normal(0.3, 0.1, nontargets)))
    return scores, np.arange(targets + nontargets) < targets


def test_the_line_agrees_with_a_general_optimiser() -> None:
    scores, labels = gaussian(200, 900)
    best = minimize(lambda line: cllr(line[0] * scores + line[1], labels), (1.0, 0.0), method="BFGS")
    assert fit_llr_line(scores, labels) == pytest.approx(tuple(best.x), rel=1e-3)


def test_the_line_finds_the_true_llr_of_gaussian_scores() -> None:
    # Two Gaussians of one variance: llr = (m1 - m0) / v * (score - (m1 + m0) / 2) = 30 * score - 13.5.
    slope, offset = fit_llr_line(*gaussian(40_000, 40_000))
    assert slope == pytest.approx(30, rel=0.03)
    assert offset == pytest.approx(-13.5, rel=0.03)


def test_the_line_holds_no_prior() -> None:
    scores, labels = gaussian(300, 300)
    repeated = np.concatenate((scores, np.tile(scores[~labels], 9)))
    line, same = fit_llr_line(scores, labels), fit_llr_line(repeated, np.arange(repeated.size) < 300)
    # Only the ridge, which is in units of the pooled spread, can tell the two apart.
    assert same == pytest.approx(line, rel=1e-3)


@pytest.mark.parametrize("gap", [1e-6, 0.01, 1.0])
def test_separated_scores_give_a_finite_line(gap: float) -> None:
    scores, labels = np.array([0.1, 0.1 - gap, 0.1 + gap, 0.1 + 2 * gap]), np.array([0, 0, 1, 1])
    slope, offset = fit_llr_line(scores, labels)
    assert np.isfinite([slope, offset]).all()
    assert slope > 0
    assert cllr(slope * scores + offset, labels) < 0.05


def test_one_hard_nontarget_does_not_derail_the_fit() -> None:
    # Newton's full steps run off to a singular Hessian here.
    scores = np.array([-1.0] * 65 + [-0.27, 0.805] + [1.0] * 21)
    slope, offset = fit_llr_line(scores, np.arange(88) >= 67)
    assert slope > 0
    assert 0.805 < -offset / slope < 1


def test_equal_scores_tell_nothing() -> None:
    assert fit_llr_line([0.3, 0.3, 0.3], [1, 0, 0]) == (0, 0)


@given(
    st.lists(st.tuples(st.integers(-20, 20).map(lambda n: n / 20), st.booleans()), min_size=3, max_size=30)
)
def test_the_fit_is_never_worse_than_saying_nothing(rows: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in rows] + [0.1, 0.2])
    labels = np.array([label for _, label in rows] + [False, True])
    slope, offset = fit_llr_line(scores, labels)
    cost = cllr(slope * scores + offset, labels)
    assert min_cllr(scores, labels) - 1e-9 <= cost or slope < 0
    assert cost <= 1 + 1e-9


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
