"""Every setting, read from the environment as `SAYSO_<NAME>`; docs/settings.md explains them to users."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

SHIPPED_MODELS = Path(__file__).parent.parent / "runtime" / "weights"


class Settings(BaseSettings):
    """Where things are kept, what is served, and what a recording must bring to decide anything."""

    model_config = SettingsConfigDict(env_prefix="SAYSO_")

    data_dir: Path = Field(
        Path.home() / ".local" / "share" / "sayso", description="Folder of everything the service keeps."
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
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where models run; `cuda` refuses to start where CUDA does not work."
    )
    threads: int = Field(0, ge=0, description="CPU threads a model may use for one batch; 0 means all cores.")

    max_body_bytes: int = Field(25 * 2**20, ge=1024, description="Largest request body.")
    max_audio_s: float = Field(300.0, gt=0, description="Longest recording in seconds.")
    max_concurrency: int = Field(
        32, ge=1, description="Recordings worked on at once; further requests are answered 429."
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

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")

    @property
    def store_path(self) -> Path:
        return self.data_dir / "sayso.db"
