"""From a recording's bytes to an answer, straight down: decode, speech, embed, store, decide.

HTTP and the command line both call this, so the same recordings score the same through either.
"""

from __future__ import annotations

import time
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from sayso.enroll.decision import Evidence, decide_identify, decide_verify
from sayso.enroll.errors import AttemptsDelayed, SpeakerLocked, SpeakerOptedOut, StoreCorrupt
from sayso.enroll.search.index import index_of
from sayso.enroll.types import NewEnrollment
from sayso.runtime.audio import SAMPLE_RATE, Recording, SentAudio, encode
from sayso.runtime.buckets import SIZES
from sayso.runtime.session import CPU, available_cores
from sayso.runtime.speech import QualityLimits
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.access.answers import Answers
from sayso.service.access.attempts import AttemptLimits, Attempts
from sayso.service.access.keys import KeyRing
from sayso.service.access.shared_buckets import shared_buckets
from sayso.service.call import Call
from sayso.service.enrolling import SAME, enrolled_elsewhere, warnings_of
from sayso.service.errors import ServiceError
from sayso.service.hearing import SEVERAL, Audio, Ear
from sayso.service.judging import SHORTLIST, Judge
from sayso.service.lacking import Lacking
from sayso.service.limits import RateLimits
from sayso.service.metrics import Metrics
from sayso.service.schemas import (
    CandidateOut,
    Comparison,
    EmbeddingOut,
    EnrollmentAdded,
    EnrollmentOut,
    Identification,
    TemplateOut,
    Verification,
)
from sayso.service.served import ServedModel, load_models
from sayso.service.settings import Settings

# More would wait longer than callers who come later would by coming again, and push up everybody's p99.
PLACES_PER_CORE = 8
SPARE_TURNS = 1  # more than cores: while one waits for the disk, another can work
LACKING = "model_mismatch"  # why nobody could be compared: they were enrolled without the model
LARGEST_BATCH = SIZES[-1]  # a GPU can use that many at once; many more threads only wait for Python's lock


class Engine:
    """Everything a running service holds; `close` it. Safe to share between threads."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.models = load_models(settings, metrics)
        self.default_model = settings.default_of(self.models)
        self.ear = Ear(settings)
        try:
            self.store = settings.open_store()
        except BaseException:
            self._close_models()
            raise
        self.index = index_of(self.store)
        self.judge = Judge(self.store)
        networks = [model.embedder.sha256 for model in self.models.values()]
        self.lacking = Lacking(self.store.recordings, networks)
        cores = available_cores()
        self.places = settings.max_concurrency or PLACES_PER_CORE * cores
        on_cpu = all(model.embedder.provider == CPU for model in self.models.values())
        busy = cores + SPARE_TURNS
        self.turns = min(self.places, busy if on_cpu else max(busy, LARGEST_BATCH))
        self.damage: list[str] = []  # of the store's file, as far as somebody had it checked
        self.rates = RateLimits(settings.rate_limit, settings.rate_burst, shared_buckets(self.store.database))
        self.keys = KeyRing(self.store.vault)
        self.answers = Answers(self.store.database)
        self.attempts = Attempts(self.store.database)

    @property
    def queue_depth(self) -> int:
        """Recordings waiting for a batch."""
        return sum(model.embedder.queue_depth for model in self.models.values())

    @property
    def _first(self) -> ServedModel:
        """The model that an enrolment's cohesion is measured with."""
        return next(iter(self.models.values()))

    @property
    def unlike_below(self) -> float | None:
        """The cohesion below which an enrolment is warned of; None where nobody calibrated that."""
        return self._first.unlike_below

    def close(self) -> None:
        self._close_models()
        self.store.close()

    def _close_models(self) -> None:
        for model in self.models.values():
            model.embedder.close()

    def model(self, name: str | None) -> ServedModel:
        """A served model by name, the default one without; raises a 404 naming those there are."""
        chosen = name or self.default_model
        if chosen not in self.models:
            known = ", ".join(self.models)
            raise ServiceError(404, "model_unknown", f"no model {chosen!r} is served: there is {known}")
        return self.models[chosen]

    def enroll(
        self, call: Call, speaker_id: str, data: Audio, enrollment_id: str | None = None
    ) -> EnrollmentAdded:
        """Add a recording to a speaker.

        Raises the rooms' errors; `SameRecording` where it is enrolled for the speaker already, and with
        SAYSO_ENROLL_STRICT a 409 where it would be warned of.
        """
        if self.store.speaker(call.tenant, speaker_id).status == "opted_out":
            raise SpeakerOptedOut(speaker_id)  # before any work on a voice that must not be enrolled
        data = SentAudio(data) if isinstance(data, bytes) else data
        if isinstance(data, SentAudio) and not data.is_complete:
            with call.stage("decode"):
                data = data.decode(self.settings.max_audio_s)
        heard = self.ear.hear(call, data, self.settings.enroll_min_speech_s)
        vectors = {model.embedder.sha256: heard.embed(model) for model in self.models.values()}
        report, first, strict = heard.report, self._first, self.settings.enroll_strict
        if strict and heard.several_voices:
            detail = "the recording has several voices: send one with the speaker's alone"
            raise ServiceError(409, SEVERAL, detail)
        with call.stage("search"):
            elsewhere = enrolled_elsewhere(
                self.attempts,
                self.index,
                call.tenant,
                speaker_id,
                heard.digest,
                first.embedder.sha256,
                vectors[first.embedder.sha256],
            )
        if strict and elsewhere:
            detail = "this very recording is enrolled for another speaker: send another recording"
            raise ServiceError(409, SAME, detail)
        file = encode(data) if isinstance(data, Recording) else data.data  # kept where the tenant wants it
        new = NewEnrollment(
            report.net_speech_s,
            report.duration_s,
            report.snr_db,
            report.clipping,
            vectors,
            recording=file,
            digest=heard.digest,
            band=report.band,
            min_cohesion=first.unlike_below if strict else None,
            unique=True,
        )
        with call.stage("store"):
            speaker, enrollment = self.store.add_enrollment(call.tenant, speaker_id, new, enrollment_id)
        warnings = warnings_of(enrollment, first.unlike_below) + ([SAME] if elsewhere else [])
        return EnrollmentAdded(
            enrollment=EnrollmentOut.seen(enrollment, call.scores, warnings),
            status=speaker.status,
            net_speech_s=speaker.net_speech_s,
            remaining_speech_s=speaker.remaining_speech_s,
            audio=heard.audio(),
            models=[model.ref for model in self.models.values()],
            request_id=call.request_id,
            timings_ms=self._timings(call, "enroll", "all"),
        )

    def verify(self, call: Call, speaker_id: str, data: Audio, model_name: str | None = None) -> Verification:
        """Is this recording of that speaker?"""
        model = self.model(model_name)
        policy, attempts, limits = model.decides(), self.attempts, self._limits(call)
        with call.stage("store"):
            template = self.store.template(call.tenant, speaker_id, model.embedder.sha256)
            attempts.admit(call.tenant, [speaker_id], call.attempt, limits)
        heard = self.ear.hear(call, data, self.settings.verify_required_speech_s)
        vector = heard.embed(model)
        with call.stage("search"):
            evidence = self.judge.verify(call.tenant, speaker_id, template, model, heard, vector)
            decided = decide_verify(evidence, policy, heard.doubts(self.settings.short_speech_s))
            if decided.decision == "accept":
                attempts.succeeded(call.tenant, speaker_id, "verify", heard.digest, call.attempt, limits)
            else:
                attempts.failed(call.tenant, speaker_id, call.attempt, limits)
        self._count("verify", decided.decision, evidence, model)
        self._log(call, "verify", decided.decision, evidence, model, speaker_id)
        return Verification(
            decision=decided.decision,
            reason=decided.reason,
            score=evidence.score if call.scores else None,
            llr=evidence.llr if call.scores else None,
            threshold=model.threshold(evidence),
            speaker_id=speaker_id,
            template=TemplateOut.model_validate(template),
            audio=heard.audio(),
            model=model.ref,
            request_id=call.request_id,
            timings_ms=self._timings(call, "verify", model.name),
        )

    def identify(
        self,
        call: Call,
        data: Audio,
        model_name: str | None = None,
        top_k: int = 5,
        group: str | None = None,
        among: Collection[str] | None = None,
    ) -> Identification:
        """Who, of the tenant, a group or the listed speakers, is this?

        Speakers whom no attempt may be made on are passed over, or refused where they are listed. To list
        speakers is to guess at them, so a search among them that does not match is the nearest one's failure.
        """
        model = self.model(model_name)
        policy, attempts, limits = model.decides(), self.attempts, self._limits(call)
        barred: frozenset[str] = frozenset()
        with call.stage("store"):
            if among is None:
                barred = attempts.barred(call.tenant, call.attempt, limits)
            else:
                attempts.admit(call.tenant, among, call.attempt, limits)
        heard = self.ear.hear(call, data, self.settings.verify_required_speech_s)
        vector = heard.embed(model)
        with call.stage("search"):
            nearest, searched = self.index.search(
                call.tenant, model.embedder.sha256, vector, max(SHORTLIST, top_k) + len(barred), among, group
            )
            admitted = [c.speaker_id for c in nearest if c.speaker_id not in barred]
            candidates = self.judge.rank(call.tenant, admitted, model, heard, vector)
            nearest_evidence = candidates[0].evidence if candidates else None
            value, threshold = model.search_threshold(self.settings.identify_fpir, searched, nearest_evidence)
            margin = self.settings.identify_margin
            while True:
                decided = decide_identify(
                    candidates, value, margin, policy, heard.doubts(self.settings.short_speech_s)
                )
                if decided.speaker_id is None:
                    break
                try:
                    attempts.succeeded(
                        call.tenant, decided.speaker_id, "identify", heard.digest, call.attempt, limits
                    )
                    break
                except (AttemptsDelayed, SpeakerLocked):  # by others' failures since `barred` was asked
                    if among is not None:
                        raise
                    candidates = [c for c in candidates if c.speaker_id != decided.speaker_id]
            if decided.speaker_id is None and among is not None and candidates:
                attempts.failed(call.tenant, candidates[0].speaker_id, call.attempt, limits)
        shown = candidates[: top_k if call.scores else 1]
        if not call.scores:
            shown = [c for c in shown if c.speaker_id == decided.speaker_id]
        best = decided.evidence
        not_compared = self.lacking.of(call.tenant, model.embedder.sha256)
        reason = LACKING if not candidates and not_compared else decided.reason
        self._count("identify", decided.decision, best, model)
        self._log(call, "identify", decided.decision, best, model, decided.speaker_id)
        return Identification(
            decision=decided.decision,
            reason=reason,
            speaker_id=decided.speaker_id,
            score=best.score if best and call.scores else None,
            llr=best.llr if best and call.scores else None,
            margin=decided.margin if call.scores else None,
            searched=searched,
            not_compared=not_compared,
            candidates=[
                CandidateOut(
                    speaker_id=c.speaker_id,
                    score=c.evidence.score if call.scores else None,
                    llr=c.evidence.llr if call.scores else None,
                    rank=rank,
                )
                for rank, c in enumerate(shown, start=1)
            ],
            threshold=threshold,
            audio=heard.audio(),
            model=model.ref,
            request_id=call.request_id,
            timings_ms=self._timings(call, "identify", model.name),
        )

    def compare(self, call: Call, first: Audio, second: Audio, model_name: str | None = None) -> Comparison:
        """Are two recordings of one speaker?"""
        model = self.model(model_name)
        policy = model.decides()
        heard = [
            self.ear.hear(call, data, self.settings.verify_required_speech_s) for data in (first, second)
        ]
        vectors = [h.embed(model) for h in heard]
        with call.stage("search"):
            evidence = self.judge.compare(call.tenant, model, heard[0], heard[1], vectors)
            doubts = [doubt for h in heard for doubt in h.doubts(self.settings.short_speech_s)]
            decided = decide_verify(evidence, policy, doubts)
        self._count("compare", decided.decision, evidence, model)
        self._log(call, "compare", decided.decision, evidence, model)
        return Comparison(
            decision=decided.decision,
            reason=decided.reason,
            score=evidence.score if call.scores else None,
            llr=evidence.llr if call.scores else None,
            threshold=model.threshold(evidence),
            audio=[h.audio() for h in heard],
            model=model.ref,
            request_id=call.request_id,
            timings_ms=self._timings(call, "compare", model.name),
        )

    def embedding(self, call: Call, data: Audio, model_name: str | None = None) -> EmbeddingOut:
        """The vector of a recording."""
        model = self.model(model_name)
        heard = self.ear.hear(call, data, self.settings.verify_required_speech_s)
        vector = heard.embed(model)
        self.store.audit.note("embedding", call.tenant, request=call.request_id)
        return EmbeddingOut(
            embedding=[float(x) for x in vector],
            windows=heard.embeddings[0].windows,
            audio=heard.audio(),
            model=model.ref,
            request_id=call.request_id,
            timings_ms=self._timings(call, "embedding", model.name),
        )

    def embed_kept(self, data: bytes, model_name: str) -> NDArray[np.float32]:
        """The vector of a recording that was enrolled before, under a model served since then."""
        call = Call("", "", "", alone=False)  # on one core: it has no turn among the callers
        return self.ear.hear(call, data, 0.0).embed(self.model(model_name))

    def check(self) -> None:
        """Push a declared example through the real pipeline of every model, and read the store.

        Raises what went wrong. The example is a synthetic voice: readiness needs nobody's recording.
        """
        if self.damage:
            raise StoreCorrupt(self.settings.store_path, self.damage[0])
        self.store.database.ping()
        # A whole window of each model: less would stay on the CPU, whatever the GPU does.
        seconds = max(model.embedder.card.window_samples for model in self.models.values()) / SAMPLE_RATE
        example = Recording(synthetic_voice(seconds), source_rate=SAMPLE_RATE, clipping=0.0, warnings=())
        report, speech = self.ear.detector.detect(example)
        QualityLimits(seconds / 4, -np.inf, 1.0).check(report)
        for model in self.models.values():
            vector: NDArray[np.float32] = model.embedder.embed(speech).vector
            self.index.search("", model.embedder.sha256, vector, k=1)

    def _limits(self, call: Call) -> AttemptLimits | None:
        return None if call.operator else self.settings.attempt_limits

    def _count(self, kind: str, decision: str, best: Evidence | None, model: ServedModel) -> None:
        self.metrics.decisions.labels(kind, decision, model.name).inc()
        if best is not None:
            self.metrics.scores.labels(kind, model.name).observe(best.score)

    def _log(
        self,
        call: Call,
        kind: str,
        decision: str,
        best: Evidence | None,
        model: ServedModel,
        speaker_id: str | None = None,
    ) -> None:
        self.store.audit.note(
            kind,
            call.tenant,
            speaker_id,
            decision=decision,
            score=None if best is None else round(best.score, 2),
            llr=None if best is None or best.llr is None else round(best.llr, 1),
            model=model.embedder.sha256,
            request=call.request_id,
        )

    def _timings(self, call: Call, kind: str, model: str) -> dict[str, float]:
        """Stop the call's clock, observe every stage for calls of this kind, and return milliseconds."""
        call.stages["total"] = time.perf_counter() - call.started
        for name, seconds in call.stages.items():
            self.metrics.stage_seconds.labels(name, model, kind).observe(seconds)
        return {name: round(seconds * 1000, 3) for name, seconds in call.stages.items()}
