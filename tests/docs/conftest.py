"""A folder that looks like a checkout to whoever follows a page, with the recordings that the pages name."""

import csv
import itertools
import os
import socket
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile as sf
import torch
from onnx import TensorProto, helper
from sounds import encode

sys.path.append(str(Path(__file__).parent))  # importlib mode leaves a test's own folder out

from docs_samples import ROOT

from sayso.models.checkpoint import load_checkpoint
from sayso.runtime.synthesis import synthetic_voice

RENAMED = {  # ours to voxceleb_trainer's
    "pooling.linear.weight": "sap_linear.weight",
    "pooling.linear.bias": "sap_linear.bias",
    "pooling.attention": "attention",
}
SPEAKERS, TAKES = 8, 3


def _real(root: Path) -> list[list[np.ndarray]]:
    """Eight LibriSpeech readers, three recordings each; the first of each is long enough to enrol with."""
    files = defaultdict(list)
    with (root / "manifest.csv").open() as manifest:
        for row in csv.DictReader(manifest):
            if row["corpus"] == "librispeech" and row["split"] == "dev" and float(row["seconds"]) > 6:
                files[row["speaker"]].append(root / row["path"])
    people = []
    for _, paths in sorted(files.items()):
        takes = [sf.read(path)[0] for path in paths]
        if len(takes) >= TAKES + 1 and sum(map(len, takes[: 1 - TAKES])) > 20 * 16_000:
            long = np.concatenate(takes[: 1 - TAKES])[: 26 * 16_000]
            people.append([long, *takes[1 - TAKES :]])
    return people[:SPEAKERS]


def _made() -> list[list[np.ndarray]]:
    pitches = np.linspace(140, 220, SPEAKERS)  # the detector hears these voices as speech throughout
    return [
        [
            synthetic_voice(20 if take == 0 else 7, pitch, 0.85 + 0.3 * (pitch - 100) / 140, seed=take)
            for take in range(TAKES)
        ]
        for pitch in pitches
    ]


@pytest.fixture(scope="session")
def voices(request: pytest.FixtureRequest) -> tuple[list[list[np.ndarray]], dict[str, str]]:
    """Recordings by speaker, and the settings that synthetic ones, more alike than people are, need."""
    try:
        return _real(request.getfixturevalue("speech")), {}
    except pytest.skip.Exception:
        return _made(), {"SAYSO_THRESHOLDS": '{"baseline": 0.95, "nested": 0.9}'}


@pytest.fixture
def checkout(tmp_path: Path, voices: tuple[list[list[np.ndarray]], dict[str, str]]) -> Path:
    """The files of a checkout that pages use, and the reader's own: recordings, trials, a network."""
    for name in ("Makefile", "client", "docker", "examples", "pyproject.toml", "runtime", "train"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.executable).parent)
    for stamp in (".serve", ".dev"):  # installed already
        (tmp_path / ".venv" / stamp).touch()
    people = voices[0]
    for name, samples in (("alice-1", people[0][0]), ("alice-2", people[0][1]), ("other", people[-1][1])):
        (tmp_path / f"{name}.wav").write_bytes(encode(samples))
    recordings = []
    for number, takes in enumerate(people):
        folder = tmp_path / f"recordings/speaker{number}"
        folder.mkdir(parents=True)
        for take, samples in enumerate(takes):
            (folder / f"{take}.wav").write_bytes(encode(samples[: 8 * 16_000]))
            recordings.append((number, f"speaker{number}/{take}.wav"))
    pairs = itertools.combinations(recordings, 2)
    (tmp_path / "my.trials").write_text("".join(f"{int(a == b)} {x} {y}\n" for (a, x), (b, y) in pairs))
    for name, takes in (("ann", people[1][:2]), ("bob", people[2][:2])):
        (tmp_path / "voices" / name).mkdir(parents=True)
        for take, samples in enumerate(takes):
            (tmp_path / "voices" / name / f"{take}.wav").write_bytes(encode(samples))
    (tmp_path / "voices/cat").mkdir()
    (tmp_path / "voices/cat/notes.txt").write_text("not a recording")
    return tmp_path


@pytest.fixture
def networks(checkout: Path) -> None:
    """`resnetse34l.model`, ours as voxceleb_trainer would have it, and a stand-in for `campplus.onnx`."""
    network = load_checkpoint(ROOT / "models/weights/baseline.safetensors").network
    held = {f"__S__.{RENAMED.get(name, name)}": t for name, t in network.trunk.state_dict().items()}
    held["__S__.torchfb.spectrogram.window"] = network.front_end.window
    held["__S__.torchfb.mel_scale.fb"] = network.front_end.filterbank
    torch.save(held, checkout / "resnetse34l.model")
    weights = np.random.default_rng(0).standard_normal((80, 16)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Abs", ["x"], ["a"]),
            helper.make_node("ReduceMean", ["a"], ["m"], axes=[1], keepdims=0),
            helper.make_node("MatMul", ["m", "w"], ["y"]),
        ],
        "stand-in",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "frames", 80])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor("w", TensorProto.FLOAT, [80, 16], weights.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, checkout / "campplus.onnx")


@pytest.fixture
def environment(checkout: Path, voices: tuple[list[list[np.ndarray]], dict[str, str]]) -> dict[str, str]:
    """What a page's shell finds: this environment, a home of its own, a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SAYSO_")}
    return kept | {
        "HOME": str(checkout),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}",
        "SAYSO_PORT": str(port),
        **voices[1],
    }
