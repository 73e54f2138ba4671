"""Networks of Kaldi features served as one file: the features, the join, the refusals, and CAM++ itself."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from adopt_samples import campplus, save_onnx
from onnx import TensorProto, helper

from sayso.export import parity
from sayso.export.adopt import adopt_network
from sayso.export.kaldi import KaldiFbank, KaldiOptions, Window
from sayso.export.parity import ParityError, speech_from
from sayso.runtime.audio import Samples
from sayso.runtime.card import read_card
from sayso.runtime.errors import ModelError
from sayso.runtime.session import EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice

POVEY = KaldiOptions()


def sounds() -> dict[str, Samples]:
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_321).astype(np.float32)
    paused = synthetic_voice(3.0, 120)
    paused[10_000:14_000] = 0.0
    return {
        "voice": synthetic_voice(2.0, 200),
        "a voice with digital silence": paused,
        "noise": noise,
        "noise on a direct current": noise + np.float32(0.3),
        "one frame": noise[:400],
        "silence": np.zeros(5_000, np.float32),
        "a constant": np.full(5_000, 0.25, np.float32),
    }


@pytest.mark.parametrize("window", ["povey", "hamming"])
@pytest.mark.parametrize("scale", [1.0, 32768.0])
@pytest.mark.parametrize("mels", [23, 40, 80])
def test_features_are_kaldi_native_fbanks(mels: int, scale: float, window: Window) -> None:
    options = KaldiOptions(mels, window, scale)
    for name, x in sounds().items():
        got = KaldiFbank(options)(torch.from_numpy(x[None])).numpy()[0]
        expected = options.features(x)
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() < 1e-3, name  # of log energies that differ by several units
        assert np.abs(got - expected).mean() < 2e-5, name


def test_the_options_are_not_the_same_thing() -> None:
    x = sounds()["voice"]
    features = [o.features(x) for o in (POVEY, KaldiOptions(80, "hamming"))]
    assert np.abs(features[0] - features[1]).max() > 0.1


@pytest.mark.parametrize("name", ["fbank", "kaldi-fbank", "kaldi-fbank8", "kaldi-fbank500", "mfcc40"])
def test_unknown_front_ends_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is kaldi-fbank80"):
        KaldiOptions.parse(name, "povey", 1.0)


def tiny(
    path: Path, opset: int = 13, fed: tuple[int | str, ...] = ("batch", "frames", 24), dim: int = 12
) -> Path:
    """A network: the mean over time of the features' absolutes, through one matrix."""
    weights = np.random.default_rng(1).standard_normal((24, dim)).astype(np.float32)
    mean = (
        helper.make_node("ReduceMean", ["a", "axes"], ["m"], keepdims=0)
        if opset >= 18
        else helper.make_node("ReduceMean", ["a"], ["m"], axes=[1], keepdims=0)
    )
    nodes = [helper.make_node("Abs", ["x"], ["a"]), mean, helper.make_node("MatMul", ["m", "w"], ["y"])]
    held = [helper.make_tensor("w", TensorProto.FLOAT, [24, dim], weights.tobytes(), raw=True)]
    if opset >= 18:
        held.append(helper.make_tensor("axes", TensorProto.INT64, [1], [1]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, fed)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", dim])],
        held,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.fixture
def short_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "SECONDS", (0.5, 1.0))
    monkeypatch.setattr(parity, "BATCH_SIZES", (1, 2))


@pytest.mark.usefixtures("short_parity")
@pytest.mark.parametrize("opset", [11, 17, 20])
def test_networks_of_any_opset_are_adopted(opset: int, tmp_path: Path) -> None:
    network = tiny(tmp_path / "tiny.onnx", opset)
    options = KaldiOptions(24, "hamming", 1.0)
    card = adopt_network(network, tmp_path / "out.onnx", "mine", options)
    content = (tmp_path / "out.onnx").read_bytes()
    assert read_card(content, "out.onnx") == card
    assert (card.name, card.architecture, card.embedding_dim) == ("mine", "tiny", 12)
    assert (card.parameters, card.macs) == (24 * 12, 24 * 12)
    assert (card.front_end.name, card.front_end.n_mels) == ("kaldi-fbank24", 24)
    assert (card.front_end.window, card.front_end.sample_scale) == ("hamming", 1.0)
    assert card.source.sha256 == hashlib.sha256(network.read_bytes()).hexdigest()
    assert card.calibration is None
    voice = synthetic_voice(1.3, 130)
    weights = onnx.numpy_helper.to_array(onnx.load(network).graph.initializer[0])
    vector = np.abs(options.features(voice)).mean(axis=0) @ weights
    got = EmbeddingSession(content, "out", provider="cpu", threads=1).run(voice[None])[0]
    np.testing.assert_allclose(got, vector / np.linalg.norm(vector), atol=1e-5)


def turned(path: Path, lengths: int | None) -> Path:
    """`tiny` with the mels before the frames, and lengths `[batch]` of this type that its mean divides by."""
    weights = np.random.default_rng(1).standard_normal((24, 12)).astype(np.float32)
    nodes = [helper.make_node("Abs", ["x"], ["a"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 24, "frames"])]
    held = [helper.make_tensor("w", TensorProto.FLOAT, [24, 12], weights.tobytes(), raw=True)]
    if lengths is None:
        nodes.append(helper.make_node("ReduceMean", ["a"], ["m"], axes=[2], keepdims=0))
    else:
        inputs.append(helper.make_tensor_value_info("n", lengths, ["batch"]))
        held.append(helper.make_tensor("one", TensorProto.INT64, [1], [1]))
        nodes += [
            helper.make_node("ReduceL1", ["a"], ["s"], axes=[2], keepdims=0),
            helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["f", "one"], ["column"]),
            helper.make_node("Div", ["s", "column"], ["m"]),
        ]
    nodes.append(helper.make_node("MatMul", ["m", "w"], ["y"]))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 12])]
    graph = helper.make_graph(nodes, "turned", inputs, outputs, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.usefixtures("short_parity")
@pytest.mark.parametrize("lengths", [None, TensorProto.INT64, TensorProto.INT32])
def test_mels_before_frames_and_lengths_are_adopted(lengths: int | None, tmp_path: Path) -> None:
    """The same network in either layout gives the same vectors: both are `tiny`."""
    options, voice = KaldiOptions(24, "hamming", 1.0), synthetic_voice(1.3, 130)
    adopt_network(tiny(tmp_path / "tiny.onnx"), tmp_path / "a.onnx", "mine", options)
    adopt_network(turned(tmp_path / "turned.onnx", lengths), tmp_path / "b.onnx", "mine", options)
    vectors = [
        EmbeddingSession((tmp_path / name).read_bytes(), name, provider="cpu").run(np.stack([voice, voice]))
        for name in ("a.onnx", "b.onnx")
    ]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)


@pytest.mark.usefixtures("short_parity")
def test_a_mean_vector_is_taken_off(tmp_path: Path) -> None:
    network, options, voice = tiny(tmp_path / "tiny.onnx"), KaldiOptions(24), synthetic_voice(1.3, 130)
    mean = np.linspace(-3, 3, 12).astype(np.float32)
    adopt_network(network, tmp_path / "out.onnx", "mine", options, mean_vec=mean)
    weights = onnx.numpy_helper.to_array(onnx.load(network).graph.initializer[0])
    vector = np.abs(options.features(voice)).mean(axis=0) @ weights - mean
    got = EmbeddingSession((tmp_path / "out.onnx").read_bytes(), "out", provider="cpu").run(voice[None])[0]
    np.testing.assert_allclose(got, vector / np.linalg.norm(vector), atol=1e-5)
    for wrong in (mean[:5], np.full(12, np.nan, np.float32)):
        with pytest.raises(ModelError, match="the mean vector has shape"):
            adopt_network(network, tmp_path / "no.onnx", "mine", options, mean_vec=wrong)
    assert not (tmp_path / "no.onnx").exists()


@pytest.mark.usefixtures("short_parity")
def test_weights_beside_the_file_come_inside(tmp_path: Path) -> None:
    model = onnx.load(tiny(tmp_path / "whole.onnx"))
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0)
    adopt_network(tmp_path / "split.onnx", tmp_path / "out.onnx", "mine", KaldiOptions(24))
    for path in tmp_path.glob("*split*"):
        path.unlink()
    content = (tmp_path / "out.onnx").read_bytes()
    assert EmbeddingSession(content, "out", provider="cpu").run(synthetic_voice(1.0)[None]).shape == (1, 12)


@pytest.mark.parametrize(
    ("fed", "mels", "told"),
    [
        (("batch", "frames", 24), 80, r"tiny\.onnx takes .*; kaldi-fbank80 gives \[batch, frames, 80\]"),
        (("batch", "samples"), 24, "kaldi-fbank24 gives"),
        ((1, "frames", 24), 24, "dynamic axes for batch and frames"),
        (("batch", 200, 24), 24, "dynamic axes for batch and frames"),
    ],
)
def test_networks_of_another_shape_are_refused(
    fed: tuple[int | str, ...], mels: int, told: str, tmp_path: Path
) -> None:
    network = tiny(tmp_path / "tiny.onnx", fed=fed)
    with pytest.raises(ModelError, match=told):
        adopt_network(network, tmp_path / "out.onnx", "mine", KaldiOptions(mels))
    assert not (tmp_path / "out.onnx").exists()


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ModelError, match=r"text\.onnx is no ONNX model"):
        adopt_network(tmp_path / "text.onnx", tmp_path / "out.onnx", "mine", POVEY)


@pytest.mark.usefixtures("short_parity")
def test_a_wrong_join_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features without the pre-emphasis give other vectors, and that is found out."""
    monkeypatch.setattr("sayso.export.kaldi.PRE_EMPHASIS", 0.5)
    with pytest.raises(ParityError, match="not written"):
        adopt_network(tiny(tmp_path / "tiny.onnx"), tmp_path / "out.onnx", "mine", KaldiOptions(24))
    assert not (tmp_path / "out.onnx").exists()


def test_a_network_that_mixes_its_batch_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "SECONDS", (0.5,))
    model = onnx.load(tiny(tmp_path / "tiny.onnx"))
    model.graph.node[2].output[0] = "each"
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["each"], ["all"], axes=[0], keepdims=1),
            helper.make_node("Add", ["each", "all"], ["y"]),
        ]
    )
    onnx.save(model, tmp_path / "mixes.onnx")
    with pytest.raises(ParityError, match="not written"):
        adopt_network(tmp_path / "mixes.onnx", tmp_path / "out.onnx", "mine", KaldiOptions(24))


def test_the_command_line_adopts_and_refuses(tmp_path: Path) -> None:
    network = tiny(tmp_path / "tiny.onnx")

    def sayso(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sayso", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=250)

    out = tmp_path / "out.onnx"
    done = sayso("adopt", str(network), "--frontend", "kaldi-fbank24", "--hamming", "-o", str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["front_end"]["name"] == "kaldi-fbank24"
    assert "kaldi-fbank24, 24 mels, hamming 400/160" in sayso("inspect", str(out)).stdout
    refused = sayso("adopt", str(network), "--frontend", "mfcc", "-o", str(out))
    assert refused.returncode != 0
    assert "there is kaldi-fbank80" in refused.stderr


def test_campplus_is_its_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: Path) -> None:
    """CAM++ through ONNX and the file we serve against its own PyTorch on kaldi-native-fbank's features."""
    monkeypatch.setattr(parity, "SECONDS", (0.5, 3.0))
    network = campplus()
    options = KaldiOptions(80, "povey", 1.0)  # 3D-Speaker's own processor
    exported = save_onnx(network, tmp_path / "campplus.onnx")
    card = adopt_network(exported, tmp_path / "out.onnx", "campplus", options, speech / "dev")
    assert card.embedding_dim == 192
    assert card.macs == pytest.approx(1.5 * 1.15e9, rel=0.05)  # published: 1.15 G for 2 s
    session = EmbeddingSession((tmp_path / "out.onnx").read_bytes(), "out", provider="cpu", threads=1)
    voices, _ = speech_from(speech / "dev")
    for voice in voices:
        x = np.resize(voice, 48_000).astype(np.float32)
        with torch.inference_mode():
            vector = network(torch.from_numpy(options.features(x)[None])).numpy()[0]
        expected = vector / np.linalg.norm(vector)
        got = session.run(x[None])[0]
        assert np.abs(got - expected).max() < 1e-4
        assert got @ expected > 0.99999
