"""Whole networks: waveform in, unit length out, and what that costs."""

from typing import Any

import pytest
import torch
from models_published import waveforms

from sayso.models.cost import count_macs, count_parameters
from sayso.models.frontend import FrontEndOptions
from sayso.models.network import NetworkConfig, SpeakerNetwork


def built(n_mels: int = 40, **options: Any) -> SpeakerNetwork:
    whole = {"pooling": "SAP", "embedding_dim": 512, "n_mels": n_mels} | options
    return SpeakerNetwork(NetworkConfig("ResNetSE34L", whole, FrontEndOptions(n_mels=n_mels)))


def test_embeddings_have_unit_length() -> None:
    network = built(embedding_dim=48, filters=[8, 8, 8, 8], blocks=[1, 1, 1, 1]).eval()
    with torch.inference_mode():
        vectors = network(waveforms(0.5, batch=3))
    assert vectors.shape == (3, 48)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert network.embedding_dim == 48


def test_parameters_count_what_is_trained() -> None:
    assert count_parameters(built()) == 1_437_078
    assert count_parameters(built(pooling="ASP")) == 1_502_614


@pytest.mark.parametrize(("n_mels", "seconds", "giga"), [(40, 2, 0.45), (40, 3, 0.67), (80, 3, 1.34)])
def test_macs_are_the_published_ones(n_mels: int, seconds: int, giga: float) -> None:
    assert count_macs(built(n_mels), seconds * 16_000) / 1e9 == pytest.approx(giga, abs=0.01)


def test_macs_add_up_by_hand() -> None:
    network = built(embedding_dim=7, filters=[8, 8, 8, 8], blocks=[1, 1, 1, 1])
    frames, mels = 101, 20  # 1 s; the stem halves 40 mels
    half, quarter = (51, 10), (26, 5)
    expected = mels * frames * 8 * 49
    expected += mels * frames * 2 * 8 * 8 * 9  # layer1 keeps the size
    for rows in (half, quarter):  # layer2 and layer3 halve it, with a 1x1 shortcut
        expected += rows[0] * rows[1] * (2 * 8 * 8 * 9 + 8 * 8)
    expected += quarter[0] * quarter[1] * (2 * 8 * 8 * 9 + 8 * 8)  # layer4 keeps it, shortcut and all
    expected += 4 * 2 * 8 * 1  # squeeze and excitation
    expected += 26 * 8 * 8 + 8 * 7  # pooling over 26 frames, then the last layer
    assert count_macs(network, 16_000) == expected


def test_counting_leaves_nothing_behind() -> None:
    network = built(embedding_dim=8, filters=[8, 8, 8, 8], blocks=[1, 1, 1, 1])
    before = {name: t.clone() for name, t in network.state_dict().items()}
    count_macs(network, 16_000)
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown architecture 'x-vector': known are ResNetSE34L"):
        SpeakerNetwork(NetworkConfig("x-vector", {"n_mels": 40}, FrontEndOptions()))
    with pytest.raises(ValueError, match="same number of mels"):
        SpeakerNetwork(NetworkConfig("ResNetSE34L", {"n_mels": 80}, FrontEndOptions(n_mels=40)))
