"""From scores to decisions: the laws, then the cases."""

import math

import numpy as np
import pytest
from enroll_samples import unit
from hypothesis import given
from hypothesis import strategies as st

from sayso.enroll.decision import (
    CurvePoint,
    FalseMatchCurve,
    OperatingPoint,
    Policy,
    decide_identify,
    decide_verify,
    identify_threshold,
    score,
)
from sayso.enroll.errors import InvalidEmbedding
from sayso.enroll.types import Candidate

POINT = OperatingPoint("eer", 0.4, 0.03, 0.03, "calibrated")
POLICY = Policy(POINT, llr_slope=20.0, llr_offset=-8.0)
CURVE = FalseMatchCurve((0.5, 0.1, 0.01), (0.1, 0.3, 0.5), tail_scale=0.08)
ORDER = {"reject": 0, "no_match": 0, "inconclusive": 1, "accept": 2, "ambiguous": 2, "match": 2}

seeds = st.integers(0, 10_000)
scores = st.floats(-1, 1)
doubts = st.lists(st.sampled_from(["short_speech", "noisy", "clipped"]), max_size=2)
rates = st.floats(1e-12, 1.0)


@st.composite
def curves(draw: st.DrawFn) -> FalseMatchCurve:
    exponents = draw(st.sets(st.integers(0, 60), min_size=1, max_size=8))
    fmr = [10 ** (-exponent / 10) for exponent in sorted(exponents)]
    threshold = sorted(draw(st.lists(scores, min_size=len(fmr), max_size=len(fmr))))
    return FalseMatchCurve(tuple(fmr), tuple(threshold), draw(st.floats(1e-3, 1.0)))


@given(seeds, seeds)
def test_a_score_is_symmetric_and_a_cosine(a: int, b: int) -> None:
    first, second = unit(a, 64), unit(b, 64)
    assert score(first, second) == score(second, first)
    assert -1.0 <= score(first, second) <= 1.0
    assert score(first, first) == pytest.approx(1.0, abs=1e-6)
    assert score(first, second) == pytest.approx(float(first.astype(float) @ second.astype(float)), abs=1e-6)


def test_vectors_of_different_models_have_no_score() -> None:
    with pytest.raises(InvalidEmbedding):
        score(unit(1, 4), unit(1, 5))


@given(scores, scores, doubts)
def test_verification_is_monotone_in_the_score(a: float, b: float, doubtful: list[str]) -> None:
    low, high = sorted([a, b])
    decisions = [decide_verify(value, POLICY, doubtful).decision for value in (low, high)]
    assert ORDER[decisions[0]] <= ORDER[decisions[1]]


@given(scores, scores, doubts, st.floats(0, 1))
def test_identification_is_monotone_in_the_best_score(
    a: float, b: float, doubtful: list[str], lead: float
) -> None:
    low, high = sorted([a, b])
    decisions = [
        decide_identify(
            [Candidate("a", value), Candidate("b", value - lead)], 0.5, 0.05, POLICY, doubtful
        ).decision
        for value in (low, high)
    ]
    assert ORDER[decisions[0]] <= ORDER[decisions[1]]


@given(scores)
def test_a_sound_recording_always_decides(value: float) -> None:
    decision = decide_verify(value, POLICY, [])
    assert decision.decision == ("accept" if value >= 0.4 else "reject")
    assert (decision.reason, decision.score) == (None, value)
    assert decision.llr == pytest.approx(20 * value - 8)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.34, "reject"),
        (0.36, "inconclusive"),
        (0.4, "inconclusive"),
        (0.44, "inconclusive"),
        (0.46, "accept"),
    ],
)
def test_a_doubtful_recording_near_the_threshold_decides_nothing(value: float, expected: str) -> None:
    decision = decide_verify(value, POLICY, ["noisy", "clipped"])
    assert decision.decision == expected
    assert decision.reason == ("noisy" if expected == "inconclusive" else None)


def test_an_uncalibrated_model_decides_by_its_threshold_alone() -> None:
    decision = decide_verify(0.4, Policy(POINT, None, None), ["noisy"])
    assert (decision.decision, decision.llr) == ("accept", None)


@pytest.mark.parametrize("line", [(1.0, None), (None, 1.0), (0.0, 1.0), (-1.0, 0.0), (math.nan, 0.0)])
def test_a_line_that_is_none_is_refused(line: tuple[float | None, float | None]) -> None:
    with pytest.raises(ValueError, match="llr_slope"):
        Policy(POINT, *line)


def test_a_score_that_is_not_a_number_never_decides() -> None:
    with pytest.raises(ValueError, match="finite"):
        decide_verify(math.nan, POLICY, [])
    with pytest.raises(ValueError, match="finite"):
        decide_identify([Candidate("a", math.nan)], 0.5, 0.05, POLICY, [])


@pytest.mark.parametrize(
    ("found", "doubtful", "decision", "reason", "speaker_id", "margin"),
    [
        ([], ["noisy"], "no_match", "no_candidates", None, None),
        ([0.9], [], "match", None, "s0", None),
        ([0.5], [], "match", None, "s0", None),
        ([0.499], [], "no_match", None, None, None),
        ([0.9, 0.84], [], "match", None, "s0", 0.06),
        ([0.9, 0.86], [], "ambiguous", "small_margin", None, 0.04),
        ([0.52, 0.48], [], "ambiguous", "small_margin", None, 0.04),
        ([0.3, 0.29], [], "no_match", None, None, 0.01),
        ([0.52, 0.2], ["noisy"], "inconclusive", "noisy", None, 0.32),
        ([0.48, 0.2], ["noisy"], "inconclusive", "noisy", None, 0.28),
        ([0.52, 0.51], ["noisy"], "inconclusive", "noisy", None, 0.01),
        ([0.9, 0.2], ["noisy"], "match", None, "s0", 0.7),
        ([0.2, 0.1], ["noisy"], "no_match", None, None, 0.1),
    ],
)
def test_identification_cases(
    found: list[float],
    doubtful: list[str],
    decision: str,
    reason: str | None,
    speaker_id: str | None,
    margin: float | None,
) -> None:
    candidates = [Candidate(f"s{rank}", value) for rank, value in enumerate(found)]
    made = decide_identify(candidates, 0.5, 0.05, POLICY, doubtful)
    assert (made.decision, made.reason, made.speaker_id) == (decision, reason, speaker_id)
    assert made.margin == (None if margin is None else pytest.approx(margin))
    assert made.score == (found[0] if found else None)
    assert made.llr == (POLICY.llr(found[0]) if found else None)


@given(curves(), rates, rates)
def test_a_lower_rate_never_lowers_the_threshold(curve: FalseMatchCurve, a: float, b: float) -> None:
    low, high = sorted([a, b])
    assert curve.threshold_for(low).threshold >= curve.threshold_for(high).threshold
    assert curve.threshold_for(low).threshold <= 1.0


@given(curves(), st.floats(1e-6, 0.5), st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_threshold_rises_with_the_number_searched(
    curve: FalseMatchCurve, fpir: float, a: int, b: int
) -> None:
    few, many = sorted([a, b])
    assert identify_threshold(curve, fpir, few).threshold <= identify_threshold(curve, fpir, many).threshold


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
    assert CURVE.threshold_for(1e-30) == CurvePoint(1.0, extrapolated=True)


@given(st.floats(0.001, 0.5), st.integers(1, 1000))
def test_the_identification_rate_is_what_was_asked_for(fpir: float, searched: int) -> None:
    exact = FalseMatchCurve((1.0,), (-1.0,), tail_scale=0.1)
    threshold = identify_threshold(exact, fpir, searched).threshold
    fmr = math.exp(-(threshold + 1.0) / 0.1)
    assert 1 - (1 - fmr) ** searched == pytest.approx(fpir, rel=1e-6)


def test_one_candidate_is_verification_and_none_is_one() -> None:
    assert identify_threshold(CURVE, 0.1, 1).threshold == pytest.approx(0.3)
    assert identify_threshold(CURVE, 0.1, 0) == identify_threshold(CURVE, 0.1, 1)


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
        ((0.1,), (1.5,), 0.1),
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
        identify_threshold(CURVE, rate, 1)


def test_a_threshold_lets_through_what_it_was_tuned_for() -> None:
    """On the very trials it was read from: the promise the whole table rests on."""
    rng = np.random.default_rng(3)
    impostors = np.sort(rng.normal(0.1, 0.1, 20_000))
    fmr = (0.1, 0.03, 0.01, 0.003, 0.001)
    table = tuple(float(impostors[-round(rate * impostors.size)]) for rate in fmr)
    curve = FalseMatchCurve(fmr, table, 0.02)
    for rate in fmr:
        assert np.mean(impostors >= curve.threshold_for(rate).threshold) <= rate * 1.001
