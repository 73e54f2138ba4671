"""From evidence to decisions: the laws, then the cases."""

import math

import pytest
from enroll_samples import unit
from hypothesis import given
from hypothesis import strategies as st

from sayso.domain.calibration import OperatingPoint
from sayso.domain.evidence import ANY, LlrModel
from sayso.enroll.decision import (
    Evidence,
    Policy,
    RankedCandidate,
    Threshold,
    decide_identify,
    decide_verify,
    ranked,
)
from sayso.enroll.errors import InvalidEmbedding
from sayso.enroll.vectors import score

POINTS = {ANY: OperatingPoint(3.0, 0.01, 0.06), "wide/narrow": OperatingPoint(2.0, 0.012, 0.2)}
POLICY = Policy(Threshold("fmr=0.01", "calibrated", POINTS), LlrModel.line(20.0, -8.0))
ON_SCORE = Policy(Threshold("set", "setting", score=0.5), LlrModel.line(20.0, -8.0))
UNCALIBRATED = Policy(Threshold("set", "setting", score=0.5), None)
ORDER = {"reject": 0, "no_match": 0, "inconclusive": 1, "accept": 2, "ambiguous": 2, "match": 2}

seeds = st.integers(0, 10_000)
llrs = st.floats(-50, 50)
doubts = st.lists(st.sampled_from(["short_speech", "noisy", "clipped"]), max_size=2)


def evidence(llr: float, score: float = 0.5) -> Evidence:
    return Evidence(score, llr)


def candidates(*found: float) -> list[RankedCandidate]:
    return [RankedCandidate(f"s{rank}", evidence(value)) for rank, value in enumerate(found)]


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


@given(llrs, llrs, doubts)
def test_verification_is_monotone_in_the_llr(a: float, b: float, doubtful: list[str]) -> None:
    low, high = sorted([a, b])
    decisions = [decide_verify(evidence(value), POLICY, doubtful).decision for value in (low, high)]
    assert ORDER[decisions[0]] <= ORDER[decisions[1]]


@given(llrs, llrs, doubts, st.floats(0, 5))
def test_identification_is_monotone_in_the_best_llr(
    a: float, b: float, doubtful: list[str], lead: float
) -> None:
    low, high = sorted([a, b])
    decisions = [
        decide_identify(candidates(value, value - lead), 3.0, 0.7, POLICY, doubtful).decision
        for value in (low, high)
    ]
    assert ORDER[decisions[0]] <= ORDER[decisions[1]]


@given(llrs)
def test_a_sound_recording_always_decides(value: float) -> None:
    made = decide_verify(evidence(value), POLICY, [])
    assert made.decision == ("accept" if value >= 3.0 else "reject")
    assert (made.reason, made.evidence.llr) == (None, value)


@pytest.mark.parametrize(
    ("llr", "expected"),
    [(1.9, "reject"), (2.1, "inconclusive"), (3.0, "inconclusive"), (3.9, "inconclusive"), (4.1, "accept")],
)
def test_a_doubtful_recording_near_the_threshold_decides_nothing(llr: float, expected: str) -> None:
    made = decide_verify(evidence(llr), POLICY, ["noisy", "clipped"])
    assert made.decision == expected
    assert made.reason == ("noisy" if expected == "inconclusive" else None)


@pytest.mark.parametrize(("value", "expected"), [(0.5, "accept"), (0.499, "reject")])
def test_a_threshold_set_on_purpose_is_one_on_the_score(value: float, expected: str) -> None:
    for policy in (ON_SCORE, UNCALIBRATED):
        assert decide_verify(Evidence(value, -9.0), policy, []).decision == expected
    assert decide_verify(Evidence(value, -9.0), ON_SCORE, ["noisy"]).decision == "inconclusive"
    assert decide_verify(Evidence(value, None), UNCALIBRATED, ["noisy"]).decision == expected


def test_a_threshold_on_the_llr_needs_a_calibration() -> None:
    with pytest.raises(ValueError, match="calibrated"):
        Policy(POLICY.threshold, None)


@pytest.mark.parametrize("values", [(math.nan, 1.0), (0.5, math.nan), (math.inf, 1.0), (0.5, math.inf)])
def test_evidence_that_is_not_a_number_never_decides(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        Evidence(*values)


def test_candidates_are_ranked_by_what_decides() -> None:
    found = [
        RankedCandidate("b", Evidence(0.9, 1.0)),
        RankedCandidate("a", Evidence(0.8, 4.0)),
        RankedCandidate("c", Evidence(0.1, 4.0)),
    ]
    assert [c.speaker_id for c in ranked(found, POLICY)] == ["a", "c", "b"]
    assert [c.speaker_id for c in ranked(found, ON_SCORE)] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("found", "doubtful", "decision", "reason", "speaker_id", "margin"),
    [
        ([], ["noisy"], "no_match", "no_candidates", None, None),
        ([9.0], [], "match", None, "s0", None),
        ([3.0], [], "match", None, "s0", None),
        ([2.999], [], "no_match", None, None, None),
        ([9.0, 8.2], [], "match", None, "s0", 0.8),
        ([9.0, 8.6], [], "ambiguous", "small_margin", None, 0.4),
        ([3.2, 2.8], [], "ambiguous", "small_margin", None, 0.4),
        ([1.3, 1.2], [], "no_match", None, None, 0.1),
        ([3.5, -2.0], ["noisy"], "inconclusive", "noisy", None, 5.5),
        ([2.5, -2.0], ["noisy"], "inconclusive", "noisy", None, 4.5),
        ([9.0, -2.0], ["noisy"], "match", None, "s0", 11.0),
        ([-2.0, -3.0], ["noisy"], "no_match", None, None, 1.0),
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
    made = decide_identify(candidates(*found), 3.0, 0.7, POLICY, doubtful)
    assert (made.decision, made.reason, made.speaker_id) == (decision, reason, speaker_id)
    assert made.margin == (None if margin is None else pytest.approx(margin))
    assert (made.evidence.llr if made.evidence else None) == (found[0] if found else None)


def test_threshold_and_error_rates_are_those_of_the_bands() -> None:
    rates = POLICY.threshold.rates
    assert rates(Evidence(0.5, 1.0)) == POINTS[ANY]
    narrow = Evidence(0.5, 2.5, bands=("wide", "narrow"))
    assert rates(narrow) == POINTS["wide/narrow"]
    assert decide_verify(narrow, POLICY, []).decision == "accept"
    assert decide_verify(Evidence(0.5, 2.5), POLICY, []).decision == "reject"
    assert rates(Evidence(0.5, 1.0, outside=("probe_speech",))) is None
    assert ON_SCORE.threshold.rates(Evidence(0.5, 1.0)) is None


def test_a_lead_in_score_counts_as_what_it_is_worth() -> None:
    found = [RankedCandidate(name, Evidence(value, 0.0)) for name, value in (("a", 0.6), ("b", 0.58))]
    assert decide_identify(found, 0.5, 0.7, ON_SCORE, []).decision == "ambiguous"  # 0.02 is 0.4 nats
    assert decide_identify(found, 0.5, 0.3, ON_SCORE, []).decision == "match"
    bare = [RankedCandidate(c.speaker_id, Evidence(c.evidence.score, None)) for c in found]
    made = decide_identify(bare, 0.5, 0.7, UNCALIBRATED, [])
    assert (made.decision, made.margin) == ("match", None)
