"""From vectors to evidence: the template, and the tenant's people that a recording is compared beside."""

from __future__ import annotations

from collections.abc import Sequence

from sayso.domain.evidence import Side
from sayso.enroll.decision import Evidence, RankedCandidate, ranked, weigh
from sayso.enroll.search.cohorts import Cohorts
from sayso.enroll.search.feed import TemplateFeed
from sayso.enroll.store import Store
from sayso.enroll.types import Template, Vector
from sayso.service.hearing import Heard
from sayso.service.served import ServedModel

SHORTLIST = 20  # candidates by cosine that are weighed: the best LLR may not have the best cosine


class Judge:
    """Weighs recordings against a store's templates. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cohorts = Cohorts(TemplateFeed(store))

    def verify(
        self,
        tenant: str,
        speaker_id: str,
        template: Template,
        model: ServedModel,
        heard: Heard,
        probe: Vector,
    ) -> Evidence:
        """The evidence that a recording, whose vector is `probe` `[dim]`, is of the template's speaker."""
        cohort = self._cohorts.of(tenant, model.embedder.sha256)
        return weigh(template, probe, _side(heard), model.decides().model, cohort, speaker_id)

    def compare(
        self, tenant: str, model: ServedModel, first: Heard, second: Heard, vectors: Sequence[Vector]
    ) -> Evidence:
        """The evidence that two recordings, neither of them enrolled, are of one speaker."""
        side = _side(first)
        template = Template(vectors[0], 1, side.net_speech_s, model.embedder.sha256, side.band)
        cohort = self._cohorts.of(tenant, model.embedder.sha256)
        return weigh(template, vectors[1], _side(second), model.decides().model, cohort, None)

    def rank(
        self, tenant: str, speaker_ids: Sequence[str], model: ServedModel, heard: Heard, probe: Vector
    ) -> list[RankedCandidate]:
        """The listed speakers with their evidence, the best first; without those who have just left."""
        policy, side = model.decides(), _side(heard)
        cohort = self._cohorts.of(tenant, model.embedder.sha256)
        templates = self._store.templates(tenant, speaker_ids, model.embedder.sha256)
        return ranked(
            [
                RankedCandidate(speaker_id, weigh(template, probe, side, policy.model, cohort, speaker_id))
                for speaker_id, template in templates.items()
            ],
            policy,
        )


def _side(heard: Heard) -> Side:
    return Side(heard.report.net_speech_s, 1, heard.report.band)
