"""Puts a model's convolutions into 8 bits: static, QDQ, activations u8, weights s8, a scale a channel.

Before anything is rounded the network is rewritten so that it rounds well, which changes nothing in exact
arithmetic: batch norms become part of convolutions, and a channel that is loud before a convolution is made
softer there and louder in the convolution's weights (data-free equalisation, Nagel et al. 2019,
arXiv:1906.04721; shared between the two as in SmoothQuant, Xiao et al. 2023, arXiv:2211.10438).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from sayso.runtime.audio import Samples
from sayso.runtime.session import CPU, session_options

Array = NDArray[np.float32]
_KEPT = 2000  # values of each tensor that are kept from each window
_BINS = 2048
_LEVELS = 255
_LEAST = (
    0.7  # of its extremes a range keeps: tighter clipping wins in the median and loses on loud recordings
)
_QUIETEST = 1e-3  # of the loudest channel: silent channels are not blown up without end


def to_int8(model: bytes, windows: Sequence[Samples]) -> bytes:
    """`model` with all convolutions but its first in 8 bits, ranges set on `windows`, each `[1, samples]`.

    Front-end, first convolution, residual sums, squeeze-and-excitation, pooling and embedding stay float32:
    they hold few of the multiplications, and the sums lose most by rounding.
    """
    graph = _Graph(folded(model))
    graph.norms_to_convolutions()
    graph.equalise(graph.observe(windows))
    content: bytes = graph.quantised(graph.observe(windows)).SerializeToString(deterministic=True)
    return content


def folded(model: bytes) -> ModelProto:
    """The same graph after ONNX Runtime's basic rewrites: constants folded, norms part of convolutions."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads=1)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        ort.InferenceSession(model, options, providers=[CPU])
        plain = onnx.load(options.optimized_model_filepath)
    del plain.metadata_props[:]
    return plain


@dataclass
class _Seen:
    """A tensor's values over all windows: the extremes by channel, and a sample of the values."""

    low: Array
    high: Array
    values: list[Array] = field(default_factory=list)

    def range(self) -> tuple[float, float]:
        """Find where to clip so that the mean squared error of 256 levels is least; zero lies within."""
        low, high = min(float(self.low.min()), 0.0), max(float(self.high.max()), 1e-6)
        counts, edges = np.histogram(np.concatenate(self.values), _BINS, (low, high))
        middles = (edges[1:] + edges[:-1]) / 2
        best = (np.inf, low, high)
        for up in np.linspace(_LEAST, 1.0, 16) * high:
            for down in np.linspace(_LEAST, 1.0, 16) * low if low < 0 else [0.0]:
                step = (up - down) / _LEVELS
                zero = np.round(-down / step)
                level = np.clip(np.round(middles / step) + zero, 0, _LEVELS)
                error = float(np.sum(counts * ((level - zero) * step - middles) ** 2))
                best = min(best, (error, float(down), float(up)))
        return best[1:]


class _Graph:
    """A folded model, with the nodes that make and that take each of its tensors."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.takers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)

    @property
    def convolutions(self) -> list[NodeProto]:
        return [node for node in self.model.graph.node if node.op_type == "Conv"]

    def norms_to_convolutions(self) -> None:
        """Turn a norm between a ReLU and a convolution into a 1x1 depthwise convolution.

        It cannot be folded into either, since the convolution pads with zeros after it. As a convolution it
        can be in 8 bits, and equalised on both sides.
        """
        for node in [n for n in self.model.graph.node if n.op_type == "BatchNormalization"]:
            if not self._feeds_one_convolution(node.output[0]):
                continue
            scale, bias, mean, variance = (self.weights[name] for name in node.input[1:5])
            epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
            slope = scale / np.sqrt(variance + np.float32(epsilon))
            names = f"{node.output[0]}.weight", f"{node.output[0]}.bias"
            self._set(names[0], slope.reshape(-1, 1, 1, 1))
            self._set(names[1], bias - slope * mean)
            made = helper.make_node(
                "Conv",
                [node.input[0], *names],
                list(node.output[:1]),
                node.name,
                group=len(slope),
                kernel_shape=[1, 1],
            )
            node.CopyFrom(made)

    def _feeds_one_convolution(self, name: str) -> bool:
        takers = self.takers.get(name, [])
        return len(takers) == 1 and takers[0].op_type == "Conv" and takers[0].input[0] == name

    def _set(self, name: str, value: NDArray[np.floating[Any]]) -> None:
        if name not in self.weights:
            self.model.graph.initializer.add(name=name)
        self.weights[name] = value.astype(np.float32)
        tensor = next(t for t in self.model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(self.weights[name], name))

    def observe(self, windows: Sequence[Samples]) -> dict[str, _Seen]:
        """Record what goes into and out of the convolutions, after the ReLU where one follows."""
        names = list(dict.fromkeys(n for c in self.convolutions for n in (c.input[0], self._result(c))))
        whole = ModelProto()
        whole.CopyFrom(self.model)
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = ort.InferenceSession(whole.SerializeToString(), session_options(threads=1), [CPU])
        rng = np.random.default_rng(0)
        seen: dict[str, _Seen] = {}
        for window in windows:
            values: list[Array] = session.run(names, {"waveform": window})
            for name, value in zip(names, values, strict=True):
                apart = (0, *range(2, value.ndim))
                low, high = value.min(axis=apart), value.max(axis=apart)
                known = seen.setdefault(name, _Seen(low, high))
                known.low, known.high = np.minimum(known.low, low), np.maximum(known.high, high)
                known.values.append(rng.choice(value.ravel(), _KEPT))
        return seen

    def _result(self, convolution: NodeProto) -> str:
        relu = self._relu_after(convolution)
        return str(relu.output[0] if relu else convolution.output[0])

    def _relu_after(self, convolution: NodeProto) -> NodeProto | None:
        takers = self.takers.get(convolution.output[0], [])
        return takers[0] if len(takers) == 1 and takers[0].op_type == "Relu" else None

    def equalise(self, seen: dict[str, _Seen]) -> None:
        """Scale the channels between two convolutions: ReLU lets a positive factor through.

        A depthwise convolution's weights have a scale for each channel already, so they take all of it;
        others take the square root.
        """
        for convolution in self.convolutions:
            between = convolution.input[0]
            maker = self._convolution_behind(between)
            if maker is None:
                continue
            held, weight = seen[between], self.weights[convolution.input[1]]
            loud = _floored(np.maximum(np.abs(held.low), np.abs(held.high)))
            alone = weight.shape[1] == 1 and weight.shape[0] == len(loud)
            if alone:
                factor, widened = loud, weight * _along(loud, 0, weight.ndim)
            else:
                factor = np.sqrt(loud / _floored(np.abs(weight).max(axis=(0, *range(2, weight.ndim)))))
                factor /= np.exp(np.mean(np.log(factor)))
                widened = weight * _along(factor, 1, weight.ndim)
            self._set(convolution.input[1], widened)
            for name, rank in zip(maker.input[1:], (weight.ndim, 1), strict=False):
                self._set(name, self.weights[name] / _along(factor, 0, rank))

    def _convolution_behind(self, name: str) -> NodeProto | None:
        """Find the convolution whose output is `name`, maybe through a ReLU, if nothing else takes it."""
        if not self._feeds_one_convolution(name):
            return None
        maker = self.makers.get(name)
        if maker is not None and maker.op_type == "Relu" and len(self.takers[maker.input[0]]) == 1:
            maker = self.makers.get(maker.input[0])
        if maker is None or maker.op_type != "Conv":
            return None
        channels = len(self.weights[maker.input[1]])
        taken = self.weights[self.takers[name][0].input[1]].shape
        in_groups_of_several = taken[1] != channels and taken[:2] != (channels, 1)
        return None if in_groups_of_several else maker

    def quantised(self, seen: dict[str, _Seen]) -> ModelProto:
        chosen = self.convolutions[1:]
        relus = [relu for relu in map(self._relu_after, chosen) if relu is not None]
        ranges: dict[str, Any] = {}
        for name, held in seen.items():
            low, high = held.range()
            ranges[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
        for relu in relus:  # the quantiser asks for it, and then lets the ReLU's own clipping do
            ranges[relu.input[0]] = ranges[relu.output[0]]
        quantiser = QDQQuantizer(
            self.model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
            nodes_to_quantize=[node.name for node in (*chosen, *relus)],
            nodes_to_exclude=[],
            op_types_to_quantize=["Conv", "Relu"],
            extra_options={},
        )
        quantiser.quantize_model()
        made: ModelProto = quantiser.model.model
        return made


def _floored(values: Array) -> Array:
    floored: Array = np.maximum(values, max(float(values.max()) * _QUIETEST, 1e-12))
    return floored


def _along(values: Array, axis: int, rank: int) -> Array:
    """`values` shaped to multiply along one axis of an array of `rank`."""
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])
