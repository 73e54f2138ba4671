"""The model card: what a model is, how it was made, how well it does and how its scores are read.

It travels as JSON in the `.onnx` file's metadata under `sayso.card`; `schema` is its version.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from sayso.domain.calibration import Calibration
from sayso.runtime import model_file
from sayso.runtime.errors import ModelError

CARD_KEY = "sayso.card"
SCHEMA = 2
_READABLE = (1, 2)  # of schema 1 is the calibration different: thresholds on scores
LowerPrecision = Literal["fp16", "int8"]
LONGEST_WINDOW = 60 * 16_000  # samples: a card's claim must not size an allocation


@dataclass(frozen=True)
class FrontEnd:
    """The front-end inside the graph; lengths in samples, `sample_scale` multiplies the waveform."""

    sample_rate: int
    n_mels: int
    n_fft: int
    win_length: int
    hop_length: int
    window: str
    pre_emphasis: float
    sample_scale: float
    log_input: bool
    name: str = "log-mel"  # ours; `kaldi-fbank80` and the like for an adopted network


@dataclass(frozen=True)
class Level:
    """One level's output for a window, what it costs, and the earlier levels that it sees."""

    name: str
    channels: int
    frequencies: int
    frames: int
    parameters: int
    macs: int
    sees: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """The checkpoint that a model was exported from, or the ONNX file that was adopted."""

    sha256: str
    format: str


@dataclass(frozen=True)
class Parity:
    """Against PyTorch, or the adopted network: the worst case over the lengths and batch sizes tried."""

    max_abs_difference: float
    min_cosine: float
    seconds: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    recordings: str


@dataclass(frozen=True)
class Lowered:
    """How a model in fewer bits was let through: on what its ranges were set, and its vectors and EER (a
    fraction) against the fp32 model's."""

    calibrated_on: str | None
    compared_on: str
    median_cosine: float
    worst_cosine: float
    trials: str | None = None
    eer: float | None = None
    eer_fp32: float | None = None


@dataclass(frozen=True)
class ModelCard:
    """All that is known of a served model. `macs` are per window of `window_samples`; `precision` is what
    most of them are computed in."""

    name: str
    architecture: str
    options: dict[str, Any]
    embedding_dim: int
    parameters: int
    macs: int
    front_end: FrontEnd
    window_samples: int
    source: Source
    parity: Parity
    levels: tuple[Level, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    lowered: Lowered | None = None
    licence: str | None = None  # SPDX, of weights that are not Sayso's own
    schema: int = SCHEMA

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        calibration = self.calibration.to_dict() if self.calibration else None
        return asdict(replace(self, calibration=None)) | {"calibration": calibration}


_adapter = TypeAdapter(ModelCard)


def read_card(model: bytes, name: str) -> ModelCard:
    """The card in a model file's bytes; `name` is for the message. Raises `ModelError`."""
    try:
        text = model_file.metadata(model).get(CARD_KEY)
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelError(f"{name}: {error}") from error
    if text is None:
        raise ModelError(
            f"{name} has no Sayso card: it was not made by `sayso export`. Export its checkpoint again"
        )
    return parse_card(text, name)


def parse_card(text: str, name: str) -> ModelCard:
    """The card in JSON; `name` of the file is for the message. Raises `ModelError`."""
    try:
        entries = json.loads(text)
        schema = entries.get("schema")
        if schema not in _READABLE:
            raise ModelError(f"{name} has a card of schema {schema}; this version reads {_READABLE[-1]}")
        calibration = entries.pop("calibration", None)
        card = _adapter.validate_json(json.dumps(entries | {"schema": SCHEMA}))
        if calibration is not None:
            read = Calibration.from_schema_1 if schema == 1 else Calibration.from_dict
            card = replace(card, calibration=read(calibration))
        if not 0 < card.window_samples <= LONGEST_WINDOW:
            raise ValueError(
                f"a window of {card.window_samples} samples; 1 to {LONGEST_WINDOW} can be served"
            )
        return card
    except (ValidationError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{name} has a damaged card: {error}") from error


def with_card(model: bytes, card: ModelCard) -> bytes:
    """The same model carrying `card`; its identity does not change."""
    return model_file.with_metadata(model, CARD_KEY, card.to_json())


def write_card(path: Path, card: ModelCard) -> None:
    """Replace the card of the model file at `path`, in one step that a crash cannot tear."""
    content = with_card(path.read_bytes(), card)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
