"""A speaker network as one ONNX graph, front-end included, both axes dynamic."""

from __future__ import annotations

import copy
import logging
import warnings

import torch
from torch import nn
from torch.export import Dim

from sayso.export.lstm import OnnxLSTM
from sayso.models.rawnet3 import SincFilters

OPSET = 18


def to_onnx(network: nn.Module, output: str = "embedding", *, min_samples: int) -> bytes:
    """`network` of `waveform [batch, samples]` float32; ours give unit-length `embedding [batch, dim]`.

    `min_samples` is the fewest that the network takes.
    """
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        if isinstance(module, SincFilters):
            module.fix()
        for name, child in module.named_children():
            if isinstance(child, nn.LSTM):
                setattr(module, name, OnnxLSTM(child, OPSET))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    batch, samples = Dim("batch", min=1), Dim("samples", min=min_samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations, not ours to mend
        program = torch.onnx.export(
            network,
            (torch.randn(2, 48_000) * 0.1,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["waveform"],
            output_names=[output],
            dynamic_shapes={"waveform": {0: batch, 1: samples}},
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    model.producer_name = "sayso"
    for node in model.graph.node:
        node.ClearField("metadata_props")  # stack traces of the machine that exported
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.initializer):
        value.ClearField("metadata_props")
    content: bytes = model.SerializeToString(deterministic=True)
    return content
