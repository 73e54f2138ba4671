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
from sayso.enroll.errors import SpeakerOptedOut, StoreCorrupt
from sayso.enroll.index import index_of
from sayso.enroll.types import NewEnrollment
from sayso.runtime.audio import SAMPLE_RATE, Recording, Samples, SentAudio, encode
from sayso.runtime.buckets import SIZES
from sayso.runtime.embedder import Embedding
from sayso.runtime.session import CPU, available_cores
from sayso.runtime.speech import QualityLimits, SpeechDetector, SpeechReport
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.call import Call
from sayso.service.errors import ServiceError
from sayso.service.guard import Guard
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

Audio = bytes | SentAudio | Recording  # a file's bytes, as they were sent, or what is decoded already
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
        self.rates = RateLimits(settings.rate_limit, settings.rate_burst, self.store.buckets)
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
        data = SentAudio(data) if isinstance(data, bytes) else data
        if isinstance(data, SentAudio) and not data.is_complete:
            with call.stage("decode"):
                data = data.decode(self.settings.max_audio_s)
        heard = self._hear(call, data, self.settings.enroll_min_speech_s)
        embeddings = {
            model.embedder.sha256: self._embed(call, model, heard) for model in self.models.values()
        }
        vectors = {sha256: embedding.vector for sha256, embedding in embeddings.items()}
        report = heard.report
        file = encode(data) if isinstance(data, Recording) else data.data  # kept where the tenant wants it
        new = NewEnrollment(
            report.net_speech_s, report.duration_s, report.snr_db, report.clipping, vectors, file
        )
        with call.stage("store"):
            speaker, enrollment = self.store.add_enrollment(call.tenant, speaker_id, new, enrollment_id)
            self.store.attempts.enrolled(
                call.tenant, speaker_id, enrollment.id, heard.digest, self.settings.attempt_limits
            )
        return EnrollmentAdded(
            enrollment=EnrollmentOut.seen(enrollment, call.scores),
            status=speaker.status,
            net_speech_s=speaker.net_speech_s,
            remaining_speech_s=speaker.remaining_speech_s,
            audio=_audio(heard, *embeddings.values()),
            models=[model.ref for model in self.models.values()],
            request_id=call.request_id,
            timings_ms=self._timings(call, "all"),
        )

    def verify(self, call: Call, speaker_id: str, data: Audio, model_name: str | None = None) -> Verification:
        """Is this recording of that speaker?"""
        model = self.model(model_name)
        policy = model.decides()
        guard = Guard(self.store.attempts, call.tenant, call.attempt, self.settings.attempt_limits)
        with call.stage("store"):
            template = self.store.template(call.tenant, speaker_id, model.embedder.sha256)
            guard.admit([speaker_id])
        heard = self._hear(call, data, self.settings.verify_required_speech_s)
        embedding = self._embed(call, model, heard)
        vector = embedding.vector
        with call.stage("search"):
            decided = decide_verify(score(vector, template.vector), policy, self._doubts(heard))
            guard.settle("verify", speaker_id, decided.decision == "accept", heard.digest)
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
            audio=_audio(heard, embedding),
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
        policy = model.decides()
        guard = Guard(self.store.attempts, call.tenant, call.attempt, self.settings.attempt_limits)
        with call.stage("store"):
            barred = guard.barred() if among is None else guard.admit(among)
        heard = self._hear(call, data, self.settings.verify_required_speech_s)
        embedding = self._embed(call, model, heard)
        vector = embedding.vector
        with call.stage("search"):
            found, searched = self.index.search(
                call.tenant, model.embedder.sha256, vector, max(2, top_k) + len(barred), among, group
            )
            found = [candidate for candidate in found if candidate.speaker_id not in barred]
            threshold = model.search_threshold(self.settings.identify_fpir, searched)
            margin = self.settings.identify_margin
            decided = decide_identify(found, threshold.value, margin, policy, self._doubts(heard))
            if decided.speaker_id is not None:
                guard.settle("identify", decided.speaker_id, True, heard.digest)
            elif among is not None and found:
                guard.settle("identify", found[0].speaker_id, False, heard.digest)
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
            audio=_audio(heard, embedding),
            model=model.ref,
            request_id=call.request_id,
            timings_ms=self._timings(call, model.name),
        )

    def compare(self, call: Call, first: Audio, second: Audio, model_name: str | None = None) -> Comparison:
        """Are two recordings of one speaker?"""
        model = self.model(model_name)
        policy = model.decides()
        heard = [self._hear(call, data, self.settings.verify_required_speech_s) for data in (first, second)]
        embeddings = [self._embed(call, model, h) for h in heard]
        with call.stage("search"):
            doubts = [doubt for h in heard for doubt in self._doubts(h)]
            decided = decide_verify(score(embeddings[0].vector, embeddings[1].vector), policy, doubts)
        self._count("compare", decided.decision, decided.score, model)
        self._log(call, "compare", decided.decision, decided.score, model)
        return Comparison(
            decision=decided.decision,
            reason=decided.reason,
            score=decided.score if call.scores else None,
            llr=decided.llr if call.scores else None,
            threshold=_threshold(model),
            audio=[_audio(h, embedding) for h, embedding in zip(heard, embeddings, strict=True)],
            model=model.ref,
            request_id=call.request_id,
            timings_ms=self._timings(call, model.name),
        )

    def embedding(self, call: Call, data: Audio, model_name: str | None = None) -> EmbeddingOut:
        """The vector of a recording."""
        model = self.model(model_name)
        heard = self._hear(call, data, self.settings.verify_required_speech_s)
        embedding = self._embed(call, model, heard)
        self.store.audit.note("embedding", call.tenant, request=call.request_id)
        return EmbeddingOut(
            embedding=[float(x) for x in embedding.vector],
            windows=embedding.windows,
            audio=_audio(heard, embedding),
            model=model.ref,
            request_id=call.request_id,
            timings_ms=self._timings(call, model.name),
        )

    def embed_kept(self, data: bytes, model_name: str) -> NDArray[np.float32]:
        """The vector of a recording that was enrolled before, under a model served since then."""
        call = Call("", "", alone=False)  # on one core: it has no turn among the callers
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

    def _decoded(self, data: Audio) -> Recording:
        if isinstance(data, Recording):
            return data
        sent = SentAudio(data) if isinstance(data, bytes) else data
        return sent.decode(self.settings.max_audio_s)

    def _hear(self, call: Call, data: Audio, required_speech_s: float) -> Heard:
        settings = self.settings
        with call.stage("decode"):
            recording = self._decoded(data)
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


def _audio(heard: Heard, *embeddings: Embedding) -> AudioOut:
    """The report of a recording, with what its embeddings say of who is on it."""
    audio: AudioOut = AudioOut.model_validate(heard.report)
    if any(embedding.several_voices for embedding in embeddings):
        audio.warnings.append("several_voices")
    return audio


def _threshold(model: ServedModel) -> ThresholdOut:
    point = model.decides().operating_point
    return ThresholdOut(
        value=point.threshold,
        operating_point=point.name,
        source=point.source,
        fmr=point.fmr,
        fnmr=point.fnmr,
    )
