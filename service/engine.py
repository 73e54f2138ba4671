"""From a recording's bytes to an answer, straight down: decode, speech, embed, store, decide.

HTTP and the command line both call this, so the same recordings score the same through either.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sayso.enroll.decision import decide_identify, decide_verify, score
from sayso.enroll.errors import AttemptsDelayed, SpeakerLocked, SpeakerOptedOut, StoreCorrupt
from sayso.enroll.search.index import index_of
from sayso.enroll.types import NewEnrollment
from sayso.runtime.audio import SAMPLE_RATE, Recording, Samples, decode, encode
from sayso.runtime.buckets import SIZES
from sayso.runtime.embedder import Embedding
from sayso.runtime.session import CPU, available_cores
from sayso.runtime.speech import QualityLimits, SpeechDetector, SpeechReport
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.access.answers import Answers
from sayso.service.access.attempts import AttemptLimits, Attempts
from sayso.service.access.keys import KeyRing
from sayso.service.access.shared_buckets import shared_buckets
from sayso.service.call import Call
from sayso.service.errors import ServiceError
from sayso.service.limits import RateLimits
from sayso.service.metrics import Metrics
from sayso.service.schemas import (
    AudioOut,
    CandidateOut,
    Comparison,
    EmbeddingOut,
    EnrollmentAdded,
    EnrollmentOut,
    Identification,
    TemplateOut,
    ThresholdOut,
    Verification,
)
from sayso.service.served import ServedModel, load_models
from sayso.service.settings import Settings

Audio = bytes | Recording  # a file's bytes, or what a stream has decoded already
_DOUBTFUL = ("noisy", "clipped")
READY_FOR_S = 2.0
# More would wait longer than callers who come later would by coming again, and push up everybody's p99.
PLACES_PER_CORE = 8
SPARE_TURNS = 1  # more than cores: while one waits for the disk, another can work
LARGEST_BATCH = SIZES[-1]  # a GPU can use that many at once; many more threads only wait for Python's lock


@dataclass(frozen=True)
class Heard:
    """A recording that was good enough: its report, its speech alone and the sha256 of all its samples."""

    report: SpeechReport
    speech: Samples
    digest: bytes


class Engine:
    """Everything a running service holds; `close` it. Safe to share between threads."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.models = load_models(settings, metrics)
        self.default_model = settings.default_model or next(iter(self.models))
        self.detector = SpeechDetector()
        try:
            self.store = settings.open_store()
        except BaseException:
            self._close_models()
            raise
        self.index = index_of(self.store)
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
        self._checking, self._checked_at = threading.Lock(), -READY_FOR_S

    @property
    def queue_depth(self) -> int:
        """Recordings waiting for a batch."""
        return sum(model.embedder.queue_depth for model in self.models.values())

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
        """Add a recording to a speaker; raises the rooms' errors."""
        if self.store.speaker(call.tenant, speaker_id).status == "opted_out":
            raise SpeakerOptedOut(speaker_id)  # before any work on a voice that must not be enrolled
        heard = self._hear(call, data, self.settings.enroll_min_speech_s)
        vectors = {
            model.embedder.sha256: self._embed(call, model, heard).vector for model in self.models.values()
        }
        report = heard.report
        new = NewEnrollment(
            report.net_speech_s,
            report.duration_s,
            report.snr_db,
            report.clipping,
            vectors,
            recording=encode(data) if isinstance(data, Recording) else data,  # kept where the tenant wants it
            digest=heard.digest if self.settings.replay_days else None,
        )
        with call.stage("store"):
            speaker, enrollment = self.store.add_enrollment(call.tenant, speaker_id, new, enrollment_id)
        return EnrollmentAdded(
            enrollment=EnrollmentOut.seen(enrollment, call.scores),
            status=speaker.status,
            net_speech_s=speaker.net_speech_s,
            remaining_speech_s=speaker.remaining_speech_s,
            audio=AudioOut.model_validate(report),
            models=[model.ref for model in self.models.values()],
            request_id=call.request_id,
            timings_ms=self._timings(call, "all"),
        )

    def verify(self, call: Call, speaker_id: str, data: Audio, model_name: str | None = None) -> Verification:
        """Is this recording of that speaker?"""
        model = self.model(model_name)
        policy, attempts, limits = model.decides(), self.attempts, self._limits(call)
        with call.stage("store"):
            template = self.store.template(call.tenant, speaker_id, model.embedder.sha256)
            attempts.admit(call.tenant, [speaker_id], call.attempt, limits)
        heard = self._hear(call, data, self.settings.verify_required_speech_s)
        vector = self._embed(call, model, heard).vector
        with call.stage("search"):
            decided = decide_verify(score(vector, template.vector), policy, self._doubts(heard))
            if decided.decision == "accept":
                attempts.succeeded(call.tenant, speaker_id, "verify", heard.digest, call.attempt, limits)
            else:
                attempts.failed(call.tenant, speaker_id, call.attempt, limits)
        self._count("verify", decided.decision, decided.score, model)
        self._log(call, "verify", decided.decision, decided.score, model, speaker_id)
        return Verification(
            decision=decided.decision,
            reason=decided.reason,
            score=decided.score if call.scores else None,
            llr=decided.llr if call.scores else None,
            threshold=_threshold(model),
            speaker_id=speaker_id,
            template=TemplateOut.model_validate(template),
            audio=AudioOut.model_validate(heard.report),
            model=model.ref,
            request_id=call.request_id,
            timings_ms=self._timings(call, model.name),
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
        heard = self._hear(call, data, self.settings.verify_required_speech_s)
        vector = self._embed(call, model, heard).vector
        with call.stage("search"):
            found, searched = self.index.search(
                call.tenant, model.embedder.sha256, vector, max(2, top_k) + len(barred), among, group
            )
            found = [candidate for candidate in found if candidate.speaker_id not in barred]
            threshold = model.search_threshold(self.settings.identify_fpir, searched)
            margin = self.settings.identify_margin
            while True:
                decided = decide_identify(found, threshold.value, margin, policy, self._doubts(heard))
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
                    found = [candidate for candidate in found if candidate.speaker_id != decided.speaker_id]
            if decided.speaker_id is None and among is not None and found:
                attempts.failed(call.tenant, found[0].speaker_id, call.attempt, limits)
        shown = found[:top_k] if call.scores else [c for c in found[:1] if c.speaker_id == decided.speaker_id]
        self._count("identify", decided.decision, decided.score, model)
        self._log(call, "identify", decided.decision, decided.score, model, decided.speaker_id)
        return Identification(
            decision=decided.decision,
            reason=decided.reason,
            speaker_id=decided.speaker_id,
            score=decided.score if call.scores else None,
            llr=decided.llr if call.scores else None,
            margin=decided.margin if call.scores else None,
            searched=searched,
            candidates=[
                CandidateOut(
                    speaker_id=c.speaker_id,
                    score=c.score if call.scores else None,
                    llr=policy.llr(c.score) if call.scores else None,
                    rank=rank,
                )
                for rank, c in enumerate(shown, start=1)
            ],
            threshold=threshold,
            audio=AudioOut.model_validate(heard.report),
            model=model.ref,
            request_id=call.request_id,
            timings_ms=self._timings(call, model.name),
        )

    def compare(self, call: Call, first: bytes, second: bytes, model_name: str | None = None) -> Comparison:
        """Are two recordings of one speaker?"""
        model = self.model(model_name)
        policy = model.decides()
        heard = [self._hear(call, data, self.settings.verify_required_speech_s) for data in (first, second)]
        vectors = [self._embed(call, model, h).vector for h in heard]
        with call.stage("search"):
            doubts = [doubt for h in heard for doubt in self._doubts(h)]
            decided = decide_verify(score(vectors[0], vectors[1]), policy, doubts)
        self._count("compare", decided.decision, decided.score, model)
        self._log(call, "compare", decided.decision, decided.score, model)
        return Comparison(
            decision=decided.decision,
            reason=decided.reason,
            score=decided.score if call.scores else None,
            llr=decided.llr if call.scores else None,
            threshold=_threshold(model),
            audio=[AudioOut.model_validate(h.report) for h in heard],
            model=model.ref,
            request_id=call.request_id,
            timings_ms=self._timings(call, model.name),
        )

    def embedding(self, call: Call, data: bytes, model_name: str | None = None) -> EmbeddingOut:
        """The vector of a recording."""
        model = self.model(model_name)
        heard = self._hear(call, data, self.settings.verify_required_speech_s)
        embedding = self._embed(call, model, heard)
        self.store.audit.note("embedding", call.tenant, request=call.request_id)
        return EmbeddingOut(
            embedding=[float(x) for x in embedding.vector],
            windows=embedding.windows,
            audio=AudioOut.model_validate(heard.report),
            model=model.ref,
            request_id=call.request_id,
            timings_ms=self._timings(call, model.name),
        )

    def embed_kept(self, data: bytes, model_name: str) -> NDArray[np.float32]:
        """The vector of a recording that was enrolled before, under a model served since then."""
        call = Call("", "", "")
        return self._embed(call, self.model(model_name), self._hear(call, data, 0.0)).vector

    def ready(self) -> None:
        """`check`, at most every two seconds whoever asks: it needs no key, so it must cost little."""
        with self._checking:
            if time.monotonic() - self._checked_at > READY_FOR_S:
                self.check()
                self._checked_at = time.monotonic()

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
        report, speech = self.detector.detect(example)
        QualityLimits(seconds / 4, -np.inf, 1.0).check(report)
        for model in self.models.values():
            vector: NDArray[np.float32] = model.embedder.embed(speech).vector
            self.index.search("", model.embedder.sha256, vector, k=1)

    def _limits(self, call: Call) -> AttemptLimits | None:
        return None if call.operator else self.settings.attempt_limits

    def _hear(self, call: Call, data: Audio, required_speech_s: float) -> Heard:
        settings = self.settings
        with call.stage("decode"):
            recording = data if isinstance(data, Recording) else decode(data, settings.max_audio_s)
        with call.stage("speech"):
            report, speech = self.detector.detect(recording)
            QualityLimits(required_speech_s, settings.min_snr_db, settings.max_clipping).check(report)
            digest = hashlib.sha256(recording.samples.data).digest()
        return Heard(report, speech, digest)

    def _embed(self, call: Call, model: ServedModel, heard: Heard) -> Embedding:
        embedding = model.embedder.embed(heard.speech, call.left_s(), call.alone)
        if embedding.queue_s:  # for a batch, after its turn
            call.add("queue", embedding.queue_s, ended_ago=embedding.embed_s)
        call.add("embed", embedding.embed_s)
        return embedding

    def _doubts(self, heard: Heard) -> Sequence[str]:
        short = ["short_speech"] if heard.report.net_speech_s < self.settings.short_speech_s else []
        return short + [w for w in heard.report.warnings if w in _DOUBTFUL]

    def _count(self, kind: str, decision: str, best: float | None, model: ServedModel) -> None:
        self.metrics.decisions.labels(kind, decision, model.name).inc()
        if best is not None:
            self.metrics.scores.labels(kind, model.name).observe(best)

    def _log(
        self,
        call: Call,
        kind: str,
        decision: str,
        best: float | None,
        model: ServedModel,
        speaker_id: str | None = None,
    ) -> None:
        self.store.audit.note(
            kind,
            call.tenant,
            speaker_id,
            decision=decision,
            score=None if best is None else round(best, 2),
            model=model.embedder.sha256,
            request=call.request_id,
        )

    def _timings(self, call: Call, model: str) -> dict[str, float]:
        """Close the call's clock: observe each stage and give them in milliseconds."""
        call.stages["total"] = time.perf_counter() - call.started
        for name, seconds in call.stages.items():
            self.metrics.stage_seconds.labels(name, model).observe(seconds)
        return {name: round(seconds * 1000, 3) for name, seconds in call.stages.items()}


def _threshold(model: ServedModel) -> ThresholdOut:
    point = model.decides().operating_point
    return ThresholdOut(
        value=point.threshold,
        operating_point=point.name,
        source=point.source,
        fmr=point.fmr,
        fnmr=point.fnmr,
    )
