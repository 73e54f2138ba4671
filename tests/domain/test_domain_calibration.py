"""A calibration read and written, its false match curve, and thresholds for searches."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sayso.domain.calibration import (
    Calibration,
    CurvePoint,
    FalseMatchCurve,
    Histogram,
    OperatingPoint,
    TrialIdentity,
)
from sayso.domain.evidence import ANY, LlrModel

CURVE = FalseMatchCurve((0.5, 0.1, 0.01), (0.1, 0.3, 0.5), tail_scale=0.08)
scores = st.floats(-1, 1)
rates = st.floats(1e-12, 1.0)


@st.composite
def curves(draw: st.DrawFn) -> FalseMatchCurve:
    exponents = draw(st.sets(st.integers(0, 60), min_size=1, max_size=8))
    fmr = [10 ** (-exponent / 10) for exponent in sorted(exponents)]
    threshold = sorted(draw(st.lists(scores, min_size=len(fmr), max_size=len(fmr))))
    return FalseMatchCurve(tuple(fmr), tuple(threshold), draw(st.floats(1e-3, 1.0)))


def calibration(curve: FalseMatchCurve) -> Calibration:
    return Calibration(
        (TrialIdentity("dev.trials", "0" * 64, 10, 20, 5),),
        LlrModel.line(20.0, -8.0),
        {"eer": {ANY: OperatingPoint(0.5, 0.09, 0.09), "wide/narrow": OperatingPoint(0.2, 0.08, 0.1)}},
        {ANY: curve},
        Histogram((-10.0, 0.0, 10.0), (0.01, 0.09), (0.08, 0.02)),
        0.2,
    )


def test_a_calibration_survives_json() -> None:
    made = replace(calibration(CURVE), search_growth=0.8)
    assert Calibration.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_card_of_schema_1_decides_as_it_did() -> None:
    """Its thresholds were scores: the same scores are accepted by their LLR."""
    read = Calibration.from_schema_1(
        {
            "llr": {"slope": 20.0, "offset": -8.0},
            "operating_points": {"eer": {"threshold": 0.42, "fmr": 0.09, "fnmr": 0.09}},
            "trials": {"name": "dev", "sha256": "0" * 64, "targets": 1, "nontargets": 2, "speakers": 3},
            "false_match_curve": {"fmr": [0.5, 0.1, 0.01], "threshold": [0.1, 0.3, 0.5], "tail_scale": 0.08},
            "histogram": {"edges": [-1.0, 0.0, 1.0], "target": [0.1, 0.9], "nontarget": [0.8, 0.2]},
        }
    )
    assert read.point("eer", "wide/narrow").threshold == pytest.approx(20.0 * 0.42 - 8.0)
    assert read.false_match_curves[ANY].threshold == pytest.approx((-6.0, -2.0, 2.0))
    assert read.false_match_curves[ANY].tail_scale == pytest.approx(1.6)
    assert read.histogram.edges == pytest.approx((-28.0, -8.0, 12.0))
    assert sum(np.diff(read.histogram.edges) * read.histogram.target) == pytest.approx(1.0)
    assert read.search_growth == 1.0
    assert read.cohesion_floor == pytest.approx(-0.9)  # below it lies 1 in 100 of the targets


def test_a_pair_of_bands_without_a_point_has_that_of_any() -> None:
    made = calibration(CURVE)
    assert made.point("eer", "wide/narrow").threshold == 0.2
    assert made.point("eer", "narrow/narrow").threshold == made.point("eer").threshold == 0.5


def test_searches_that_grow_slower_have_a_lower_threshold() -> None:
    slow = replace(calibration(CURVE), search_growth=0.5)
    assert (
        slow.search_threshold(0.05, 100).threshold < calibration(CURVE).search_threshold(0.05, 100).threshold
    )
    assert slow.search_threshold(0.05, 1) == calibration(CURVE).search_threshold(0.05, 1)


@given(curves(), rates, rates)
def test_a_lower_rate_never_lowers_the_threshold(curve: FalseMatchCurve, a: float, b: float) -> None:
    low, high = sorted([a, b])
    assert curve.threshold_for(low).threshold >= curve.threshold_for(high).threshold


@given(curves(), st.floats(1e-6, 0.5), st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_threshold_rises_with_the_number_searched(
    curve: FalseMatchCurve, fpir: float, a: int, b: int
) -> None:
    few, many = sorted([a, b])
    assert (
        calibration(curve).search_threshold(fpir, few).threshold
        <= calibration(curve).search_threshold(fpir, many).threshold
    )


@given(curves())
def test_the_curve_goes_through_its_table(curve: FalseMatchCurve) -> None:
    for fmr, threshold in zip(curve.fmr, curve.threshold, strict=True):
        point = curve.threshold_for(fmr)
        assert point.threshold == pytest.approx(threshold, abs=1e-9)
        assert not point.extrapolated


def test_between_and_beyond_the_table() -> None:
    middle = math.sqrt(0.1 * 0.01)
    assert CURVE.threshold_for(middle).threshold == pytest.approx(0.4)
    assert CURVE.threshold_for(1.0) == CurvePoint(0.1, extrapolated=False)
    beyond = CURVE.threshold_for(0.001)
    assert beyond.extrapolated
    assert beyond.threshold == pytest.approx(0.5 + 0.08 * math.log(10))


@given(st.floats(0.001, 0.5), st.integers(1, 1000))
def test_the_identification_rate_is_what_was_asked_for(fpir: float, searched: int) -> None:
    exact = FalseMatchCurve((1.0,), (-1.0,), tail_scale=0.1)
    threshold = calibration(exact).search_threshold(fpir, searched).threshold
    fmr = math.exp(-(threshold + 1.0) / 0.1)
    assert 1 - (1 - fmr) ** searched == pytest.approx(fpir, rel=1e-6)


def test_one_candidate_is_verification_and_none_is_one() -> None:
    assert calibration(CURVE).search_threshold(0.1, 1).threshold == pytest.approx(0.3)
    assert calibration(CURVE).search_threshold(0.1, 0) == calibration(CURVE).search_threshold(0.1, 1)


@pytest.mark.parametrize(
    ("fmr", "threshold", "tail_scale"),
    [
        ((), (), 0.1),
        ((0.1,), (0.1, 0.2), 0.1),
        ((0.1, 0.1), (0.1, 0.2), 0.1),
        ((0.1, 0.2), (0.1, 0.2), 0.1),
        ((0.1, 0.0), (0.1, 0.2), 0.1),
        ((2.0, 0.1), (0.1, 0.2), 0.1),
        ((0.2, 0.1), (0.2, 0.1), 0.1),
        ((0.1,), (0.5,), 0.0),
        ((math.nan,), (0.5,), 0.1),
        ((0.1,), (math.nan,), 0.1),
    ],
)
def test_a_table_that_is_no_curve_is_refused(
    fmr: tuple[float, ...], threshold: tuple[float, ...], tail_scale: float
) -> None:
    with pytest.raises(ValueError, match=r"fmr|threshold|tail_scale"):
        FalseMatchCurve(fmr, threshold, tail_scale)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, math.nan])
def test_rates_that_are_none_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        CURVE.threshold_for(rate)
    with pytest.raises(ValueError, match="rate"):
        calibration(CURVE).search_threshold(rate, 1)


def test_a_threshold_lets_through_what_it_was_tuned_for() -> None:
    """On the very trials it was read from: the promise the whole table rests on."""
    rng = np.random.default_rng(3)
    impostors = np.sort(rng.normal(0.1, 0.1, 20_000))
    fmr = (0.1, 0.03, 0.01, 0.003, 0.001)
    table = tuple(float(impostors[-round(rate * impostors.size)]) for rate in fmr)
    curve = FalseMatchCurve(fmr, table, 0.02)
    for rate in fmr:
        assert np.mean(impostors >= curve.threshold_for(rate).threshold) <= rate * 1.001
