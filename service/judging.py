"""From vectors to evidence: which template and which of the tenant's people a recording is compared with.

Speech in a telephone's band is compared with templates of that band, where the speaker has one: a template
made of the same enrolments with what a telephone leaves out left out of them too. Decision 31 has the
measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sayso.domain.evidence import Side
from sayso.enroll.decision import Evidence, RankedCandidate, ranked, weigh
from sayso.enroll.search.cohorts import Cohorts
from sayso.enroll.search.feed import TemplateFeed
from sayso.enroll.store import Store
from sayso.enroll.types import Template, Vector
from sayso.runtime.band import narrowed
from sayso.service.hearing import Heard
from sayso.service.served import ServedModel

SHORTLIST = 20  # candidates by cosine that are weighed: the best LLR may not have the best cosine


@dataclass(frozen=True, eq=False)
class Probe:
    """A recording as it is compared: unit vector `[dim]`, what is known of it, and what it is stored by."""

    vector: Vector
    side: Side
    key: str


class Judge:
    """Weighs recordings against a store's templates. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cohorts = Cohorts(TemplateFeed(store))

    def vectors(self, model: ServedModel, heard: Heard) -> dict[str, Vector]:
        """What an enrolment stores under a model: a vector `[dim]`, and one for a telephone's band."""
        vector = heard.embed(model)
        vectors = {model.embedder.sha256: vector}
        if model.narrow_key is not None:
            is_narrow = heard.report.band == "narrow"
            vectors[model.narrow_key] = vector if is_narrow else heard.embed(model, narrowed(heard.speech))
        return vectors

    def verify(
        self, tenant: str, speaker_id: str, template: Template, model: ServedModel, heard: Heard
    ) -> Evidence:
        """The evidence that a recording is of the speaker with this template of the whole band."""
        narrow = None
        if model.narrow_key is not None and "narrow" in (heard.report.band, template.band):
            narrow = self._store.templates(tenant, [speaker_id], model.narrow_key).get(speaker_id)
        probe = _probe(model, heard, narrow is not None)
        cohort = self._cohorts.of(tenant, probe.key)
        llr_model = model.decides().model
        return weigh(narrow or template, probe.vector, probe.side, llr_model, cohort, speaker_id)

    def compare(self, tenant: str, model: ServedModel, first: Heard, second: Heard) -> Evidence:
        """The evidence that two recordings, neither of them enrolled, are of one speaker."""
        narrow = model.narrow_key is not None and "narrow" in (first.report.band, second.report.band)
        one, other = _probe(model, first, narrow), _probe(model, second, narrow)
        template = Template(one.vector, 1, one.side.net_speech_s, one.key, one.side.band)
        cohort = self._cohorts.of(tenant, one.key)
        return weigh(template, other.vector, other.side, model.decides().model, cohort, None)

    def probe(self, tenant: str, model: ServedModel, heard: Heard) -> Probe:
        """A recording for a search of the tenant's people."""
        narrow = False
        if heard.report.band == "narrow" and model.narrow_key is not None:
            # A tenant whose people were all enrolled before there were such templates is searched as before.
            narrow = bool(self._cohorts.of(tenant, model.narrow_key).members)
        return _probe(model, heard, narrow)

    def rank(
        self, tenant: str, speaker_ids: Sequence[str], model: ServedModel, probe: Probe
    ) -> list[RankedCandidate]:
        """The listed speakers with their evidence, the best first; without those who have just left."""
        policy = model.decides()
        cohort = self._cohorts.of(tenant, probe.key)
        templates = self._store.templates(tenant, speaker_ids, probe.key)
        return ranked(
            [
                RankedCandidate(
                    speaker_id, weigh(template, probe.vector, probe.side, policy.model, cohort, speaker_id)
                )
                for speaker_id, template in templates.items()
            ],
            policy,
        )


def _probe(model: ServedModel, heard: Heard, narrow: bool) -> Probe:
    """The recording as it is compared with templates of the whole band, or of a telephone's."""
    seconds, band = heard.report.net_speech_s, heard.report.band
    if not narrow or model.narrow_key is None:
        return Probe(heard.embed(model), Side(seconds, 1, band), model.embedder.sha256)
    speech = heard.speech if band == "narrow" else narrowed(heard.speech)
    return Probe(heard.embed(model, speech), Side(seconds, 1, "narrow"), model.narrow_key)
