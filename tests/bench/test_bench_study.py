"""The study's table is read off what its runs left, and a run that met a NaN still has a row."""

import json
from pathlib import Path

import pytest
import soundfile as sf
import torch

from sayso.bench.study import collect, table
from sayso.evaluate.trials import read_trials
from sayso.export.exporter import export_checkpoint
from sayso.models.checkpoint import save_checkpoint
from sayso.models.frontend import FrontEndOptions
from sayso.models.network import NetworkConfig, SpeakerNetwork
from sayso.runtime.synthesis import synthetic_voice

SIZES = {"n_mels": 24, "embedding_dim": 16, "channels": [8, 8, 8, 8], "blocks": [1] * 3, "fusion": 16}
LINE = {"step": 5, "epoch": 1.0, "grad_norm": 2.0, "grad_norm_max": 9.0, "crops_per_s": 50.0, "dev_eer": 0.4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`gated` came to its end; `full` met a NaN in its second epoch."""
    root = tmp_path_factory.mktemp("study")
    for name in ("gated", "full"):
        (root / name).mkdir()
    torch.manual_seed(0)
    options = SIZES | {"variant": "gated", "strides": [[2, 2], [2, 2]]}
    network = SpeakerNetwork(NetworkConfig("NestedSpeakerNet", options, FrontEndOptions(n_mels=24)))
    save_checkpoint(root / "gated/model.safetensors", network.eval(), {})
    export_checkpoint(root / "gated/model.safetensors", root / "gated/model.onnx", "gated")
    (root / "gated/log.jsonl").write_text(json.dumps(LINE | {"epoch": 2.0, "dev_eer": 0.3}) + "\n")
    (root / "gated/dev.json").write_text(json.dumps({"eer": 0.25, "eer_interval": [0.2, 0.31]}))
    stopped = {"step": 8, "stopped": ["aam", "loss"], "grad_norm_max": 80.0, "grad_norm": 30.0}
    (root / "full/log.jsonl").write_text(json.dumps(LINE) + "\n" + json.dumps(stopped) + "\n")
    for name, pitch in (("a", 110), ("b", 200)):
        for take in range(2):
            sf.write(root / f"{name}{take}.wav", synthetic_voice(1.0 + 3 * take, pitch, seed=take), 16_000)
    (root / "t.trials").write_text("1 a0.wav a1.wav\n1 b0.wav b1.wav\n0 a0.wav b1.wav\n0 b0.wav a1.wav\n")
    return root


def test_rows_tell_what_their_runs_left(runs: Path) -> None:
    told: list[tuple[int, int]] = []
    folders = {name: runs / name for name in ("gated", "full")}
    rows = collect(folders, read_trials(runs / "t.trials"), runs, lambda *n: told.append(n))
    gated, full = rows
    assert told == [(1, 2), (2, 2)]
    assert (gated.eer, gated.eer_interval, gated.stopped) == (0.25, (0.2, 0.31), None)
    assert gated.epochs == 2.0
    assert gated.latency_ms is not None
    assert gated.latency_ms > 0
    assert gated.anatomy is not None
    assert len(gated.anatomy.sources) == 3
    assert gated.anatomy.paths == 2
    assert (full.stopped, full.epochs, full.grad_norm_max) == ("aam, loss", 1.0, 80.0)
    assert full.eer is None
    assert full.latency_ms is None

    drawn = table(rows, reference="gated")
    assert "| gated | 2.0 | whole schedule | 2 (9) | 25.00% (20.00% to 31.00%) |" in drawn
    assert "| 1.00x |" in drawn
    assert "| full | 1.0 | aam, loss not finite | 2 (80) |  |  |  |  |" in drawn
