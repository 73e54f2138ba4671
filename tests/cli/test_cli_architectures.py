"""Every architecture from nothing to a decision: train, export, calibrate, enrol and verify over HTTP."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fastapi.testclient import TestClient
from sounds import encode, voice_of
from typer.testing import CliRunner

from sayso.cli import app
from sayso.export import parity
from sayso.models.network import ARCHITECTURES
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.access.keys import SCOPES
from sayso.service.app import create_app
from sayso.service.engine import Engine
from sayso.service.metrics import Metrics
from sayso.service.settings import Settings, only_models

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "crops": 4 * 16,
    "batch_size": 16,
    "crop_s": 0.8,
    "freq_mask": 2,
    "time_mask": 5,
    "masks": 1,
    "front_end": {"n_mels": 24},
}
SIZES = {"embedding_dim": 16, "n_mels": 24}
NESTED = {"channels": [8, 8, 8, 8], "blocks": [1] * 3, "strides": [[2, 2]] * 2, "fusion": 16}
RESNET = {"filters": [8] * 4, "blocks": [1] * 4}
SMALLEST: dict[str, dict[str, Any]] = {
    "ResNetSE34L": {"options": SIZES | RESNET},
    "NestedSpeakerNet": {"options": SIZES | NESTED},
    "ResNetSE34V2": {"options": SIZES | RESNET},
    "VGGVox": {
        "options": {"embedding_dim": 16, "n_mels": 40, "filters": [8] * 6},
        "front_end": {"n_mels": 40, "window": "hann"},
    },
    "DenoisingLSTM": {
        "options": SIZES | {"code": 8, "cells": 8},
        "denoising": {"crops": 64, "copies": [{"augmentation": 1}]},
    },
    "RawNet3": {
        "options": {"embedding_dim": 16, "channels": 32, "aggregated": 24, "attention": 8},
        "front_end": {"kind": "waveform", "n_mels": 0, "pre_emphasis": 0.97},
        "freq_mask": 0,
        "time_mask": 800,
    },
    "ECAPA-TDNN": {
        "options": SIZES | {"channels": 16, "aggregated": 24, "attention": 8, "squeezed": 4},
        "front_end": {"n_mels": 24, "variance": False},
    },
}


# Pitch in Hz and vocal tract scale.
TRAIN = {"ann": (205, 1.16), "bob": (105, 0.94), "cat": (165, 1.08)}
DEV = {"eve": (240, 1.25), "fay": (90, 0.8), "gus": (150, 1.0)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three takes of each voice, and trials between those that are not trained on.

    Takes differ by a little noise alone: a network of four steps is to know them for the same voice.
    """
    root, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    rows, held_out = ["path,split,speaker"], []
    for name, (pitch, tract) in (TRAIN | DEV).items():
        voice = synthetic_voice(3.0, pitch, tract)
        for take in range(3):
            path = root / f"{name}{take}.wav"
            path.write_bytes(encode(voice + 0.002 * rng.standard_normal(len(voice))))
            rows.append(f"{path.name},{'train' if name in TRAIN else 'dev'},{name}")
            held_out += [path.name] if name in DEV else []
    pairs = [(a, b) for i, a in enumerate(held_out) for b in held_out[:i]]
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    (root / "dev.trials").write_text("".join(f"{int(a[:3] == b[:3])} {a} {b}\n" for a, b in pairs))
    return root


@pytest.mark.parametrize("architecture", SMALLEST)
def test_from_nothing_to_a_decision(
    architecture: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAYSO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(parity, "SECONDS", (0.5, 1.0, 3.0))  # tests/export compares at all lengths
    recipe = RECIPE | SMALLEST[architecture] | {"architecture": architecture}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    checkpoint, model = tmp_path / "tiny.safetensors", tmp_path / "tiny.onnx"
    lists = ["--manifest", corpus / "manifest.csv", "--trials", corpus / "dev.trials"]
    for words in (
        ("train", tmp_path / "tiny.yaml", *lists, "--work", tmp_path / "work", "--out", checkpoint),
        ("export", checkpoint, "-o", model),
        ("calibrate", model, "--trials", corpus / "dev.trials", "--root", corpus),
        ("inspect", model, "--draw", tmp_path / "tiny.svg"),
    ):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, f"{words}: {done.output}{done.exception!r}"

    with TestClient(
        create_app(engine := Engine(Settings(models=only_models({"tiny": model})), Metrics()))
    ) as client:
        client.headers["Authorization"] = f"Bearer {engine.keys.create_key('default', SCOPES, 'test')[1]}"
        assert client.post("/v1/speakers", json={"id": "ann"}).status_code == 201
        enrolled = client.post("/v1/speakers/ann/enrollments", content=voice_of("ann", 2, 16))
        assert enrolled.json()["status"] == "enrolled"
        answer = client.post("/v1/speakers/ann/verify", content=voice_of("ann", 3)).json()
    assert answer["decision"] in ("accept", "reject", "inconclusive")
    assert -1.0 <= answer["score"] <= 1.0
    assert isinstance(answer["llr"], float), answer
    assert answer["model"]["name"] == "tiny"
    card = json.loads(CliRunner().invoke(app, ["inspect", str(model), "--json"]).output)
    assert card["architecture"] == architecture


def test_no_architecture_is_left_out() -> None:
    assert set(SMALLEST) == set(ARCHITECTURES)
