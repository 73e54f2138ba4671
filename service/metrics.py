"""What Prometheus sees. No label holds a speaker, a tenant or anything that was said."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

# The study's latencies of one forward pass, drawn beside ours in every dashboard.
STUDY_SECONDS = {"nested": 0.02883, "baseline": 0.0314}
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.02883, 0.04, 0.06, 0.1, 0.25, 1.0, 5.0)
# From below 0, so that Prometheus' client keeps no sum: its steps would be the scores themselves.
_SCORES = tuple(round(-0.3 + 0.1 * i, 1) for i in range(14))


class Metrics:
    """The service's instruments on a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing here reads
        r = self.registry = CollectorRegistry()
        self.requests = Counter(
            "sayso_requests", "Requests answered.", ["method", "route", "status"], registry=r
        )
        self.request_seconds = Histogram(
            "sayso_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, registry=r
        )
        self.stage_seconds = Histogram(
            "sayso_stage_seconds",
            "Time in each stage: decode, speech, queue, embed, search, store, total.",
            ["stage", "model", "call"],
            buckets=_SECONDS,
            registry=r,
        )
        self.batch_windows = Histogram(
            "sayso_batch_windows", "Windows in a batch.", ["model"], buckets=(1, 2, 4, 8, 16), registry=r
        )
        self.queue_depth = Gauge("sayso_queue_depth", "Recordings waiting for a core or a batch.", registry=r)
        self.places = Gauge("sayso_places", "Recordings that may be admitted at once.", registry=r)
        self.held_bytes = Gauge("sayso_held_bytes", "Bytes of request bodies held.", registry=r)
        self.in_flight = Gauge("sayso_in_flight", "Recordings being worked on.", registry=r)
        self.streams = Gauge("sayso_streams", "Streams open.", registry=r)
        self.stream_seconds = Histogram(
            "sayso_stream_decision_seconds",
            "From the arrival of the speech that was enough to the first decision of a stream.",
            ["call", "model"],
            buckets=_SECONDS,
            registry=r,
        )
        self.decisions = Counter(
            "sayso_decisions", "Decisions given.", ["call", "decision", "model"], registry=r
        )
        self.scores = Histogram(
            "sayso_score",
            "Best score of each decision.",
            ["call", "model"],
            buckets=_SCORES,
            registry=r,
        )
        self.refusals = Counter("sayso_refusals", "Requests refused, by error code.", ["code"], registry=r)
        self.model_info = Gauge(
            "sayso_model_info",
            "Served models; always 1.",
            ["model", "architecture", "sha256", "provider"],
            registry=r,
        )
        self.reembedding = Gauge(
            "sayso_reembedding_recordings",
            "Kept recordings a model has not embedded yet.",
            ["model"],
            registry=r,
        )
        self.background_problems = Gauge(
            "sayso_background_problems", "Failures of the index and the audit log that last.", registry=r
        )
        self.upkeep_failures = Counter(
            "sayso_upkeep_failures",
            "Upkeep that failed: expire, purge, index, reembed.",
            ["task"],
            registry=r,
        )
        study = Gauge(
            "sayso_study_latency_seconds",
            "Forward pass latencies that the nested network's study reported.",
            ["network"],
            registry=r,
        )
        for network, seconds in STUDY_SECONDS.items():
            study.labels(network).set(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
