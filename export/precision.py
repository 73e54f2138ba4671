"""Models in fewer bits (fp16 for CUDA, int8 for CPUs), written only where the embeddings stay close."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from sayso.export.exporter import write_model
from sayso.export.parity import ParityError, Stage, no_stage, recordings_under
from sayso.export.quantise import folded, to_int8
from sayso.runtime import windows
from sayso.runtime.audio import Samples
from sayso.runtime.card import Lowered, LowerPrecision, ModelCard, read_card, with_card
from sayso.runtime.session import EmbeddingSession

# The worst of many is one odd recording: its limit catches a broken graph. The EER judges the rest.
MIN_MEDIAN_COSINE, MIN_WORST_COSINE = 0.99, 0.90
MAX_EER_RISE = 0.002  # absolute: 0.2 points
_RECORDINGS, _FEWEST = 144, 12
_CALIBRATING = 3  # every third recording sets ranges, the others are compared


class PrecisionError(ParityError):
    """The embeddings in fewer bits differ too much, or there is too little to compare on; not written."""


@dataclass(frozen=True)
class TrialCheck:
    """A trial list's name, and the EER on it (a fraction) of a model file's content."""

    name: str
    eer: Callable[[bytes], float]


def export_lower(
    model: Path,
    output: Path,
    name: str,
    precision: LowerPrecision,
    recordings: Path | None,
    trials: TrialCheck | None = None,
    stage: Stage = no_stage,
) -> ModelCard:
    """Write `output`, the fp32 model file `model` in fewer bits, and return its card.

    Its card has no calibration or evaluation: thresholds belong to the model that they were set on. `stage`
    is called as the work goes on. Raises `ModelError` for a file that is no Sayso model and `PrecisionError`,
    writing nothing, without real speech to compare on, or where cosine or EER are beyond the limits.
    """
    content = model.read_bytes()
    card = read_card(content, model.name)
    if card.precision != "fp32":
        raise PrecisionError(f"{model.name} is {card.precision} already: start from its fp32 model")
    calibrating, held_out = _speech(recordings, precision, card.window_samples)
    stage(f"converting to {precision}", 0, None)
    lower = to_int8(content, calibrating) if precision == "int8" else to_fp16(content)
    used = f"{len(calibrating)} recordings" if precision == "int8" else None
    plain = replace(card, name=name, precision=precision, calibration=None, evaluation={})
    stage("comparing with fp32", 0, None)
    closeness = _compare(content, lower, held_out, used)
    write_model(output, lower, replace(plain, lowered=_with_eer(closeness, content, lower, plain, trials)))
    return read_card(output.read_bytes(), output.name)


def to_fp16(model: bytes) -> bytes:
    """Convert the trunk, from its first convolution to its last, to float16.

    The front-end keeps float32, whose powers and logarithms go beyond float16's range, and so do pooling with
    its variances, the embedding, and input and output.
    """
    plain = folded(model)
    nodes = list(plain.graph.node)
    first, *_, last = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
    trunk, around = nodes[first : last + 1], nodes[:first] + nodes[last + 1 :]
    half = convert_float_to_float16(_cut_out(plain, trunk, around), keep_io_types=True)
    OnnxModel(half).topological_sort()  # its casts stand last
    own = {tensor.name: f"trunk/{tensor.name}" for tensor in half.graph.initializer}
    for tensor in half.graph.initializer:
        tensor.name = own[tensor.name]
    for node in half.graph.node:
        node.input[:] = [own.get(name, name) for name in node.input]
    used = {name for node in around for name in node.input}
    kept = [tensor for tensor in plain.graph.initializer if tensor.name in used]
    del plain.graph.node[:], plain.graph.initializer[:], plain.graph.value_info[:]
    plain.graph.node.extend([*nodes[:first], *half.graph.node, *nodes[last + 1 :]])
    plain.graph.initializer.extend([*kept, *half.graph.initializer])
    content: bytes = plain.SerializeToString(deterministic=True)
    return content


def _cut_out(whole: ModelProto, inside: Sequence[NodeProto], outside: Sequence[NodeProto]) -> ModelProto:
    """Make the nodes `inside` a model of their own, whose inputs and outputs are what crosses its borders."""
    weights = {tensor.name: tensor for tensor in whole.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(whole).graph
    types = {value.name: value for value in (*inferred.value_info, *inferred.input, *inferred.output)}
    made = {name for node in inside for name in node.output}
    taken = dict.fromkeys(name for node in inside for name in node.input if name)
    asked = {name for node in outside for name in node.input}
    graph = helper.make_graph(
        inside,
        "trunk",
        [types[name] for name in taken if name not in made and name not in weights],
        [types[name] for name in dict.fromkeys(n for node in inside for n in node.output) if name in asked],
        [weights[name] for name in taken if name in weights],
    )
    return helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)


def _speech(
    recordings: Path | None, precision: str, window: int
) -> tuple[Sequence[Samples], Sequence[Samples]]:
    """Cut a window `[1, samples]` from the middle of each recording.

    The first list is to set ranges on, the second to compare on.
    """
    if recordings is None:
        raise PrecisionError(
            f"{precision} is compared with fp32, and int8 set, on real speech: give --recordings FOLDER"
        )
    speech = recordings_under(recordings, _RECORDINGS)
    if len(speech) < _FEWEST:
        raise PrecisionError(
            f"{len(speech)} recordings under {recordings}: {precision} takes {_FEWEST} or more"
        )
    cut = [windows.cut(samples, window) for samples in speech]
    middles = [np.ascontiguousarray(pieces[len(pieces) // 2][None]) for pieces in cut]
    held_out = [middle for i, middle in enumerate(middles) if i % _CALIBRATING]
    return middles[::_CALIBRATING], held_out


def _compare(full: bytes, lower: bytes, speech: Sequence[Samples], calibrated_on: str | None) -> Lowered:
    cosines = np.sum(_vectors(full, speech) * _vectors(lower, speech), axis=1)
    # A NaN compares false with every limit, so it counts as the opposite direction.
    cosines = np.nan_to_num(cosines, nan=-1.0)
    median, worst = float(np.median(cosines)), float(cosines.min())
    if median < MIN_MEDIAN_COSINE or worst < MIN_WORST_COSINE:
        raise PrecisionError(
            f"its vectors have cosine {median:.4f} to fp32's in the median (limit {MIN_MEDIAN_COSINE:g}), "
            f"{worst:.4f} at worst (limit {MIN_WORST_COSINE:g}) on {len(speech)} recordings: not written"
        )
    return Lowered(calibrated_on, f"{len(speech)} recordings", round(median, 6), round(worst, 6))


def _vectors(model: bytes, speech: Sequence[Samples]) -> NDArray[np.float32]:
    session = EmbeddingSession(model, "the model in fewer bits", provider="cpu")
    return np.concatenate([session.run(window) for window in speech])


def _with_eer(
    closeness: Lowered, full: bytes, lower: bytes, card: ModelCard, trials: TrialCheck | None
) -> Lowered:
    if trials is None:
        return closeness
    before, after = trials.eer(full), trials.eer(with_card(lower, card))
    if not after <= before + MAX_EER_RISE:
        raise PrecisionError(
            f"its EER on {trials.name} is {after:.2%}, fp32's {before:.2%} (limit: {MAX_EER_RISE:.1%} more): "
            "not written"
        )
    return replace(closeness, trials=trials.name, eer=round(after, 6), eer_fp32=round(before, 6))
