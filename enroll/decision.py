"""From a score to a decision. Pure functions: no store, no clock, no settings.

A score is a cosine in [-1, 1]; an LLR is in nats (natural logarithm). Thresholds come from calibration.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from sayso.enroll.errors import InvalidEmbedding
from sayso.enroll.types import Candidate, Vector

VerifyDecision = Literal["accept", "reject", "inconclusive"]
IdentifyDecision = Literal["match", "no_match", "ambiguous", "inconclusive"]


@dataclass(frozen=True)
class OperatingPoint:
    """A named threshold and the error rates it had where it was set (None where nobody measured them)."""

    name: str
    threshold: float
    fmr: float | None
    fnmr: float | None
    source: str


@dataclass(frozen=True)
class Policy:
    """How one model's scores are judged.

    `llr_slope` (above 0) and `llr_offset` are the calibration line, both None for an uncalibrated model:
    then there are no LLRs and nothing is inconclusive. A doubtful recording whose LLR is less than
    `inconclusive_llr` nats from the threshold's decides nothing.
    """

    operating_point: OperatingPoint
    llr_slope: float | None
    llr_offset: float | None
    inconclusive_llr: float = 1.0

    def __post_init__(self) -> None:
        if (self.llr_slope is None) != (self.llr_offset is None):
            raise ValueError("llr_slope and llr_offset go together")
        if self.llr_slope is not None and not self.llr_slope > 0:
            raise ValueError("llr_slope must be above 0: a higher score speaks for the same speaker")

    def llr(self, score: float) -> float | None:
        """Return the calibrated LLR of a score in nats."""
        if self.llr_slope is None or self.llr_offset is None:
            return None
        return self.llr_slope * score + self.llr_offset

    def near(self, score: float, threshold: float) -> bool:
        """Tell whether a doubtful recording could have fallen on the other side of the threshold."""
        return self.llr_slope is not None and self.llr_slope * abs(score - threshold) < self.inconclusive_llr


@dataclass(frozen=True)
class Decision:
    """A verification: `reason` says why it is inconclusive."""

    decision: VerifyDecision
    reason: str | None
    score: float
    llr: float | None


@dataclass(frozen=True)
class Identification:
    """An identification: the best candidate's score and LLR, and its lead over the second.

    `speaker_id` is None unless the decision is `match`; `margin` is None with fewer than two candidates.
    """

    decision: IdentifyDecision
    reason: str | None
    speaker_id: str | None
    score: float | None
    llr: float | None
    margin: float | None


@dataclass(frozen=True)
class CurvePoint:
    """A threshold read off a curve; `extrapolated` when fewer trials than that rate needs were measured."""

    threshold: float
    extrapolated: bool


@dataclass(frozen=True)
class FalseMatchCurve:
    """A model's false match rate by threshold: `fmr` falls strictly, `threshold` never falls.

    Below its last rate the curve goes on as an exponential tail: each factor e fewer false matches costs
    `tail_scale` of score. Raises ValueError for tables that are no such curve.
    """

    fmr: tuple[float, ...]
    threshold: tuple[float, ...]
    tail_scale: float

    def __post_init__(self) -> None:
        if not self.fmr or len(self.fmr) != len(self.threshold):
            raise ValueError("fmr and threshold need the same number of entries, one or more")
        if not (self.fmr[-1] > 0 and self.fmr[0] <= 1 and all(a > b for a, b in pairwise(self.fmr))):
            raise ValueError("fmr must fall strictly, within (0, 1]")
        if not all(a <= b for a, b in pairwise(self.threshold)) or not self.threshold[-1] <= 1:
            raise ValueError("threshold must never fall and end at 1 or below")
        if not self.tail_scale > 0:
            raise ValueError("tail_scale must be above 0")

    def threshold_for(self, fmr: float) -> CurvePoint:
        """Return the threshold for a per-comparison false match rate in (0, 1].

        Linear in ln(fmr) inside the table, the tail beyond it (at most 1.0), and the lowest threshold for
        rates above the table.
        """
        if not 0 < fmr <= 1:
            raise ValueError(f"a false match rate is in (0, 1], not {fmr}")
        if fmr < self.fmr[-1]:
            tail = self.threshold[-1] + self.tail_scale * math.log(self.fmr[-1] / fmr)
            return CurvePoint(min(1.0, tail), extrapolated=True)
        falling = -np.log(self.fmr)
        return CurvePoint(float(np.interp(-math.log(fmr), falling, self.threshold)), extrapolated=False)


def score(a: Vector, b: Vector) -> float:
    """Return the cosine of two unit vectors `[dim]`. Raises InvalidEmbedding when the shapes differ."""
    if a.shape != b.shape:
        raise InvalidEmbedding(f"Embeddings of shapes {a.shape} and {b.shape} are from different models.")
    return float(np.clip(np.dot(a.astype(np.float64), b.astype(np.float64)), -1.0, 1.0))


def decide_verify(score: float, policy: Policy, doubtful: Sequence[str]) -> Decision:
    """Accept at or above the threshold; a doubtful recording near it is inconclusive.

    `doubtful` names what is wrong with the recording (`short_speech`, `noisy`, ...), the weightiest first.
    """
    _check(score)
    threshold = policy.operating_point.threshold
    if doubtful and policy.near(score, threshold):
        return Decision("inconclusive", doubtful[0], score, policy.llr(score))
    return Decision("accept" if score >= threshold else "reject", None, score, policy.llr(score))


def comparison_fmr(fpir: float, searched: int) -> float:
    """Return the FMR of one comparison at which `searched` of them together have this FPIR."""
    # expm1 and log1p keep the digits that 1 - (1 - x) would lose for a large N
    return -math.expm1(math.log1p(-fpir) / max(1, searched))


def identify_threshold(curve: FalseMatchCurve, fpir: float, searched: int) -> CurvePoint:
    """Return the threshold at which a stranger matches anybody of `searched` with probability `fpir`.

    Each comparison may err at 1 - (1 - FPIR)^(1/N). An empty search is judged as one of a single speaker.
    """
    if not 0 < fpir < 1:
        raise ValueError(f"a false-positive identification rate is in (0, 1), not {fpir}")
    return curve.threshold_for(comparison_fmr(fpir, searched))


def decide_identify(
    candidates: Sequence[Candidate],
    threshold: float,
    margin: float,
    policy: Policy,
    doubtful: Sequence[str],
) -> Identification:
    """Judge the candidates of a search, given best first and two or more where there are as many.

    A doubtful recording near the threshold is `inconclusive`, a best below the threshold `no_match`, a
    second less than `margin` (cosine) behind the best `ambiguous`, wherever it stands itself.
    """
    if not candidates:
        return Identification("no_match", "no_candidates", None, None, None, None)
    best = candidates[0]
    _check(best.score)
    lead = best.score - candidates[1].score if len(candidates) > 1 else None
    decision: IdentifyDecision = "match"
    reason = None
    if doubtful and policy.near(best.score, threshold):
        decision, reason = "inconclusive", doubtful[0]
    elif best.score < threshold:
        decision = "no_match"
    elif lead is not None and lead < margin:
        decision, reason = "ambiguous", "small_margin"
    speaker_id = best.speaker_id if decision == "match" else None
    return Identification(decision, reason, speaker_id, best.score, policy.llr(best.score), lead)


def _check(score: float) -> None:
    if not math.isfinite(score):
        raise ValueError("a score must be finite")
