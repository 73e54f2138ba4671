"""DenoisingLSTM has the size it is said to have, and its cost is counted."""

import torch

from sayso.models.cost import count_macs, count_parameters
from sayso.models.describe import describe
from sayso.models.frontend import FrontEndOptions
from sayso.models.network import NetworkConfig, SpeakerNetwork


def built(**options: int) -> SpeakerNetwork:
    whole = {"embedding_dim": 512, "n_mels": 80} | options
    return SpeakerNetwork(NetworkConfig("DenoisingLSTM", whole, FrontEndOptions(n_mels=80)))


def test_parameters_are_near_the_studys() -> None:
    assert 1.45e6 < count_parameters(built()) < 1.65e6


def test_macs_add_up_by_hand() -> None:
    frames, code, cells = 101, 8, 6
    expected = frames * (80 * code * 5 + code * code * 3)
    expected += frames * 2 * 4 * cells * (code + cells)  # two directions of four gates
    expected += frames * 2 * 4 * cells * (2 * cells + cells)
    expected += frames * (2 * cells) ** 2 + 4 * cells * 7  # pooling, then the last layer
    network = built(code=code, cells=cells, embedding_dim=7)
    assert count_macs(network, 16_000) == expected
    assert [(level.channels, level.frames) for level in describe(network, 16_000)] == [(code, frames)]


def test_frames_far_away_are_heard_in_both_directions() -> None:
    network = built(code=8, cells=6).eval()
    network.trunk.pooling = torch.nn.Identity()
    network.trunk.fc = torch.nn.Identity()
    features = torch.randn(1, 80, 40, requires_grad=True)
    for at in (0, 39):
        (gradient,) = torch.autograd.grad(network.trunk(features)[0, :, at].sum(), features)
        assert gradient[0, :, 39 - at].abs().sum() > 0
