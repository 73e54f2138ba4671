import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from sayso.evaluate.metrics import cllr, det_curve, eer, error_rates, min_cllr, min_dcf, threshold_at_fmr

# A coarse grid makes ties common; free floats make them rare. Both matter.
values = st.one_of(st.integers(-4, 4).map(lambda n: n / 4), st.floats(-1, 1, allow_subnormal=False, width=32))
trials = st.lists(st.tuples(values, st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


def split(rows: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = zip(*rows, strict=True)
    return np.array(scores), np.array(labels)


def test_det_curve_by_hand() -> None:
    scores, labels = [0.1, 0.4, 0.4, 0.8], [False, True, False, True]
    thresholds, fmr, fnmr = det_curve(scores, labels)
    assert thresholds.tolist() == [0.1, 0.4, 0.8, np.nextafter(0.8, 1)]
    assert fmr.tolist() == [1, 0.5, 0, 0]
    assert fnmr.tolist() == [0, 0, 0.5, 1]


def test_known_values() -> None:
    # One of four targets below one of four non-targets: a crossing at exactly one in four.
    scores = [0.9, 0.8, 0.7, 0.3, 0.4, 0.2, 0.1, 0.0]
    labels = [1, 1, 1, 1, 0, 0, 0, 0]
    assert eer(scores, labels).rate == 0.25
    assert error_rates(scores, labels, eer(scores, labels).threshold) == (0.25, 0.25)
    # The cheapest threshold at p = 0.01 rejects that target: 0.01 * 0.25 over the blind cost 0.01.
    assert min_dcf(scores, labels) == pytest.approx(0.25)
    # At p = 0.5 accepting the one non-target costs as much.
    assert min_dcf(scores, labels, p_target=0.5) == pytest.approx(0.25)
    assert min_dcf(scores, labels, p_target=0.5, c_fa=0.5) == pytest.approx(0.25)
    assert min_dcf(scores, labels, p_target=0.5, c_fa=0.1) == pytest.approx(0.25)


def test_interpolation_between_two_points() -> None:
    # Points (FMR, FNMR): (1, 0), (1/3, 0), (1/3, 1/2), (0, 1/2), (0, 1): the vertical step crosses at 1/3.
    assert eer([0.1, 0.2, 0.5, 0.4, 0.6], [0, 0, 0, 1, 1]).rate == pytest.approx(1 / 3)
    # All tied: one straight line from (1, 0) to (0, 1).
    assert eer([0.5, 0.5, 0.5], [0, 1, 1]).rate == pytest.approx(0.5)


def test_separated_scores_have_no_errors_and_a_threshold_between() -> None:
    scores, labels = [0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1]
    assert eer(scores, labels) == (0.0, pytest.approx(0.4))
    assert min_dcf(scores, labels) == 0
    assert min_cllr(scores, labels) == 0


def test_reversed_scores_are_wholly_wrong() -> None:
    scores, labels = [0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1]
    assert eer(scores, labels).rate == 1
    assert min_dcf(scores, labels) == 1
    assert min_cllr(scores, labels) == pytest.approx(1)


def test_cllr_by_hand() -> None:
    assert cllr([0.0, 0.0, 0.0], [1, 0, 0]) == pytest.approx(1)
    llr = math.log(3)  # a posterior of 3/4 at even odds
    assert cllr([llr, -llr], [1, 0]) == pytest.approx(math.log2(4 / 3))
    assert cllr([800.0, -800.0], [1, 0]) == 0
    assert cllr([-800.0, 800.0], [1, 0]) == pytest.approx(800 / math.log(2))  # no overflow


@given(trials)
def test_eer_agrees_with_a_brute_force_search(rows: list[tuple[float, bool]]) -> None:
    scores, labels = split(rows)
    thresholds = [*sorted(set(scores.tolist())), 2.0]
    points = [error_rates(scores, labels, t) for t in thresholds]
    at = next(i for i, point in enumerate(points) if point.fnmr >= point.fmr)
    (x0, y0), (x1, y1) = points[at - 1], points[at]
    # Where the line through both points meets fmr = fnmr.
    expected = (x0 * (y1 - y0) - y0 * (x1 - x0)) / ((y1 - y0) - (x1 - x0))
    result = eer(scores, labels)
    assert result.rate == pytest.approx(expected, abs=1e-12)
    gap = abs(np.subtract(*error_rates(scores, labels, result.threshold)))
    assert gap == pytest.approx(min(abs(x - y) for x, y in points), abs=1e-12)


@given(trials, st.floats(0.001, 0.999), st.floats(0.1, 10))
def test_min_dcf_agrees_with_a_brute_force_search(
    rows: list[tuple[float, bool]], p_target: float, c_fa: float
) -> None:
    scores, labels = split(rows)
    costs = [
        p_target * rates.fnmr + c_fa * (1 - p_target) * rates.fmr
        for rates in (error_rates(scores, labels, t) for t in [*scores, 2.0])
    ]
    expected = min(costs) / min(p_target, c_fa * (1 - p_target))
    assert min_dcf(scores, labels, p_target, c_fa=c_fa) == pytest.approx(expected)


@given(trials)
def test_monotone_maps_change_no_rate(rows: list[tuple[float, bool]]) -> None:
    scores, labels = split(rows)
    # Ranks are the steepest monotone map there is, and keep ties.
    ranks = np.unique(scores, return_inverse=True)[1].astype(float)
    for mapped in (ranks, 5 * ranks - 3, np.exp(ranks / 10)):
        assert eer(mapped, labels).rate == eer(scores, labels).rate
        assert min_dcf(mapped, labels) == min_dcf(scores, labels)
        assert min_cllr(mapped, labels) == min_cllr(scores, labels)


@given(trials)
def test_exchanging_the_classes_mirrors_the_curve(rows: list[tuple[float, bool]]) -> None:
    scores, labels = split(rows)
    assert eer(-scores, ~labels).rate == pytest.approx(eer(scores, labels).rate, abs=1e-12)
    assert min_cllr(-scores, ~labels) == pytest.approx(min_cllr(scores, labels), abs=1e-12)


@given(trials, st.data())
def test_weights_are_repetitions(rows: list[tuple[float, bool]], data: st.DataObject) -> None:
    scores, labels = split(rows)
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))
    assume(counts[labels].any() and counts[~labels].any())
    weighted = det_curve(scores, labels, counts)
    repeated = det_curve(np.repeat(scores, counts), np.repeat(labels, counts))
    assert weighted.eer().rate == pytest.approx(repeated.eer().rate, abs=1e-12)
    assert weighted.min_dcf() == pytest.approx(repeated.min_dcf(), abs=1e-12)
    assert (weighted.fmr[-1], weighted.fnmr[-1]) == (0, 1)


@given(st.lists(values, min_size=1, max_size=60), st.floats(0, 1, exclude_max=True))
def test_threshold_at_fmr_is_the_lowest_that_keeps_the_promise(scores: list[float], fmr: float) -> None:
    nontargets = np.array(scores)
    threshold = threshold_at_fmr(nontargets, fmr)
    assert np.mean(nontargets >= threshold) <= fmr
    assert np.mean(nontargets >= np.nextafter(threshold, -np.inf)) > fmr


@pytest.mark.parametrize("size", [7, 100, 1000])
def test_threshold_at_fmr_uses_the_whole_allowance(size: int) -> None:
    nontargets = np.arange(size, dtype=float)
    for allowed in range(size):
        assert np.sum(nontargets >= threshold_at_fmr(nontargets, allowed / size)) == allowed


@given(trials, st.floats(0.1, 20), st.floats(-5, 5))
def test_no_calibration_beats_min_cllr(rows: list[tuple[float, bool]], slope: float, offset: float) -> None:
    scores, labels = split(rows)
    least = min_cllr(scores, labels)
    assert 0 <= least <= 1 + 1e-12
    assert least <= cllr(slope * scores + offset, labels) + 1e-12


@settings(max_examples=50)
@given(trials)
def test_min_cllr_agrees_with_isotonic_regression(rows: list[tuple[float, bool]]) -> None:
    scores, labels = split(rows)
    distinct, place = np.unique(scores, return_inverse=True)
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    total = np.bincount(place, weights)
    target = np.bincount(place, weights * labels)
    posterior = isotonic_regression(target / total, weights=total).x[place] if distinct.size > 1 else 0.5
    chosen = np.where(labels, posterior, 1 - posterior)
    expected = -np.sum(weights * np.log2(np.maximum(chosen, 1e-300)))
    assert min_cllr(scores, labels) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("scores", "labels", "reason"),
    [
        ([0.1, 0.2], [1, 1], "no non-target trials"),
        ([0.1, 0.2], [0, 0], "no target trials"),
        ([], [], "no scores"),
        ([0.1, math.nan], [0, 1], "not finite; the first is number 1"),
        ([math.inf, 0.0], [0, 1], "not finite"),
        ([0.1, 0.2, 0.3], [0, 1], "one label per score"),
        ([[0.1, 0.2]], [[0, 1]], "one-dimensional"),
    ],
)
def test_unusable_trials_are_refused(scores: list[float], labels: list[int], reason: str) -> None:
    for measure in (eer, min_dcf, cllr, min_cllr, det_curve, lambda s, y: error_rates(s, y, 0.0)):
        with pytest.raises(ValueError, match=reason):
            measure(scores, labels)


def test_unusable_arguments_are_refused() -> None:
    scores, labels = [0.1, 0.2], [0, 1]
    for p_target in (0.0, 1.0):
        with pytest.raises(ValueError, match="p_target"):
            min_dcf(scores, labels, p_target)
    for fmr in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="fmr"):
            threshold_at_fmr(scores, fmr)
    for weights in ([1.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="weights must be"):
            det_curve(scores, labels, weights)
    with pytest.raises(ValueError, match="leave no targets"):
        det_curve(scores, labels, [1.0, 0.0])
