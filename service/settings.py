"""Every setting, read from the environment as `SAYSO_<NAME>`; docs/settings.md explains them to users."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sayso.enroll.db.address import is_postgres
from sayso.enroll.secrets.master_key import KeyFile, KeySource, KeyText
from sayso.enroll.store import KEY_FILE, Store
from sayso.service.access.attempts import AttemptLimits

SHIPPED_MODELS = Path(str(files("sayso.runtime") / "weights"))


class Settings(BaseSettings):
    """Where things are kept, what is served, and what a recording must bring to decide anything."""

    model_config = SettingsConfigDict(env_prefix="SAYSO_")

    data_dir: Path = Field(
        Path.home() / ".local" / "share" / "sayso", description="Folder of everything the service keeps."
    )
    store: SecretStr | None = Field(
        None, description="`postgresql://…`: keep the store there; a file in the data folder if unset."
    )
    store_standby: SecretStr | None = Field(
        None, description="`postgresql://…` of a standby of that server, which identify reads from."
    )
    master_key: SecretStr | None = Field(
        None, description="The key that all others are wrapped with: 64 hex digits. Goes before the file."
    )
    master_key_file: Path | None = Field(
        None, description="File of that key; `master.key` in the data folder if unset, made when needed."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    admin_key: SecretStr | None = Field(
        None, min_length=16, description="The first API key; without it the first start makes one."
    )
    models: dict[str, Path] = Field(
        {name: SHIPPED_MODELS / f"{name}.onnx" for name in ("baseline", "nested")},
        min_length=1,
        description="Served models by name, as JSON; enrolment embeds with each of them.",
    )
    default_model: str | None = Field(
        None, description="The model that answers when a call names none; the first served one if unset."
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto", description="Where models run; `cuda` and `tensorrt` refuse to start where they do not work."
    )
    threads: int = Field(0, ge=0, description="CPU threads for a request that is alone; 0 means all cores.")

    tls_cert: Path | None = Field(None, description="Certificate chain (PEM) to serve HTTPS with.")
    tls_key: Path | None = Field(None, description="The certificate's private key (PEM).")
    metrics_key: SecretStr | None = Field(
        None, min_length=16, description="Bearer token that /metrics asks for; open to all without."
    )

    max_body_bytes: int = Field(25 * 2**20, ge=1024, description="Largest request body.")
    max_audio_s: float = Field(300.0, gt=0, description="Longest recording in seconds.")
    max_concurrency: int = Field(
        0, ge=0, description="Recordings admitted at once; beyond it 429. 0 means 8 for each core."
    )

    max_streams: int = Field(32, ge=1, description="Streams open at once; further ones are refused with 429.")
    max_stream_s: float = Field(
        120.0, gt=0, description="Longest streamed recording in seconds; what follows is not listened to."
    )
    stream_idle_s: float = Field(30.0, gt=0, description="A stream that sends nothing for so long is closed.")

    max_held_bytes: int = Field(
        256 * 2**20, ge=2**20, description="Bytes of bodies held at once, over all requests; beyond it 429."
    )
    max_connections: int = Field(
        900, ge=0, description="Connections open at once; further ones are answered 503. 0 is no limit."
    )
    drain_s: float = Field(
        0.0, ge=0, description="After SIGTERM, serve for so long while `/readyz` already says 503."
    )
    client_timeout_s: float = Field(
        60.0, gt=0, description="How long a client may take to send a request, or stop reading its answer."
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="How long a request may be worked on; beyond it 503."
    )
    rate_limit: float = Field(
        100.0, ge=0, description="Requests a second of one API key; beyond it 429. 0 is no limit."
    )
    rate_burst: int = Field(200, ge=1, description="Requests that a rested API key may send at once.")

    attempts_before_delay: int = Field(
        5, ge=0, description="Failed attempts on a speaker in a row until each has to wait; 0 is never."
    )
    attempt_delay_s: float = Field(30.0, ge=0, description="How long each further attempt then waits.")
    attempts_before_lock: int = Field(
        50, ge=0, description="Failed attempts in a row until the speaker is locked; 0 is never."
    )
    replay_days: float = Field(
        30.0, ge=0, le=3650, description="For so long an accepted recording is not accepted again; 0: it is."
    )

    enroll_required_speech_s: float = Field(
        10.0, gt=0, description="Net speech until a speaker is enrolled, over all enrolments."
    )
    enroll_min_speech_s: float = Field(1.5, gt=0, description="Net speech one enrolment must bring.")
    verify_required_speech_s: float = Field(
        1.5, gt=0, description="Net speech that verify, identify, compare and embeddings need."
    )
    short_speech_s: float = Field(
        3.0, ge=0, description="Below this a recording is doubtful: near the threshold, inconclusive."
    )
    min_snr_db: float = Field(0.0, description="Recordings noisier than this are refused.")
    max_clipping: float = Field(0.1, ge=0, le=1, description="Share of clipped samples that is refused.")

    operating_point: str = Field(
        "eer", description="Calibrated threshold of verify and compare: `eer`, `fmr=0.01` or `fmr=0.001`."
    )
    thresholds: dict[str, float] = Field(
        {}, description="Thresholds set on purpose, by model name as JSON; they replace the calibrated one."
    )
    inconclusive_llr: float = Field(
        1.0, ge=0, description="How near the threshold, in nats, a doubtful recording is inconclusive."
    )
    identify_fpir: float = Field(
        0.05, gt=0, lt=1, description="How often an unknown voice may match anybody, over all compared."
    )
    identify_margin: float = Field(
        0.05, ge=0, description="Lead in score over the second candidate below which a match is ambiguous."
    )

    traces: bool = Field(
        False, description="Send OpenTelemetry traces; needs the extra `otel`, and OTEL_* say where to."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("SAYSO_TLS_CERT and SAYSO_TLS_KEY go together")
        return self

    @model_validator(mode="after")
    def _store_is_a_server(self) -> Settings:
        for name, address in (("SAYSO_STORE", self.store), ("SAYSO_STORE_STANDBY", self.store_standby)):
            if address is not None and not is_postgres(address.get_secret_value()):
                raise ValueError(f"{name} is an address that begins with postgresql://")
        if self.store_standby is not None and self.store is None:
            raise ValueError("SAYSO_STORE_STANDBY goes with SAYSO_STORE")
        return self

    @property
    def attempt_limits(self) -> AttemptLimits:
        return AttemptLimits(
            self.attempts_before_delay, self.attempt_delay_s, self.attempts_before_lock, self.replay_days
        )

    @property
    def store_path(self) -> Path:
        return self.data_dir / "sayso.db"

    def open_store(self, patient: bool = False) -> Store:
        """The store of these settings, `patient` for work on all of it; raises StoreError."""
        address = self.store_path if self.store is None else self.store.get_secret_value()
        standby = None if self.store_standby is None else self.store_standby.get_secret_value()
        return Store(address, self.enroll_required_speech_s, self.key_source, standby, patient)

    @property
    def key_source(self) -> KeySource:
        """Where the master key comes from; raises `MasterKeyUnusable` for a text that is none."""
        if self.master_key is not None:
            return KeyText(self.master_key.get_secret_value())
        return KeyFile(self.master_key_file or self.data_dir / KEY_FILE)
