"""From evidence to a decision. Pure functions: no store, no clock, no settings.

A score is a cosine in [-1, 1]. An LLR is a log-likelihood ratio in nats (natural logarithm). A calibrated
model decides by its LLR; a threshold that somebody set on purpose is one on the score.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sayso.domain.calibration import OperatingPoint
from sayso.domain.evidence import ANY, Band, LlrModel, Side
from sayso.enroll.cohort import Cohort
from sayso.enroll.types import Template, Vector
from sayso.enroll.vectors import score

VerifyDecision = Literal["accept", "reject", "inconclusive"]
IdentifyDecision = Literal["match", "no_match", "ambiguous", "inconclusive"]


@dataclass(frozen=True)
class Evidence:
    """What speaks for one speaker in a comparison.

    `llr` is None for a model without calibration. `cohort` is the number of the tenant's templates that it
    was centred on. `outside` names the conditions that the calibration has not seen, so that its error rates
    do not hold: `probe_speech`, `template_speech`, `band`.
    """

    score: float
    llr: float | None
    cohort: int = 0
    outside: tuple[str, ...] = ()
    bands: tuple[Band, Band] = ("wide", "wide")  # of template and probe

    def __post_init__(self) -> None:
        if not math.isfinite(self.score) or not math.isfinite(self.llr or 0.0):
            raise ValueError("a score and an LLR must be finite")


@dataclass(frozen=True)
class Threshold:
    """Where to decide: on the LLR at the calibration's points by bands, or on a score that was set."""

    name: str
    source: str
    points: Mapping[str, OperatingPoint] | None = None
    score: float = 0.0

    def value(self, evidence: Evidence) -> float:
        """The threshold for such evidence."""
        return self.score if self.points is None else self._point(evidence).threshold

    def rates(self, evidence: Evidence) -> OperatingPoint | None:
        """The point with the error rates measured on such evidence; None where nobody measured."""
        return None if self.points is None or evidence.outside else self._point(evidence)

    @property
    def on_score(self) -> bool:
        """Tell whether the threshold is one on the score, set by somebody."""
        return self.points is None

    def _point(self, evidence: Evidence) -> OperatingPoint:
        points = self.points or {}
        return points.get("/".join(evidence.bands), points[ANY])


@dataclass(frozen=True)
class Policy:
    """How one model's evidence is judged.

    `model` turns evidence into LLRs; None for an uncalibrated model, which decides by a score's threshold. A
    doubtful recording whose LLR is less than `inconclusive_llr` nats from the threshold decides nothing.
    """

    threshold: Threshold
    model: LlrModel | None
    inconclusive_llr: float = 1.0

    def __post_init__(self) -> None:
        if self.model is None and not self.threshold.on_score:
            raise ValueError("a threshold on the LLR needs a calibrated model")

    def lead(self, evidence: Evidence, threshold: float) -> float:
        """How far the evidence lies above a threshold: in nats, or in score where that is what decides."""
        if self.threshold.on_score or evidence.llr is None:
            return evidence.score - threshold
        return evidence.llr - threshold

    def near(self, evidence: Evidence, threshold: float) -> bool:
        """Tell whether a doubtful recording could have fallen on the other side of the threshold."""
        lead = self.nats(self.lead(evidence, threshold))
        return lead is not None and abs(lead) < self.inconclusive_llr

    def nats(self, lead: float) -> float | None:
        """A lead as an LLR; None for an uncalibrated model, of which nobody knows what a lead is worth."""
        if self.model is None:
            return None
        return lead * self.model.slope if self.threshold.on_score else lead


@dataclass(frozen=True)
class Decision:
    """A verification: `reason` says why it is inconclusive."""

    decision: VerifyDecision
    reason: str | None
    evidence: Evidence


@dataclass(frozen=True)
class RankedCandidate:
    """A speaker whom a search compared, with the evidence."""

    speaker_id: str
    evidence: Evidence


@dataclass(frozen=True)
class Identification:
    """An identification: the best candidate's evidence, and its lead over the second.

    `speaker_id` is None unless the decision is `match`. `margin` is in nats, and None with fewer than two
    candidates and for an uncalibrated model.
    """

    decision: IdentifyDecision
    reason: str | None
    speaker_id: str | None
    evidence: Evidence | None
    margin: float | None


def weigh(
    template: Template,
    probe: Vector,
    probe_side: Side,
    model: LlrModel | None,
    cohort: Cohort,
    speaker_id: str | None,
) -> Evidence:
    """The evidence that `probe` `[dim]` is of the template's speaker, beside the tenant's other templates.

    `speaker_id` names whose template it is, so that the cohort is without them; None if it is nobody's who is
    enrolled. Raises InvalidEmbedding when the shapes differ.
    """
    plain = score(template.vector, probe)
    bands = (template.side.band, probe_side.band)
    if model is None:
        return Evidence(plain, None, bands=bands)
    outside = model.conditions.outside(template.side, probe_side) if model.conditions else ()
    if not model.centres:
        return Evidence(
            plain, model.llr(template.vector, probe, template.side, probe_side), 0, outside, bands
        )
    difference, count = cohort.without(speaker_id, template, model)
    llr = model.llr(template.vector, probe, template.side, probe_side, difference, count)
    return Evidence(plain, llr, count, outside, bands)


def decide_verify(evidence: Evidence, policy: Policy, doubtful: Sequence[str]) -> Decision:
    """Accept at or above the threshold; a doubtful recording near it is inconclusive.

    `doubtful` names what is wrong with the recording (`short_speech`, `noisy`, ...), the weightiest first.
    """
    threshold = policy.threshold.value(evidence)
    if doubtful and policy.near(evidence, threshold):
        return Decision("inconclusive", doubtful[0], evidence)
    return Decision("accept" if policy.lead(evidence, threshold) >= 0 else "reject", None, evidence)


def ranked(candidates: Sequence[RankedCandidate], policy: Policy) -> list[RankedCandidate]:
    """The candidates in order of what decides, the best first; equal ones by id."""
    return sorted(candidates, key=lambda c: (-policy.lead(c.evidence, 0.0), c.speaker_id))


def decide_identify(
    candidates: Sequence[RankedCandidate],
    threshold: float,
    margin: float,
    policy: Policy,
    doubtful: Sequence[str],
) -> Identification:
    """Judge the candidates of a search, given best first and two or more where there are as many.

    A doubtful recording near the threshold is `inconclusive`, a best below the threshold `no_match`, a second
    less than `margin` nats behind the best `ambiguous`, wherever it stands itself. Of an uncalibrated model
    no match is ambiguous.
    """
    if not candidates:
        return Identification("no_match", "no_candidates", None, None, None)
    best = candidates[0].evidence
    lead = None
    if len(candidates) > 1:
        lead = policy.nats(policy.lead(best, 0.0) - policy.lead(candidates[1].evidence, 0.0))
    decision: IdentifyDecision = "match"
    reason = None
    if doubtful and policy.near(best, threshold):
        decision, reason = "inconclusive", doubtful[0]
    elif policy.lead(best, threshold) < 0:
        decision = "no_match"
    elif lead is not None and lead < margin:
        decision, reason = "ambiguous", "small_margin"
    speaker_id = candidates[0].speaker_id if decision == "match" else None
    return Identification(decision, reason, speaker_id, best, lead)
