"""Every setting, read from the environment as `SAYSO_<NAME>`; docs/settings.md explains them to users."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sayso.enroll.db.address import is_postgres
from sayso.enroll.secrets.master_key import KeyFile, KeySource, KeyText
from sayso.enroll.store import KEY_FILE, Store
from sayso.runtime.added import AddedModels
from sayso.runtime.errors import ModelError
from sayso.runtime.model_file import network_sha256
from sayso.service.access.attempts import AttemptLimits
from sayso.service.logs import Format

SHIPPED_MODELS = Path(str(files("sayso.runtime") / "weights"))
SHIPPED = {name: SHIPPED_MODELS / f"{name}.onnx" for name in ("nested", "baseline")}
PREFIX = "SAYSO_"
PORT = 8000
# Variables of clients, examples and tests, which the service does not read.
_OTHERS = {f"{PREFIX}{name}" for name in ("KEY", "URL", "SPEECH", "IMAGE", "PICTURES", "TEST_POSTGRES_BIN")}
# What Kubernetes sets in every pod for a Service whose name begins with `sayso`.
_SERVICE_LINK = re.compile(
    r"SAYSO(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
PATH_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+")
_ALIKE, _NEARLY = 0.6, 0.88  # similarity of a name with the prefix, and of one without


class Settings(BaseSettings):
    """Where things are kept, what is served, and what a recording must bring to decide anything."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True)

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
    port: int = Field(PORT, ge=0, le=65535, description="Port to listen on.")
    admin_key: SecretStr | None = Field(
        None, min_length=16, description="The first API key; without it the first start makes one."
    )
    models: dict[str, Path | None] = Field(
        {}, description="Further models by name, as JSON; `null` is for one not to serve. All of them enrol."
    )
    default_model: str | None = Field(
        None, description="Answers calls that name no model; if unset, what `sayso models default` chose."
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto", description="Where models run; `cuda` and `tensorrt` refuse to start where they do not work."
    )
    threads: int = Field(0, ge=0, description="CPU threads for a request that is alone; 0 means all cores.")

    tls_cert: Path | None = Field(None, description="Certificate chain (PEM) to serve HTTPS with.")
    tls_key: Path | None = Field(None, description="The certificate's private key (PEM).")
    root_path: str = Field(
        "", description="Path that a proxy puts before every address, such as `/voice`; in links."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins whose pages may call the service, separated by commas; `*` is all."
    )
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
    keep_alive_s: int = Field(
        5, ge=1, description="How long an idle connection stays open for another request."
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
    enroll_strict: bool = Field(
        False, description="Refuse enrolments of another voice, of several, or of another's recording."
    )
    verify_required_speech_s: float = Field(
        1.5, gt=0, description="Net speech that verify, identify, compare and embeddings need."
    )
    short_speech_s: float = Field(
        3.0, ge=0, description="Below this a recording is doubtful: near the threshold, inconclusive."
    )
    min_snr_db: float = Field(0.0, description="Recordings noisier than this are refused.")
    max_clipping: float = Field(0.1, ge=0, le=1, description="Share of clipped samples that is refused.")

    operating_point: str = Field(
        "fmr=0.01",
        description="Calibrated threshold of verify and compare: `eer`, `fmr=0.01` or `fmr=0.001`.",
    )
    thresholds: dict[str, float] = Field(
        {}, description="Scores set on purpose to accept from, by model name as JSON; no LLR decides then."
    )
    inconclusive_llr: float = Field(
        1.0, ge=0, description="How near the threshold, in nats, a doubtful recording is inconclusive."
    )
    identify_fpir: float = Field(
        0.05, gt=0, lt=1, description="How often an unknown voice may match anybody, over all compared."
    )
    identify_margin: float = Field(
        0.7, ge=0, description="Lead in LLR over the second candidate below which a match is ambiguous."
    )

    traces: bool = Field(
        False, description="Send OpenTelemetry traces; needs the extra `otel`, and OTEL_* say where to."
    )
    log_format: Format = Field(
        "auto", description="`text` for people, `json` for programs; `auto`: text on a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")

    @field_validator("port", mode="before")
    @classmethod
    def _no_service_link(cls, value: Any) -> Any:
        """Kubernetes sets SAYSO_PORT=tcp://… for a Service called `sayso`: that is no setting of ours."""
        return PORT if isinstance(value, str) and "://" in value else value

    @field_validator("root_path", mode="after")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and not PATH_PREFIX.fullmatch(value):
            raise ValueError("a path begins with one /, and has letters, digits and -._~ between others")
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin if origin == "*" else origin.rstrip("/").lower() for origin in value)
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin} is no origin: write https://host or https://host:port")
        return origins

    @field_validator("data_dir", "master_key_file", "tls_cert", "tls_key", mode="after")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return None if value is None else _expanded(value)

    @field_validator("models", mode="after")
    @classmethod
    def _homes(cls, value: dict[str, Path | None]) -> dict[str, Path | None]:
        return {name: None if path is None else _expanded(path) for name, path in value.items()}

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
    def added_models(self) -> AddedModels:
        return AddedModels(self.data_dir / "models")

    def served_models(self) -> dict[str, Path]:
        """The files of all models to serve, by name: the shipped ones, those added, then SAYSO_MODELS.

        A later one takes an earlier one's name only if it is the same network, with another calibration.
        Raises `ModelError` if it is another network, or if no model is left.
        """
        named = {name: path for name, path in self.models.items() if path is not None}
        served = dict(SHIPPED)
        for source, models in (("the data folder", self.added_models.paths()), ("SAYSO_MODELS", named)):
            for name, path in models.items():
                if name in served and served[name] != path:
                    _require_same_network(name, served[name], path, source)
                served[name] = path
        served = {name: path for name, path in served.items() if self.models.get(name, path) is not None}
        if not served:
            raise ModelError("SAYSO_MODELS leaves no model to serve")
        return served

    def default_of(self, served: Collection[str]) -> str:
        """The one of the served models that answers calls that name none; raises `ModelError`."""
        chosen = self.default_model or self.added_models.default or next(iter(served))
        if chosen not in served:
            by = "SAYSO_DEFAULT_MODEL" if self.default_model else "`sayso models default`"
            raise ModelError(
                f"the default model {chosen!r}, chosen by {by}, is not served: there is {', '.join(served)}"
            )
        return chosen

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


def only_models(models: Mapping[str, Path]) -> dict[str, str | None]:
    """A value of SAYSO_MODELS that serves these models and none of the shipped ones."""
    return {**dict.fromkeys(SHIPPED), **{name: str(path.resolve()) for name, path in models.items()}}


def _require_same_network(name: str, earlier: Path, later: Path, source: str) -> None:
    """Raise `ModelError` if a name would stand for another network than the one people are enrolled with."""
    try:
        networks = {network_sha256(path.read_bytes()) for path in (earlier, later)}
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the model {name!r} of {source}: {error}") from error
    if len(networks) > 1:
        raise ModelError(
            f"the model {name!r} of {source} is another network than {earlier}, which has this name already: "
            f"give it a name of its own. To stop serving {earlier.name}, say so: "
            f"SAYSO_MODELS='{{\"{name}\": null}}'"
        )


def _expanded(path: Path) -> Path:
    """The path with a leading `~` replaced: files of variables, unlike shells, keep it."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path} begins with the home folder of an unknown user") from None


def mistyped(variables: Iterable[str]) -> list[str]:
    """A sentence for each variable that looks like a setting and is none, with the setting meant."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    sentences = []
    for variable in sorted(variables):
        name = variable.upper()
        if name in known | _OTHERS or _SERVICE_LINK.fullmatch(name):
            continue
        prefixed = name.startswith("SAYSO")
        closest = get_close_matches(name, known, 1, _ALIKE if prefixed else _NEARLY)
        if closest:
            sentences.append(f"{variable} is no setting: did you mean {closest[0]}?")
        elif prefixed:
            sentences.append(f"{variable} is no setting")
    return sentences
