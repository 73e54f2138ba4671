"""Turns somebody else's ONNX network of Kaldi features into a model file, its front-end put inside."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, version_converter

from sayso.export.exporter import WINDOW_SAMPLES, write_model
from sayso.export.graph import OPSET, to_onnx
from sayso.export.kaldi import PRE_EMPHASIS, KaldiFbank, KaldiOptions
from sayso.export.parity import Stage, measure, no_stage, speech_from
from sayso.models.frontend import HOP_LENGTH, N_FFT, SAMPLE_RATE, WIN_LENGTH
from sayso.runtime.audio import Samples
from sayso.runtime.card import FrontEnd, ModelCard, Source
from sayso.runtime.errors import ModelError
from sayso.runtime.session import open_session, session_options


def adopt_network(
    network: Path,
    output: Path,
    name: str,
    options: KaldiOptions,
    recordings: Path | None = None,
    stage: Stage = no_stage,
    mean_vec: NDArray[np.float32] | None = None,
) -> ModelCard:
    """Write `output`, which takes a waveform and gives the network's embedding, and return its card.

    `network` takes features `[batch, frames, mels]` or `[batch, mels, frames]`, with or without the lengths
    `[batch]` as a second input, and gives `[batch, dim]`; batch and frames are free. `mean_vec` `[dim]` is
    taken off each embedding before it is scaled to unit length, as WeSpeaker does for its figures.
    `stage` is called as the work goes on. Raises `ModelError` for a network that does not, and `ParityError`,
    writing nothing, where the graph is not kaldi-native-fbank's features followed by the network, one
    recording at a time.
    """
    stage("reading the network", 0, None)
    original = _read(network)
    given = _as_frames(original, options.n_mels)
    dim = _check(given, network.name, options.n_mels)
    if mean_vec is not None and (mean_vec.shape != (dim,) or not np.isfinite(mean_vec).all()):
        raise ModelError(
            f"the mean vector has shape {mean_vec.shape}; {network.name} gives {dim} finite values"
        )
    content = given.SerializeToString()
    session = open_session(original.SerializeToString(), network.name, "cpu", threads=0)
    turned = _shape(_inputs(original)[0])[1] == options.n_mels

    def reference(batch: Samples) -> Samples:
        features = [options.features(waveform)[None] for waveform in batch]
        vectors = np.concatenate([_run(session, feature, turned) for feature in features])
        vectors = vectors - (0.0 if mean_vec is None else mean_vec)
        unit: Samples = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    stage("writing the graph", 0, None)
    try:
        graph = join(given, options, mean_vec=mean_vec)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{network.name} cannot be joined with the front-end: {error}") from error
    voices, named = speech_from(recordings)
    card = ModelCard(
        name=name,
        architecture=network.stem,
        options={},
        embedding_dim=dim,
        parameters=_parameters(given),
        macs=count_macs(content, _inputs(given)[0].name, options.n_mels),
        front_end=front_end(options),
        window_samples=WINDOW_SAMPLES,
        source=Source(hashlib.sha256(network.read_bytes()).hexdigest(), "onnx"),
        parity=measure(reference, graph, voices, named, stage),
    )
    write_model(output, graph, card)
    return card


def _run(session: ort.InferenceSession, features: NDArray[np.float32], turned: bool) -> NDArray[np.float32]:
    """The network as it was given, on the features `[1, frames, mels]` of one recording."""
    inputs = session.get_inputs()
    feed: dict[str, Any] = {inputs[0].name: features.transpose(0, 2, 1) if turned else features}
    if len(inputs) == 2:
        kind = np.int32 if inputs[1].type == "tensor(int32)" else np.int64
        feed[inputs[1].name] = np.array([features.shape[1]], kind)
    vectors: NDArray[np.float32] = session.run(None, feed)[0]
    return vectors


def front_end(options: KaldiOptions) -> FrontEnd:
    """The facts of a front-end for a card."""
    return FrontEnd(
        sample_rate=SAMPLE_RATE,
        n_mels=options.n_mels,
        n_fft=N_FFT,
        win_length=WIN_LENGTH,
        hop_length=HOP_LENGTH,
        window=options.window,
        pre_emphasis=PRE_EMPHASIS,
        sample_scale=options.sample_scale,
        log_input=True,
        name=options.name,
    )


def _read(network: Path) -> onnx.ModelProto:
    try:
        return onnx.load(network)
    except OSError:
        raise
    except Exception as error:  # protobuf's own classes, and onnx's about weights kept beside the file
        raise ModelError(f"{network.name} is no ONNX model: {error}") from error


def _as_frames(model: onnx.ModelProto, n_mels: int) -> onnx.ModelProto:
    """The same network with features `[batch, frames, mels]` alone as its input.

    Takes off what other exporters leave outside: `[batch, mels, frames]`, and a second input of as many
    lengths as recordings (NeMo), which are whole here.
    """
    inputs = _inputs(model)
    turned = len(_shape(inputs[0])) == 3 and _shape(inputs[0])[1:] == [n_mels, None]
    lengths = inputs[1] if len(inputs) == 2 and len(_shape(inputs[1])) == 1 else None
    if not turned and lengths is None:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph, fed = changed.graph, inputs[0].name
    features = "features_by_frame"
    graph.ClearField("input")
    kept = {tensor.name for tensor in model.graph.initializer}
    graph.input.extend(value for value in model.graph.input if value.name in kept)
    graph.input.insert(
        0,
        helper.make_tensor_value_info(
            features, TensorProto.FLOAT, [_shape(inputs[0])[0] or "batch", "frames", n_mels]
        ),
    )
    perm = [0, 2, 1] if turned else [0, 1, 2]
    nodes = [helper.make_node("Transpose", [features], [fed], perm=perm)]
    if lengths is not None:
        held = (("batch_axis", 0), ("frame_axis", 1))
        graph.initializer.extend(helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in held)
        kind = lengths.type.tensor_type.elem_type
        nodes += [
            helper.make_node("Shape", [features], ["features_shape"]),
            helper.make_node("Gather", ["features_shape", "batch_axis"], ["features_batch"]),
            helper.make_node("Gather", ["features_shape", "frame_axis"], ["features_frames"]),
            helper.make_node("Expand", ["features_frames", "features_batch"], ["features_lengths"]),
            helper.make_node("Cast", ["features_lengths"], [lengths.name], to=kind),
        ]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    return changed


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller feeds: those that no weight of the file fills."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _check(model: onnx.ModelProto, name: str, n_mels: int) -> int:
    """Return the embedding's length if the network takes these features; raises `ModelError` if not."""
    inputs = _inputs(model)
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise ModelError(
            f"{name} has {len(inputs)} inputs and {len(model.graph.output)} outputs; a network to "
            "adopt takes features and gives one embedding"
        )
    shape, out = _shape(inputs[0]), _shape(model.graph.output[0])
    if len(shape) != 3 or shape[2] not in (n_mels, None):
        raise ModelError(f"{name} takes {shape}; kaldi-fbank{n_mels} gives [batch, frames, {n_mels}]")
    if shape[0] is not None or shape[1] is not None:
        raise ModelError(
            f"{name} takes {shape}, one size only: export it with dynamic axes for batch and frames"
        )
    if len(out) != 2 or out[1] is None:
        raise ModelError(f"{name} gives {out}; a network to adopt gives [batch, dim] of a known dim")
    return out[1]


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    """Sizes of each axis, None for those that are free."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def join(
    given: onnx.ModelProto,
    options: KaldiOptions,
    prefix: str = "network/",
    mean_vec: NDArray[np.float32] | None = None,
) -> bytes:
    """Join front-end, network and the division by the vector's length into one graph.

    `prefix` goes before the names of what is in the network; `mean_vec` `[dim]` is taken off its vector.
    """
    front = onnx.load_from_string(to_onnx(KaldiFbank(options), "features", min_samples=WIN_LENGTH))
    opset = max(OPSET, *(i.version for i in given.opset_import if i.domain in ("", "ai.onnx")))
    parts = [version_converter.convert_version(part, opset) for part in (front, given)]
    for part in parts:
        part.ir_version = max(part.ir_version for part in parts)
    front, network = parts
    fed, gives = _inputs(network)[0].name, network.graph.output[0].name
    whole = compose.merge_models(
        front, network, [("features", fed)], prefix2=prefix, name=given.graph.name, producer_name="sayso"
    )
    whole.ClearField("metadata_props")
    whole.graph.ClearField("value_info")  # shapes that a converter wrote down; the session infers its own
    whole.graph.ClearField("output")
    vector, embedding = f"{prefix}{gives}", "embedding"
    if mean_vec is not None:
        whole.graph.initializer.append(
            helper.make_tensor("mean_vec", TensorProto.FLOAT, mean_vec.shape, mean_vec)
        )
        whole.graph.node.append(helper.make_node("Sub", [vector, "mean_vec"], ["vector_less_mean"]))
        vector = "vector_less_mean"
    whole.graph.initializer.append(helper.make_tensor("last_axis", TensorProto.INT64, [1], [-1]))
    whole.graph.initializer.append(helper.make_tensor("least_length", TensorProto.FLOAT, [], [1e-12]))
    whole.graph.node.extend(
        [
            helper.make_node("ReduceL2", [vector, "last_axis"], ["length"], keepdims=1),
            helper.make_node("Max", ["length", "least_length"], ["divisor"]),
            helper.make_node("Div", [vector, "divisor"], [embedding]),
        ]
    )
    dim = network.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    whole.graph.output.append(helper.make_tensor_value_info(embedding, TensorProto.FLOAT, ["batch", dim]))
    onnx.checker.check_model(whole)
    content: bytes = whole.SerializeToString(deterministic=True)
    return content


def _parameters(model: onnx.ModelProto) -> int:
    """Count the float weights in the file, running statistics of unfolded norms among them."""
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    return sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type in floats)


def count_macs(model: bytes, fed: str, n_mels: int) -> int:
    """Count the multiply-accumulates for one window, by the shapes in ONNX Runtime's own profile."""
    frames = (WINDOW_SAMPLES - WIN_LENGTH) // HOP_LENGTH + 1
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads=1)
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # nothing fused away
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.run(None, {fed: np.zeros((1, frames, n_mels), np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text())
    done = [e["args"] for e in events if e.get("args", {}).get("op_name") in ("Conv", "Gemm", "MatMul")]
    return sum(_cost(event) for event in done)


def _cost(event: dict[str, Any]) -> int:
    """Count the multiply-accumulates of one run of an operator: its outputs times the terms of each."""
    (out,) = event["output_type_shape"][0].values()
    shapes = [next(iter(shape.values())) for shape in event["input_type_shape"]]
    # Weights of a matrix product that were packed beforehand are not among its inputs.
    summed = math.prod(shapes[1][1:]) if event["op_name"] == "Conv" else shapes[0][-1]
    return int(math.prod(out) * summed)
