"""Recordings, cards and a model made of nothing: what the runtime tests feed in."""

import dataclasses
import io
from typing import Any

import numpy as np
import onnx
import soundfile as sf
from onnx import TensorProto, helper, numpy_helper

from sayso.runtime.audio import SAMPLE_RATE, Recording
from sayso.runtime.card import FrontEnd, ModelCard, Parity, Source, with_card

DIM = 8


def encode(samples: np.ndarray, rate: int = 16_000, format: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def recording(samples: np.ndarray, clipping: float = 0.0, warnings: tuple[str, ...] = ()) -> Recording:
    return Recording(samples.astype(np.float32), SAMPLE_RATE, clipping, warnings)


def card(**changes: Any) -> ModelCard:
    made = ModelCard(
        name="toy",
        architecture="filters",
        options={"filters": [1, 2], "pooling": "SAP"},
        embedding_dim=DIM,
        parameters=DIM * 400,
        macs=123_456,
        front_end=FrontEnd(16_000, 40, 512, 400, 160, "hamming", 0.0, 1.0, True),
        window_samples=48_000,
        source=Source("c" * 64, "sayso"),
        parity=Parity(3e-7, 0.9999999, (0.5, 3.0), (1, 8), "2 synthetic voices and noise"),
        training={"corpora": ["a"], "recipe": {"name": "tiny", "margin": 0.2}},
    )
    return dataclasses.replace(made, **changes)


def toy_network(inputs: str = "waveform", outputs: str = "embedding", rank: int = 2) -> bytes:
    """An ONNX model of the real one's shape: energies in 8 random filters, scaled to unit length."""
    rng = np.random.default_rng(0)
    constants = {
        "filters": rng.standard_normal((DIM, 1, 400)).astype(np.float32) / 20,
        "shift": -rng.random(DIM).astype(np.float32),
        "one": np.array([1]),
        "two": np.array([2]),
    }
    nodes = [
        helper.make_node("Unsqueeze", [inputs, "one"], ["x"]),
        helper.make_node("Conv", ["x", "filters"], ["filtered"], strides=[160]),
        helper.make_node("Mul", ["filtered", "filtered"], ["power"]),
        helper.make_node("ReduceMean", ["power", "two"], ["energy"], keepdims=0),
        helper.make_node("Add", ["energy", "shift"], ["vector"]),
        helper.make_node("LpNormalization", ["vector"], [outputs], axis=1, p=2),
    ]
    waveform = ["batch", "samples", 1][:rank]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(inputs, TensorProto.FLOAT, waveform)],
        [helper.make_tensor_value_info(outputs, TensorProto.FLOAT, ["batch", DIM])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="toy"
    )
    return model.SerializeToString()


def toy_model(**changes: Any) -> bytes:
    return with_card(toy_network(), card(**changes))
