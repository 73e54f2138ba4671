"""A card comes back as it was written, and a file without a good one is refused by name."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from runtime_samples import card, toy_model, toy_network

from sayso.domain.calibration import Calibration
from sayso.runtime.card import (
    CARD_KEY,
    ModelCard,
    read_card,
    with_card,
    write_card,
)
from sayso.runtime.errors import ModelError
from sayso.runtime.model_file import metadata, network_sha256, with_metadata

CALIBRATION: dict[str, Any] = {
    "trials": {"name": "dev.trials", "sha256": "d" * 64, "targets": 10, "nontargets": 90, "speakers": 5},
    "llr": {"slope": 12.5, "offset": -4.0},
    "operating_points": {"eer": {"threshold": 0.41, "fmr": 0.031, "fnmr": 0.031}},
    "false_match_curve": {"fmr": [0.1, 0.01], "threshold": [0.3, 0.5], "tail_scale": 0.04},
    "histogram": {"edges": [-1.0, 0.0, 1.0], "target": [0.1, 0.9], "nontarget": [0.8, 0.2]},
}


def changed(**values: Any) -> str:
    return json.dumps(json.loads(card().to_json()) | values)


@pytest.mark.parametrize(
    "written",
    [
        card(),
        card(
            calibration=Calibration.from_schema_1(CALIBRATION),
            evaluation={"eer": 0.03, "trials": {"name": "x"}},
        ),
        card(name="Größe 模型", training={}),
    ],
)
def test_a_card_comes_back_as_it_was(written: ModelCard) -> None:
    assert read_card(with_card(toy_network(), written), "toy.onnx") == written


def test_a_damaged_calibration_is_refused_by_name() -> None:
    for missing in CALIBRATION:
        entry = {key: value for key, value in CALIBRATION.items() if key != missing}
        model = with_metadata(toy_network(), CARD_KEY, changed(schema=1, calibration=entry))
        with pytest.raises(ModelError, match=f"toy.onnx.*{missing}"):
            read_card(model, "toy.onnx")


def test_a_card_of_schema_1_is_read() -> None:
    """Its threshold was a score of 0.41: that is now an LLR on its line."""
    model = with_metadata(toy_network(), CARD_KEY, changed(schema=1, calibration=CALIBRATION))
    calibration = read_card(model, "toy.onnx").calibration
    assert calibration is not None
    assert calibration.point("eer").threshold == pytest.approx(12.5 * 0.41 - 4.0)


def test_a_model_without_a_card_is_refused() -> None:
    for model in (toy_network(), with_metadata(toy_network(), "other.card", "{}")):
        with pytest.raises(ModelError, match=r"plain\.onnx has no Sayso card.*sayso export"):
            read_card(model, "plain.onnx")


@pytest.mark.parametrize("schema", [0, 3, "1", None])
def test_another_schema_is_refused(schema: object) -> None:
    model = with_metadata(toy_network(), CARD_KEY, changed(schema=schema))
    with pytest.raises(ModelError, match=rf"toy\.onnx has a card of schema {schema}; this version reads 2"):
        read_card(model, "toy.onnx")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": 1}',
        "[" * 100_000,
        changed(embedding_dim="many"),
        changed(front_end=None),
        changed(parity={}),
        changed(calibration={"llr": {"slope": 1.0}}),
        changed()[:-20],
    ],
)
def test_a_damaged_card_is_refused(text: str) -> None:
    model = with_metadata(toy_network(), CARD_KEY, text)
    with pytest.raises(ModelError, match=r"toy\.onnx has a damaged card"):
        read_card(model, "toy.onnx")


def test_missing_parts_are_named() -> None:
    facts = json.loads(card().to_json())
    del facts["window_samples"]
    with pytest.raises(ModelError, match="window_samples"):
        read_card(with_metadata(toy_network(), CARD_KEY, json.dumps(facts)), "toy.onnx")


@pytest.mark.parametrize("content", [b"no model at all", b"\xff" * 30, toy_model()[:-3]])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"bad\.onnx: not an ONNX file"):
        read_card(content, "bad.onnx")


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(ModelError, match=r"empty\.onnx"):
        read_card(b"", "empty.onnx")


def test_writing_a_card_replaces_it_and_keeps_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(with_metadata(toy_model(), "other", "kept"))
    before = network_sha256(path.read_bytes())
    calibrated = card(calibration=Calibration.from_schema_1(CALIBRATION))
    write_card(path, calibrated)
    after = path.read_bytes()
    assert read_card(after, "toy.onnx") == calibrated
    assert network_sha256(after) == before
    assert metadata(after)["other"] == "kept"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_card_that_cannot_be_written_tears_nothing(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(toy_model())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space left"):
        write_card(path, card(name="new"))
    assert path.read_bytes() == toy_model()
