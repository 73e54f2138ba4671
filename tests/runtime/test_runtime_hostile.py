"""A model file is data: whatever stands in it, nothing runs and no other file is read."""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from runtime_samples import card, toy_model, toy_network

from sayso.runtime.card import CARD_KEY, read_card, with_card
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import ModelError
from sayso.runtime.model_file import check_self_contained, with_metadata
from sayso.service.settings import SHIPPED_MODELS

MODEL = toy_model()
FILTERS = np.zeros((8, 1, 400), np.float32)


def changed(change: Callable[[Any], None]) -> bytes:
    """The toy model, with its card, after `change` of its parsed form."""
    proto = onnx.ModelProto()
    proto.ParseFromString(toy_network())
    change(proto)
    return with_card(proto.SerializeToString(), card())


def external(tensor: Any, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(FILTERS.nbytes))):
        tensor.external_data.add(key=key, value=value)


def in_an_initializer(location: str) -> Callable[[Any], None]:
    return lambda proto: external(proto.graph.initializer[0], location)


def in_an_attribute(proto: Any) -> None:
    constant = helper.make_node("Constant", [], ["filters"], value=numpy_helper.from_array(FILTERS))
    external(constant.attribute[0].t, "/etc/passwd")
    del proto.graph.initializer[0]
    proto.graph.node.insert(0, constant)


def in_a_branch(proto: Any) -> None:
    tensor = numpy_helper.from_array(FILTERS, "inner")
    external(tensor, "../secret")
    node = helper.make_node("Identity", ["inner"], ["out"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    branch = helper.make_graph([node], "branch", [], [out], [tensor])
    proto.graph.node.insert(
        0, helper.make_node("If", ["one"], ["x2"], then_branch=branch, else_branch=branch)
    )


def in_a_function(proto: Any) -> None:
    constant = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(FILTERS))
    external(constant.attribute[0].t, "weights.bin")
    opset = [helper.make_opsetid("", 18)]
    proto.functions.append(helper.make_function("", "Evil", [], ["y"], [constant], opset))


def half_external(proto: Any) -> None:
    """The location alone, without saying that the data are elsewhere."""
    proto.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def foreign_operator(domain: str) -> Callable[[Any], None]:
    def change(proto: Any) -> None:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
        proto.graph.node.insert(0, helper.make_node("PyOp", ["waveform"], ["z"], domain=domain, module="os"))

    return change


def unknown_operator(proto: Any) -> None:
    proto.graph.node[0].op_type = "RunPython"


def huge_tensor(proto: Any) -> None:
    tensor = proto.graph.initializer[0]
    tensor.dims[:] = [2**40, 2**20, 2**10]
    tensor.ClearField("raw_data")


def nested_graphs(proto: Any) -> None:
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph([], "leaf", [], [out])
    for _ in range(40):
        node = helper.make_node("If", ["one"], ["out"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [out])
        if graph.ByteSize() > 1_000_000:
            break
    proto.graph.node.insert(0, graph.node[0])


HOSTILE = {
    "data of another file": changed(in_an_initializer("/etc/passwd")),
    "data of a file beside it": changed(in_an_initializer("weights.bin")),
    "data of a file above it": changed(in_an_initializer("../../../etc/passwd")),
    "external data in an attribute": changed(in_an_attribute),
    "external data in a branch": changed(in_a_branch),
    "external data in a function": changed(in_a_function),
    "a location without the flag": changed(half_external),
    "an operator of its own": changed(foreign_operator("evil.example")),
    "an operator in Python": changed(foreign_operator("ai.onnx.contrib")),
    "an unknown operator": changed(unknown_operator),
    "a huge tensor": changed(huge_tensor),
    "graphs in graphs": changed(nested_graphs),
    "nothing": b"",
    "text": b"#!/bin/sh\ntouch /tmp/pwned\n",
    "a pickle": b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR.",
    "cut in half": MODEL[: len(MODEL) // 2],
    "no card": toy_network(),
    "a card that is no JSON": with_metadata(toy_network(), CARD_KEY, "{"),
    "a deep card": with_metadata(toy_network(), CARD_KEY, '{"schema":' * 100_000),
    "a card with a huge window": with_card(toy_network(), card(window_samples=10**15)),
    "a card with no window": with_card(toy_network(), card(window_samples=0)),
}


REASONS = {name: "another file" for name in HOSTILE if "data" in name or "flag" in name} | {
    "an operator of its own": "does not have",
    "an operator in Python": "does not have",
    "graphs in graphs": "too deeply",
    "a card with a huge window": "window",
}
WATCHED: list[str] = []  # what Python opens or starts once something is in it


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if WATCHED and event in ("open", "os.system", "os.exec", "subprocess.Popen", "exec", "ctypes.dlopen"):
        WATCHED.append(f"{event} {args[0]!s:.100}")


sys.addaudithook(_watch)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(FILTERS.tobytes())
    path = folder / "evil.onnx"
    path.write_bytes(HOSTILE[name])
    monkeypatch.chdir(folder)
    watched = WATCHED
    watched[:] = ["on"]
    with pytest.raises(ModelError, match=rf"evil\.onnx.*{REASONS.get(name, '')}"):
        Embedder(path, provider="cpu", threads=1)
    opened = watched[1:]
    watched.clear()
    started = [event for event in opened if not event.startswith(("open ", "import ", "exec "))]
    assert started == []
    assert {event for event in opened if "passwd" in event or "weights.bin" in event} == set()
    assert sorted(os.listdir(folder)) == ["evil.onnx", "weights.bin"]


def test_shipped_models_are_self_contained() -> None:
    for path in SHIPPED_MODELS.glob("*.onnx"):
        check_self_contained(path.read_bytes())


@given(
    cut=st.integers(0, len(MODEL)),
    changes=st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.integers(0, 255)), max_size=8),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_damage_is_refused_or_harmless(cut: int, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(MODEL)
    for at, value in changes:
        damaged[at] = value
    content = bytes(damaged if changes else damaged[:cut])
    with contextlib.suppress(ModelError):
        read_card(content, "x")
    with contextlib.suppress(ValueError):
        check_self_contained(content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=20,
    )
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_json_is_a_card_or_refused(value: Any) -> None:
    good = json.loads(card().to_json())
    for text in (
        json.dumps(value),
        json.dumps(good | {"options": value}),
        json.dumps(good | {"parity": value}),
    ):
        with contextlib.suppress(ModelError):
            read_card(with_metadata(toy_network(), CARD_KEY, text), "x")
