"""A checkpoint becomes one model file with a true card, or nothing at all."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_samples import Exported

from sayso.export import exporter, parity
from sayso.export.exporter import export_checkpoint
from sayso.export.parity import ParityError
from sayso.models.checkpoint import load_checkpoint
from sayso.models.cost import count_macs, count_parameters
from sayso.models.errors import CheckpointError
from sayso.models.network import SpeakerNetwork
from sayso.runtime.card import ModelCard, read_card
from sayso.runtime.embedder import Embedder
from sayso.runtime.model_file import network_sha256
from sayso.runtime.synthesis import synthetic_voice


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer lengths and batches: a difference shows in any of them."""
    monkeypatch.setattr(parity, "SECONDS", (0.5, 1.0))
    monkeypatch.setattr(parity, "BATCH_SIZES", (1, 2))


def test_the_card_says_what_was_exported(exported: Exported) -> None:
    card, network = exported.card, exported.network
    assert card.name == "tiny"
    assert card.architecture == "ResNetSE34L"
    assert card.options == network.config.options
    assert card.embedding_dim == 32
    assert card.parameters == count_parameters(network) == sum(p.numel() for p in network.parameters())
    assert card.macs == count_macs(network, 48_000)
    assert card.window_samples == 48_000
    assert card.source.sha256 == hashlib.sha256(exported.checkpoint.read_bytes()).hexdigest()
    assert card.source.format == "sayso"
    assert card.training == load_checkpoint(exported.checkpoint).training != {}
    assert (card.calibration, card.evaluation, card.schema) == (None, {}, 2)
    front_end = asdict(card.front_end)
    assert front_end | network.config.front_end.to_dict() == front_end
    assert (front_end["sample_rate"], front_end["n_fft"]) == (16_000, 512)
    assert (front_end["win_length"], front_end["hop_length"]) == (400, 160)
    assert (front_end["window"], front_end["pre_emphasis"]) == ("hann", 0.97)


def test_the_card_tells_the_parity_it_was_let_through_with(exported: Exported) -> None:
    told = exported.card.parity
    assert 0.0 < told.max_abs_difference < 1e-4
    assert 0.99999 < told.min_cosine <= 1.0
    assert (told.seconds[0], told.seconds[-1]) == (0.5, 20.0)
    assert set(told.batch_sizes) >= {1, 8}
    assert told.recordings == "2 synthetic voices and noise"


def test_the_file_carries_the_card(exported: Exported) -> None:
    assert read_card(exported.content, "tiny.onnx") == exported.card
    assert list(exported.path.parent.iterdir()) == [exported.path]


def test_the_file_is_one_whole_onnx_model_without_traces(exported: Exported) -> None:
    model = onnx.load_from_string(exported.content)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.key for entry in model.metadata_props] == ["sayso.card"]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    dims = {v.name: v.type.tensor_type.shape.dim for v in (*model.graph.input, *model.graph.output)}
    assert [dim.dim_param != "" for dim in dims["waveform"]] == [True, True]
    assert (dims["embedding"][0].dim_param != "", dims["embedding"][1].dim_value) == (True, 32)
    for trace in (b"site-packages", b"models/frontend.py", os.getcwd().encode(), str(Path.home()).encode()):
        assert trace not in exported.content


@pytest.mark.usefixtures("briefly")
def test_exporting_again_gives_the_same_network(exported: Exported, tmp_path: Path) -> None:
    torch.manual_seed(99)  # what is random about the machine has no say
    again = tmp_path / "other-name.onnx"
    export_checkpoint(exported.checkpoint, again, "other")
    assert network_sha256(again.read_bytes()) == network_sha256(exported.content)
    assert read_card(again.read_bytes(), "again").name == "other"


def test_the_model_embeds_as_the_network_does(exported: Exported) -> None:
    speech = synthetic_voice(7.0, 150, seed=3)
    starts = np.linspace(0, len(speech) - 48_000, 3).round().astype(int)
    windows = np.stack([speech[start : start + 48_000] for start in starts])
    with torch.inference_mode():
        mean = exported.network(torch.from_numpy(windows)).mean(dim=0).numpy()
    with Embedder(exported.path, provider="cpu", threads=1) as embedder:
        vector = embedder.embed(speech).vector
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-4)


def test_the_model_needs_no_torch(exported: Exported) -> None:
    script = """
        import json, sys
        for name in ("torch", "onnx", "onnxscript", "safetensors", "models", "export", "train"):
            sys.modules[name] = None  # importing it fails
        from pathlib import Path
        from sayso.runtime.embedder import Embedder
        from sayso.runtime.synthesis import synthetic_voice
        with Embedder(Path(sys.argv[1]), provider="cpu", threads=1) as embedder:
            print(json.dumps(embedder.embed(synthetic_voice(3.0)).vector.tolist()))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(exported.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    with torch.inference_mode():
        expected = exported.network(torch.from_numpy(synthetic_voice(3.0))[None])[0]
    np.testing.assert_allclose(json.loads(done.stdout), expected.numpy(), atol=1e-4)


@pytest.mark.usefixtures("briefly")
def test_a_published_checkpoint_is_exported_with_its_flags(exported: Exported, tmp_path: Path) -> None:
    renamed = {"pooling.linear.weight": "sap_linear.weight", "pooling.linear.bias": "sap_linear.bias"}
    renamed["pooling.attention"] = "attention"
    state = {renamed.get(k, k): v for k, v in exported.network.trunk.state_dict().items()}
    front_end = exported.network.front_end
    state |= {
        "torchfb.1.spectrogram.window": front_end.window,
        "torchfb.1.mel_scale.fb": front_end.filterbank,
    }
    state |= {"torchfb.0.flipped_filter": torch.tensor([[[-0.97, 1.0]]])}
    torch.save({"model": {f"__S__.{k}": v for k, v in state.items()}}, tmp_path / "published.model")
    path = tmp_path / "published.onnx"
    card = export_checkpoint(tmp_path / "published.model", path, "old", sample_scale=32768.0, log_input=False)
    assert card == read_card(path.read_bytes(), "published.onnx")
    assert card.source.format == "clovaai/voxceleb_trainer"
    assert (card.front_end.sample_scale, card.front_end.log_input) == (32768.0, False)
    assert (card.front_end.window, card.front_end.pre_emphasis) == ("hann", 0.97)
    assert (card.options["pooling"], card.embedding_dim, card.training) == ("ASP", 32, {})
    assert card.parameters == exported.card.parameters


def nudged(model: bytes, by: float) -> bytes:
    """The graph with its last bias moved."""
    proto = onnx.load_from_string(model)
    bias = next(t for t in proto.graph.initializer if t.name.endswith("fc.bias") and "trunk.fc" in t.name)
    values = onnx.numpy_helper.to_array(bias) + np.float32(by)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    return proto.SerializeToString()


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("by", [0.01, -0.01, np.nan])
def test_a_graph_that_differs_is_not_written(
    by: float, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "to_onnx", lambda network, min_samples: nudged(exported.content, by))
    with pytest.raises(ParityError, match=r"differs from .* \(limit 0.0001\).*not written"):
        export_checkpoint(exported.checkpoint, tmp_path / "bad.onnx", "bad")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("briefly")
def test_a_network_that_moved_since_is_not_written(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def then_moved(network: SpeakerNetwork, min_samples: int) -> bytes:
        with torch.no_grad():
            network.trunk.conv1.weight.mul_(-1)
        return exported.content

    monkeypatch.setattr(exporter, "to_onnx", then_moved)
    kept = tmp_path / "tiny.onnx"
    kept.write_bytes(exported.content)
    with pytest.raises(ParityError):
        export_checkpoint(exported.checkpoint, kept, "bad")
    assert kept.read_bytes() == exported.content  # an earlier model stays
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.usefixtures("briefly")
def test_the_same_graph_passes_the_same_gate(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusals above are the nudge's doing."""
    monkeypatch.setattr(exporter, "to_onnx", lambda network, min_samples: nudged(exported.content, 0.0))
    card = export_checkpoint(exported.checkpoint, tmp_path / "good.onnx", "good")
    assert isinstance(card, ModelCard)
    assert [file.name for file in tmp_path.iterdir()] == ["good.onnx"]


@pytest.mark.usefixtures("briefly")
def test_a_full_disk_leaves_nothing_behind(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporter, "to_onnx", lambda network, min_samples: exported.content)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        export_checkpoint(exported.checkpoint, tmp_path / "tiny.onnx", "tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
    ],
)
def test_a_checkpoint_that_cannot_be_loaded_writes_nothing(
    spoil: Callable[[Path], object], checkpoint: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(checkpoint.read_bytes())
    spoil(copy)
    with pytest.raises(CheckpointError, match="copy"):
        export_checkpoint(copy, tmp_path / "out.onnx", "out")
    assert not (tmp_path / "out.onnx").exists()


def test_front_end_flags_are_for_published_checkpoints_only(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="leave the front-end flags out"):
        export_checkpoint(checkpoint, tmp_path / "out.onnx", "out", sample_scale=32768.0)


def test_a_folder_without_recordings_is_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="no recordings under"):
        export_checkpoint(exported.checkpoint, tmp_path / "out.onnx", "out", recordings=tmp_path)
