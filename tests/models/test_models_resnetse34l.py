"""The baseline has the published sizes and maps onto the published names."""

import pytest
import torch
from models_published import Published
from torch import nn

from sayso.models.frontend import FrontEndOptions
from sayso.models.network import NetworkConfig, SpeakerNetwork
from sayso.models.pooling import AttentivePooling
from sayso.models.resnetse34l import ResNetSE34L, ResNetSE34LOptions

RENAMED = {
    "sap_linear.weight": "pooling.linear.weight",
    "sap_linear.bias": "pooling.linear.bias",
    "attention": "pooling.attention",
}


@pytest.mark.parametrize(("pooling", "parameters"), [("SAP", 1_437_078), ("ASP", 1_502_614)])
def test_parameters_are_the_published_ones(pooling: str, parameters: int) -> None:
    network, reference = ResNetSE34L(ResNetSE34LOptions(pooling)), Published(pooling)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(p.numel() for p in reference.parameters()) == parameters
    expected = {RENAMED.get(name, name): p.shape for name, p in reference.named_parameters()}
    assert {name: p.shape for name, p in network.named_parameters()} == expected


@pytest.mark.parametrize("frames", [1, 2, 9, 301])
def test_any_number_of_frames_gives_one_vector(frames: int) -> None:
    network = ResNetSE34L(ResNetSE34LOptions(embedding_dim=24, filters=(8, 8, 8, 8), blocks=(1, 1, 1, 1)))
    assert network.eval()(torch.randn(3, 40, frames)).shape == (3, 24)


def test_a_vector_does_not_depend_on_its_batch() -> None:
    network = ResNetSE34L(ResNetSE34LOptions("ASP", filters=(8, 8, 8, 8), blocks=(1, 1, 1, 1))).eval()
    features = torch.randn(4, 40, 50)
    torch.testing.assert_close(network(features)[2:3], network(features[2:3]), atol=1e-5, rtol=0)


def test_pooling_weighs_frames_and_asp_adds_their_spread() -> None:
    torch.manual_seed(0)
    sap, asp = AttentivePooling("SAP", 6), AttentivePooling("ASP", 6)
    asp.load_state_dict(sap.state_dict())
    x = torch.randn(2, 6, 11)
    weights = torch.softmax(torch.tanh(sap.linear(x.mT)) @ sap.attention, dim=1).mT
    mean = (weights * x).sum(dim=2)
    spread = (weights * (x - mean.unsqueeze(2)) ** 2).sum(dim=2).sqrt()
    torch.testing.assert_close(sap(x), mean)
    torch.testing.assert_close(asp(x), torch.cat([mean, spread], dim=1), atol=1e-4, rtol=1e-4)
    assert (sap.out_channels, asp.out_channels) == (6, 12)


def test_a_constant_signal_has_a_finite_spread_and_gradient() -> None:
    pooling = AttentivePooling("ASP", 4)
    x = torch.full((1, 4, 8), 3.0, requires_grad=True)
    pooling(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert torch.allclose(pooling(x)[:, 4:], torch.tensor(1e-5).sqrt())


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown pooling 'mean'"):
        AttentivePooling("mean", 4)


def test_norms_that_help_training_fold_into_the_published_network() -> None:
    torch.manual_seed(0)
    options = {
        "pooling": "ASP",
        "embedding_dim": 24,
        "n_mels": 40,
        "filters": [8, 8, 8, 8],
        "blocks": [1] * 4,
    }
    config = NetworkConfig("ResNetSE34L", {**options, "embedding_norm": True}, FrontEndOptions(n_mels=40))
    trained = SpeakerNetwork(config)
    norms = [trained.trunk.pooled_norm, trained.trunk.fc_norm]
    for norm in norms:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    for _ in range(3):
        trained(torch.randn(4, 16_000))  # so that the norms have seen something
    plain = trained.eval().folded()
    assert plain.config.options == options
    assert not any(isinstance(m, nn.BatchNorm1d) for m in plain.modules())
    waveform = torch.randn(3, 16_000)
    torch.testing.assert_close(plain(waveform), trained(waveform), atol=1e-5, rtol=0)
    assert plain.folded() is plain
