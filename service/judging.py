"""From vectors to evidence: which template and which of the tenant's people a recording is compared with.

Speech in a telephone's band is compared with templates of that band, where the speaker has one: a template
made of the same enrolments with what a telephone leaves out left out of them too. Decision 31 has the
measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sayso.domain.evidence import Side
from sayso.enroll.decision import Evidence, RankedCandidate, ranked, weigh
from sayso.enroll.search.cohorts import Cohorts
from sayso.enroll.search.feed import TemplateFeed
from sayso.enroll.store import Store
from sayso.enroll.types import Template, Vector
from sayso.runtime.audio import Samples
from sayso.runtime.band import narrowed
from sayso.runtime.speech import SpeechReport
from sayso.service.served import ServedModel

SHORTLIST = 20  # candidates by cosine that are weighed: the best LLR may not have the best cosine
Embed = Callable[[Samples], Vector]


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

    def vectors(
        self, model: ServedModel, report: SpeechReport, speech: Samples, embed: Embed
    ) -> dict[str, Vector]:
        """What an enrolment stores under a model: a vector `[dim]`, and one for a telephone's band."""
        vector = embed(speech)
        vectors = {model.embedder.sha256: vector}
        if model.narrow_key is not None:
            vectors[model.narrow_key] = vector if report.band == "narrow" else embed(narrowed(speech))
        return vectors

    def verify(
        self,
        tenant: str,
        speaker_id: str,
        template: Template,
        model: ServedModel,
        report: SpeechReport,
        speech: Samples,
        embed: Embed,
    ) -> Evidence:
        """The evidence that a recording is of the speaker with this template of the whole band."""
        narrow = self._narrow_template(tenant, speaker_id, template, model, report)
        probe = self._probe(model, report, speech, embed, narrow is not None)
        cohort = self._cohorts.of(tenant, probe.key)
        llr_model = model.decides().model
        return weigh(narrow or template, probe.vector, probe.side, llr_model, cohort, speaker_id)

    def compare(
        self,
        tenant: str,
        model: ServedModel,
        reports: Sequence[SpeechReport],
        speeches: Sequence[Samples],
        embed: Embed,
    ) -> Evidence:
        """The evidence that two recordings, neither of them enrolled, are of one speaker."""
        narrow = model.narrow_key is not None and any(report.band == "narrow" for report in reports)
        first, second = (
            self._probe(model, report, speech, embed, narrow)
            for report, speech in zip(reports, speeches, strict=True)
        )
        template = Template(first.vector, 1, first.side.net_speech_s, first.key, first.side.band)
        cohort = self._cohorts.of(tenant, first.key)
        return weigh(template, second.vector, second.side, model.decides().model, cohort, None)

    def search_key(self, tenant: str, model: ServedModel, report: SpeechReport) -> str:
        """By what the vectors are stored that a search with this recording compares."""
        narrow = report.band == "narrow" and model.narrow_key
        # A tenant whose people were all enrolled before there were such templates is searched as before.
        if narrow and self._cohorts.of(tenant, narrow).members:
            return narrow
        return model.embedder.sha256

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

    def probe(
        self, model: ServedModel, report: SpeechReport, speech: Samples, embed: Embed, key: str
    ) -> Probe:
        """A recording for a search among vectors that are stored by `key`."""
        return self._probe(model, report, speech, embed, key == model.narrow_key)

    def _narrow_template(
        self, tenant: str, speaker_id: str, template: Template, model: ServedModel, report: SpeechReport
    ) -> Template | None:
        """The speaker's template of a telephone's band, where one of the two sides has no more than that."""
        if model.narrow_key is None or "narrow" not in (report.band, template.band):
            return None
        return self._store.templates(tenant, [speaker_id], model.narrow_key).get(speaker_id)

    def _probe(
        self, model: ServedModel, report: SpeechReport, speech: Samples, embed: Embed, narrow: bool
    ) -> Probe:
        key = model.embedder.sha256
        if not narrow or model.narrow_key is None:
            return Probe(embed(speech), Side(report.net_speech_s, 1, report.band), key)
        heard = speech if report.band == "narrow" else narrowed(speech)
        return Probe(embed(heard), Side(report.net_speech_s, 1, "narrow"), model.narrow_key)
