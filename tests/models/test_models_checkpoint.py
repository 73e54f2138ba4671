"""Sayso's own format comes back whole or is refused; a file with code in it never runs any."""

import hashlib
import json
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_published import Published, network_from, waveforms
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sayso.models.checkpoint import load_checkpoint, save_checkpoint
from sayso.models.errors import CheckpointError
from sayso.models.frontend import FrontEndOptions
from sayso.models.network import NetworkConfig, SpeakerNetwork

Saved = Callable[..., Path]
OPTIONS = {
    "pooling": "ASP",
    "embedding_dim": 16,
    "n_mels": 24,
    "filters": [8, 8, 16, 16],
    "blocks": [1, 2, 1, 1],
    "reduction": 4,
}
TRAINING = {"corpora": ["a", "b"], "dev_eer_one_window": 0.12, "recipe": {"name": "tiny"}}


@pytest.fixture
def network() -> SpeakerNetwork:
    torch.manual_seed(3)
    front_end = FrontEndOptions(n_mels=24, window="hann", pre_emphasis=0.5, sample_scale=3.0)
    made = SpeakerNetwork(NetworkConfig("ResNetSE34L", OPTIONS, front_end))
    with torch.no_grad():
        made.train()(waveforms())  # BatchNorm statistics of its own
    return made.eval()


@pytest.fixture
def path(network: SpeakerNetwork, tmp_path: Path) -> Path:
    target = tmp_path / "new" / "tiny.safetensors"
    save_checkpoint(target, network, TRAINING)
    return target


def embedded(network: SpeakerNetwork) -> torch.Tensor:
    with torch.inference_mode():
        return network(waveforms())


def facts_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["sayso"])


def rewritten(path: Path, metadata: dict[str, str] | None) -> Path:
    save_file(load_file(path), path, metadata=metadata)
    return path


def test_a_network_comes_back_whole(network: SpeakerNetwork, path: Path) -> None:
    loaded = load_checkpoint(path)
    assert torch.equal(embedded(loaded.network), embedded(network))
    assert loaded.network.config == network.config
    assert loaded.training == TRAINING
    assert loaded.source == "sayso"
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not loaded.network.training
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_published_network_keeps_its_window_and_filterbank(tmp_path: Path) -> None:
    reference = Published(filters=(8, 16, 32, 64), window=torch.blackman_window, pre_emphasis=True)
    loaded = network_from(reference.state_dict())
    save_checkpoint(tmp_path / "own.safetensors", loaded, {})
    own = load_checkpoint(tmp_path / "own.safetensors").network
    assert torch.equal(embedded(own), embedded(loaded))
    torch.testing.assert_close(embedded(own), reference.directions(waveforms()), atol=1e-5, rtol=0)
    assert own.config == loaded.config


@pytest.mark.parametrize("flags", [{"sample_scale": 32768.0}, {"log_input": False}, {"log_input": True}])
def test_front_end_flags_are_refused(flags: dict[str, Any], path: Path) -> None:
    with pytest.raises(CheckpointError, match="leave the front-end flags out"):
        load_checkpoint(path, **flags)


def test_a_version_to_come_is_refused(path: Path) -> None:
    rewritten(path, {"sayso": json.dumps(facts_of(path) | {"format": 2})})
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors has format 2, this version reads 1"):
        load_checkpoint(path)


def test_other_safetensors_are_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match="no Sayso configuration"):
        load_checkpoint(rewritten(path, {"format": "pt"}))
    with pytest.raises(CheckpointError, match="no Sayso configuration"):
        load_checkpoint(rewritten(path, None))


@pytest.mark.parametrize(
    "changed",
    [
        {"architecture": "nested-not-yet"},
        {"architecture": None},
        {"options": None},
        {"options": {}},
        {"options": OPTIONS | {"filters": []}},
        {"options": OPTIONS | {"filters": "many"}},
        {"options": OPTIONS | {"filters": [8, 8, 16, -16]}},
        {"options": OPTIONS | {"reduction": 0}},
        {"options": OPTIONS | {"n_mels": 40}},
        {"options": OPTIONS | {"pooling": "MAX"}},
        {"options": OPTIONS | {"unknown": 1}},
        {"front_end": {"n_mels": 24, "window": "kaiser"}},
        {"front_end": {"sample_rate": 8000}},
        {"front_end": 3},
        {"training": None},
        {"training": "yesterday"},
    ],
)
def test_damaged_configurations_are_refused(changed: dict[str, Any], path: Path) -> None:
    rewritten(path, {"sayso": json.dumps(facts_of(path) | changed)})
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors has a configuration that cannot be used"):
        load_checkpoint(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "[" * 100_000])
def test_what_is_no_configuration_is_refused(text: str, path: Path) -> None:
    with pytest.raises(CheckpointError, match="configuration"):
        load_checkpoint(rewritten(path, {"sayso": text}))


@pytest.mark.parametrize("missing", ["options", "architecture", "front_end", "training"])
def test_missing_facts_are_named(missing: str, path: Path) -> None:
    facts = facts_of(path)
    del facts[missing]
    with pytest.raises(CheckpointError, match=missing):
        load_checkpoint(rewritten(path, {"sayso": json.dumps(facts)}))


def test_tensors_that_do_not_fit_are_named(path: Path) -> None:
    metadata, tensors = {"sayso": json.dumps(facts_of(path))}, load_file(path)
    for spoilt, named in (
        ({k: v for k, v in tensors.items() if k != "trunk.fc.bias"}, "missing trunk.fc.bias"),
        ({k: v for k, v in tensors.items() if k != "front_end.window"}, "missing front_end.window"),
        (tensors | {"trunk.more": torch.ones(1)}, "unexpected trunk.more"),
        (tensors | {"trunk.fc.bias": torch.ones(3)}, "trunk.fc.bias has shape (3,), expected (16,)"),
    ):
        save_file(spoilt, path, metadata=metadata)
        with pytest.raises(CheckpointError, match=re.escape(named)):
            load_checkpoint(path)


def test_batch_counters_may_be_missing(network: SpeakerNetwork, path: Path) -> None:
    metadata = {"sayso": json.dumps(facts_of(path))}
    tensors = {name: t for name, t in load_file(path).items() if "num_batches_tracked" not in name}
    save_file(tensors, path, metadata=metadata)
    assert torch.equal(embedded(load_checkpoint(path).network), embedded(network))


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("wrap", ["bare", "state_dict", "beside"])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_does_not_run(wrap: str, zipped: bool, tmp_path: Path, saved: Saved) -> None:
    marker = tmp_path / "ran"
    payload = Payload(marker)
    content = {"bare": payload, "state_dict": {"fc.weight": payload}, "beside": {"model": {}, "x": payload}}
    path = saved(content[wrap], _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"not a PyTorch checkpoint of plain tensors.*its state_dict alone"
    ):
        load_checkpoint(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.is_dir(), "the file was harmless, so the test proved nothing"


def test_a_plain_pickle_does_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "pickle.pt"
    path.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.is_dir()


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\0", b"PK\x03\x04", b"RIFF....WAVE", "weights".encode("utf-16")])
def test_what_is_no_checkpoint_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(name)):
        load_checkpoint(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*absent\.pt"):
        load_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_cut_and_garbled_files_are_refused(zipped: bool, saved: Saved) -> None:
    path = saved({"fc.weight": torch.ones(2, 3), "epoch": 3}, _use_new_zipfile_serialization=zipped)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        garbled = bytearray(whole[: rng.integers(len(whole) + 1)])
        for at in rng.integers(len(garbled), size=3) if garbled else ():
            garbled[at] = rng.integers(256)
        path.write_bytes(garbled)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_a_cut_own_file_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 20).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            load_checkpoint(path)


def test_a_failed_save_keeps_the_old_file(
    network: SpeakerNetwork, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, network, {"other": 1})
    assert path.read_bytes() == before


def test_options_keep_their_defaults_when_left_out(tmp_path: Path) -> None:
    config = NetworkConfig("ResNetSE34L", {"embedding_dim": 8, "n_mels": 40}, FrontEndOptions())
    network = SpeakerNetwork(config)
    save_checkpoint(tmp_path / "default.safetensors", network, {})
    loaded = load_checkpoint(tmp_path / "default.safetensors").network
    assert replace(loaded.config, options=dict(config.options)) == config
    assert loaded.trunk.options.filters == (16, 32, 64, 128)
