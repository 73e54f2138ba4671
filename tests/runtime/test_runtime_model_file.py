"""The card's place in a model file: read and written byte by byte, as the onnx package reads it."""

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_samples import toy_network

from sayso.runtime.model_file import metadata, network_sha256, with_metadata

NETWORK = toy_network()
texts = st.text(max_size=200)


def parsed(model: bytes) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.ParseFromString(model)
    return proto


def with_onnx(**entries: str) -> bytes:
    """The same network with metadata that the onnx package wrote."""
    proto = parsed(NETWORK)
    onnx.helper.set_model_props(proto, entries)
    return proto.SerializeToString()


@given(key=texts, value=texts)
@settings(deadline=None)
def test_an_entry_is_what_the_onnx_package_reads(key: str, value: str) -> None:
    model = with_metadata(NETWORK, key, value)
    assert metadata(model) == {key: value}
    assert {entry.key: entry.value for entry in parsed(model).metadata_props} == {key: value}
    onnx.checker.check_model(model)


def test_entries_of_the_onnx_package_are_read() -> None:
    assert metadata(NETWORK) == {}
    assert metadata(with_onnx(author="someone", note="")) == {"author": "someone", "note": ""}


def test_a_large_entry_is_kept_whole() -> None:
    value = "ä" * 3_000_000
    assert metadata(with_metadata(NETWORK, "large", value))["large"] == value


def test_an_entry_is_replaced_and_the_others_are_kept() -> None:
    model = with_onnx(author="someone", card="first")
    for value in ("second", "third"):
        model = with_metadata(model, "card", value)
    props = [(entry.key, entry.value) for entry in parsed(model).metadata_props]
    assert sorted(props) == [("author", "someone"), ("card", "third")]


def test_identity_and_network_do_not_change_with_metadata() -> None:
    carded = with_metadata(with_onnx(author="someone"), "card", "text")
    assert network_sha256(carded) == network_sha256(NETWORK)
    assert parsed(carded).graph == parsed(NETWORK).graph
    assert parsed(carded).opset_import == parsed(NETWORK).opset_import


def test_identity_changes_with_the_network() -> None:
    proto = parsed(NETWORK)
    proto.graph.initializer[0].raw_data = b"\1" + proto.graph.initializer[0].raw_data[1:]
    assert network_sha256(proto.SerializeToString()) != network_sha256(NETWORK)
    proto = parsed(NETWORK)
    proto.opset_import[0].version += 1
    assert network_sha256(proto.SerializeToString()) != network_sha256(NETWORK)


def test_a_cut_off_file_is_refused() -> None:
    model = with_metadata(NETWORK, "card", "text")
    refused = 0
    for length in range(1, len(model)):
        try:
            found = metadata(model[:length])
        except ValueError:
            refused += 1
        else:
            assert found == {}, "only a whole entry may be read"
    assert refused > 0.99 * len(model)  # between two fields nothing tells the end from a cut


@given(st.binary(max_size=500))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_read_or_refused(content: bytes) -> None:
    for read in (metadata, network_sha256, lambda data: with_metadata(data, "key", "value")):
        try:
            read(content)
        except ValueError:
            continue


@given(at=st.integers(0, len(NETWORK) - 1), value=st.integers(0, 255), cut=st.integers(0, len(NETWORK)))
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_read_or_refused(at: int, value: int, cut: int) -> None:
    damaged = bytearray(with_metadata(NETWORK, "card", "text"))
    damaged[at] = value
    for content in (bytes(damaged), bytes(damaged[cut:])):
        try:
            found = metadata(content)
            carded = with_metadata(content, "key", "value")
        except ValueError:
            continue
        assert metadata(carded) == found | {"key": "value"}
        assert network_sha256(carded) == network_sha256(content)
