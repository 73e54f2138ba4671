"""Parts of a model's graph, cut out to be timed by themselves."""

from __future__ import annotations

import io

import onnx
import onnxruntime as ort
from onnx.utils import Extractor

from sayso.runtime.session import CPU, session_options

_NETWORK_BEGINS = ("Conv", "FusedConv")


def front_end_session(model: bytes) -> ort.InferenceSession:
    """The log-mel front-end of a Sayso model: from its waveform to what its first convolution takes."""
    graph = onnx.load(io.BytesIO(model))
    first = next(node for node in graph.graph.node if node.op_type in _NETWORK_BEGINS)
    cut = Extractor(graph).extract_model(["waveform"], [first.input[0]])
    return ort.InferenceSession(cut.SerializeToString(), session_options(threads=1), providers=[CPU])
