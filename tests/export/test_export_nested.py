"""Every nested variant exports to the same function, at durations its pooling does not divide."""

import numpy as np
import pytest
import torch

from sayso.export.graph import to_onnx
from sayso.models.frontend import FrontEndOptions
from sayso.models.nested import VARIANTS
from sayso.models.network import NetworkConfig, SpeakerNetwork
from sayso.runtime.session import EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice

SIZES = {"n_mels": 24, "embedding_dim": 16, "channels": [8, 8, 16, 16], "blocks": [1, 1, 1], "fusion": 16}
STUDY = {"strides": [[2, 2], [2, 2]]}
FAST = {
    "strides": [[2, 1], [2, 2]],
    "stem_stride": [4, 2],
    "previous": False,
    "excitation": "fusion",
    "collapse": "depthwise",
    "embedding_norm": True,
}
CASES = [({"variant": variant} | STUDY) for variant in VARIANTS] + [FAST]


@pytest.mark.parametrize("options", CASES, ids=[*VARIANTS, "shipped"])
def test_equal_at_any_duration(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = SpeakerNetwork(NetworkConfig("NestedSpeakerNet", SIZES | options, FrontEndOptions(n_mels=24)))
    voices = [synthetic_voice(3.0, 100 + 25 * i, 0.85 + 0.07 * i, seed=i) for i in range(4)]
    with torch.no_grad():
        network.train()(torch.from_numpy(np.stack(voices)))
    session = EmbeddingSession(to_onnx(network.eval()), "tiny", provider="cpu", threads=1)
    for samples in (201, 5_000, 16_161, 32_801, 48_000):
        x = np.stack(voices)[:, :samples]
        with torch.inference_mode():
            expected = network(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(session.run(x), expected, atol=1e-4)
        np.testing.assert_allclose(session.run(x[1:2]), expected[1:2], atol=1e-4)
