"""The speech detector's graph, with its convolutions as matrix products: the same sums, three times as fast.

Silero VAD scores frames of 32 ms. Its transform and encoder are convolutions over 4 positions or fewer, one
frame at a time, which leaves a CPU little to work on; products over all frames of a recording fill it.
`python -m sayso.export.detector silero_vad_16k_sequence.onnx silero_vad.onnx` wrote the file in
`runtime/weights` from the one in the PyPI package silero-vad (sha256
9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_INPUT, _WINDOW, _HOP, _POSITIONS = 576, 256, 128, 4
_BINS = _WINDOW // 2 + 1
Weights = NDArray[np.float32]


class _Builder:
    """Collects nodes and constants; every call of it gives the name of what it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def slice(self, x: str, start: int, stop: int, axis: int, step: int = 1) -> str:
        bounds = [self.constant(np.array([n], np.int64)) for n in (start, stop, axis, step)]
        return self.node("Slice", x, *bounds)

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.constant(np.array(shape, np.int64)))

    def dense(self, x: str, weights: Weights, bias: Weights) -> str:
        """`relu(x @ weights + bias)`."""
        product = self.node("Gemm", x, self.constant(weights), self.constant(bias))
        return self.node("Relu", product)


def as_products(original: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite Silero VAD's sequence graph (16 kHz); inputs, outputs and weights stay what they are."""
    weights = {t.name: numpy_helper.to_array(t) for t in original.graph.initializer}
    lstm = next(node for node in original.graph.node if node.op_type == "LSTM")
    b = _Builder()
    # The original pads 128 samples by reflection on either side and drops the first of 5 positions: what is
    # left of that are 64 samples on the right.
    mirrored = b.slice("input", _INPUT - 2, _INPUT - 2 - _WINDOW // 4, axis=1, step=-1)
    blocks = b.reshape(b.node("Concat", "input", mirrored, axis=1), -1, _POSITIONS + 1, _HOP)
    halves = (b.slice(blocks, 0, _POSITIONS, axis=1), b.slice(blocks, 1, _POSITIONS + 1, axis=1))
    frames = b.reshape(b.node("Concat", *halves, axis=2), -1, _WINDOW)
    basis = weights["stft.forward_basis_buffer"][:, 0, :].T
    parts = [b.node("MatMul", frames, b.constant(half)) for half in (basis[:, :_BINS], basis[:, _BINS:])]
    squares = [b.node("Mul", part, part) for part in parts]
    x = b.reshape(b.node("Sqrt", b.node("Add", *squares)), -1, _POSITIONS * _BINS)
    length = _POSITIONS
    for layer, stride in enumerate((1, 2, 2, 1)):
        kernel, bias = weights[f"encoder.{layer}.weight"], weights[f"encoder.{layer}.bias"]
        matrix = _toeplitz(kernel, length, stride)
        length = -(-length // stride)
        x = b.dense(x, matrix, np.tile(bias, length))
    sequence = b.node("Unsqueeze", x, b.constant(np.array([1], np.int64)))
    gates = [b.constant(weights[name]) for name in lstm.input[1:4]]
    hidden = weights["output.weight"].shape[1]
    b.nodes.append(
        helper.make_node("LSTM", [sequence, *gates, "", "h", "c"], ["states", "hn", "cn"], hidden_size=hidden)
    )
    states = b.node("Relu", b.reshape("states", -1, hidden))
    logits = b.node("Gemm", states, *map(b.constant, (weights["output.weight"][0], weights["output.bias"])))
    b.nodes.append(helper.make_node("Sigmoid", [b.reshape(logits, -1)], ["speech_probs"]))
    graph = helper.make_graph(
        b.nodes, "silero_vad", original.graph.input, original.graph.output, initializer=b.constants
    )
    made = helper.make_model(graph, opset_imports=original.opset_import, ir_version=original.ir_version)
    onnx.checker.check_model(made, full_check=True)
    return made


def _toeplitz(kernel: Weights, length: int, stride: int) -> Weights:
    """A kernel `[out, in, 3]` over `length` positions, padded by 1, as `[length * in, positions * out]`."""
    out, inner, taps = kernel.shape
    positions = -(-length // stride)
    matrix = np.zeros((length, inner, positions, out), np.float32)
    for position in range(positions):
        for tap in range(taps):
            at = position * stride + tap - 1
            if 0 <= at < length:
                matrix[at, :, position] = kernel[:, :, tap].T
    return matrix.reshape(length * inner, positions * out)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_bytes(as_products(onnx.load(source)).SerializeToString())
