"""Every architecture exports to the same function, at durations its strides and pooling do not divide."""

from typing import Any

import numpy as np
import pytest
import torch

from sayso.export.graph import to_onnx
from sayso.models.frontend import FrontEndOptions
from sayso.models.nested import VARIANTS
from sayso.models.network import ARCHITECTURES, NetworkConfig, SpeakerNetwork
from sayso.runtime.session import EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice

MELS = FrontEndOptions(n_mels=24)
SIZES = {"n_mels": 24, "embedding_dim": 16}
NESTED = SIZES | {"channels": [8, 8, 16, 16], "blocks": [1, 1, 1], "fusion": 16}
STUDY = {"strides": [[2, 2], [2, 2]]}
FAST = {
    "strides": [[2, 1], [2, 2]],
    "stem_stride": [4, 2],
    "previous": False,
    "excitation": "fusion",
    "collapse": "depthwise",
    "embedding_norm": True,
}
RESNET = SIZES | {"filters": [8] * 4, "blocks": [1] * 4}
VGGVOX = {"n_mels": 40, "embedding_dim": 16, "filters": [8] * 6}
RAWNET3 = {"embedding_dim": 16, "channels": 32, "aggregated": 24, "attention": 8}
WAVEFORM = FrontEndOptions(n_mels=0, kind="waveform", pre_emphasis=0.97)
ECAPA = SIZES | {"channels": 16, "aggregated": 24, "attention": 8, "squeezed": 4}
CASES: dict[str, tuple[str, dict[str, Any], FrontEndOptions]] = {
    "ResNetSE34L": ("ResNetSE34L", RESNET, MELS),
    "ResNetSE34V2": ("ResNetSE34V2", RESNET | {"pooling": "SAP"}, MELS),
    "VGGVox": ("VGGVox", VGGVOX, FrontEndOptions(window="hann")),
    "VGGVox without attention": ("VGGVox", VGGVOX | {"pooling": "TAP"}, FrontEndOptions(window="hann")),
    **{v: ("NestedSpeakerNet", NESTED | {"variant": v} | STUDY, MELS) for v in VARIANTS},
    "nested as shipped": ("NestedSpeakerNet", NESTED | FAST, MELS),
    "DenoisingLSTM": ("DenoisingLSTM", SIZES | {"code": 8, "cells": 8}, MELS),
    "RawNet3": ("RawNet3", RAWNET3, WAVEFORM),
    "RawNet3 with ASP": ("RawNet3", RAWNET3 | {"pooling": "ASP"}, WAVEFORM),
    "ECAPA-TDNN": ("ECAPA-TDNN", ECAPA, FrontEndOptions(n_mels=24, variance=False, pre_emphasis=0.97)),
    "SpeechBrain's ECAPA-TDNN": (
        "ECAPA-TDNN",
        ECAPA | {"variant": "speechbrain"},
        FrontEndOptions(n_mels=24, variance=False, kind="speechbrain-fbank"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_at_any_duration(case: str) -> None:
    torch.manual_seed(0)
    network = SpeakerNetwork(NetworkConfig(*CASES[case]))
    voices = np.stack([synthetic_voice(3.0, 100 + 25 * i, 0.85 + 0.07 * i, seed=i) for i in range(4)])
    with torch.no_grad():
        network.train()(torch.from_numpy(voices))
        for parameter in network.parameters():  # what starts at 0 or 1 would be folded away
            parameter.add_(0.01 * torch.randn_like(parameter))
    graph = to_onnx(network.eval(), min_samples=network.min_samples)
    session = EmbeddingSession(graph, "tiny", provider="cpu", threads=1)
    for samples in (network.min_samples, 12_345, 16_161, 32_801, 48_000):
        x = voices[:, :samples]
        with torch.inference_mode():
            expected = network(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(session.run(x), expected, atol=1e-4)
        np.testing.assert_allclose(session.run(x[1:2]), expected[1:2], atol=1e-4)


def test_no_architecture_is_left_out() -> None:
    assert {architecture for architecture, _, _ in CASES.values()} == set(ARCHITECTURES)
