"""What is told of a network is what was built and what ran."""

import pytest
import torch

from sayso.models.cost import count_macs, count_parameters
from sayso.models.describe import describe
from sayso.models.frontend import FrontEndOptions
from sayso.models.network import NetworkConfig, SpeakerNetwork


def network(architecture: str, n_mels: int, **options: object) -> SpeakerNetwork:
    whole = {"pooling": "SAP", "embedding_dim": 32, "n_mels": n_mels} | options
    return SpeakerNetwork(NetworkConfig(architecture, whole, FrontEndOptions(n_mels=n_mels)))


def test_the_baselines_levels_see_the_one_before() -> None:
    built = network("ResNetSE34L", 40)
    levels = describe(built)
    assert [level.name for level in levels] == ["level 1", "level 2", "level 3", "level 4"]
    assert [level.sees for level in levels] == [("stem",), ("level 1",), ("level 2",), ("level 3",)]
    sizes = [(level.channels, level.frequencies, level.frames) for level in levels]
    assert sizes == [(16, 20, 301), (32, 10, 151), (64, 5, 76), (128, 5, 76)]
    for level, module in zip(levels, built.trunk.levels, strict=True):
        assert level.parameters == sum(p.numel() for p in module.parameters())
    stem_macs = 20 * 301 * 16 * 49
    assert sum(level.macs for level in levels) + stem_macs == pytest.approx(count_macs(built), rel=0.01)


def test_a_nested_networks_levels_see_all_before() -> None:
    built = network("NestedSpeakerNet", 80, channels=[8, 8, 16, 16], blocks=[1, 1, 1], strides=[[2, 2]] * 2)
    levels = describe(built, 48_000)
    assert [(level.frequencies, level.frames) for level in levels] == [(80, 301), (40, 151), (20, 76)]
    assert [level.sees for level in levels] == [("stem",), ("level 1",), ("level 1", "level 2")]
    with_sources = sum(
        p.numel() for m in (built.trunk.levels[2], built.trunk.sources[2]) for p in m.parameters()
    )
    assert levels[2].parameters == with_sources
    assert sum(level.parameters for level in levels) < count_parameters(built)
    few = network(
        "NestedSpeakerNet",
        80,
        channels=[8, 8, 16, 16],
        blocks=[1, 1, 1],
        strides=[[2, 2]] * 2,
        previous=False,
    )
    assert describe(few)[2].sees == ("level 1", "level 2")  # the one before comes in all the same


def test_describing_leaves_nothing_behind() -> None:
    built = network("ResNetSE34L", 40)
    describe(built, 8_000)
    assert not any(module._forward_hooks for module in built.modules())
    assert not any(p.grad is not None for p in built.parameters())
    assert torch.is_grad_enabled()
