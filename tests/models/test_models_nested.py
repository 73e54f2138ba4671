"""NestedSpeakerNet: the study's sizes, and levels that see all earlier ones in each variant's way."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from sayso.models.frontend import FrontEndOptions
from sayso.models.nested import VARIANTS, NestedOptions, NestedSpeakerNet, study_options
from sayso.models.network import NetworkConfig, SpeakerNetwork

SMALL = NestedOptions(
    n_mels=24,
    embedding_dim=16,
    channels=(8, 8, 16, 16),
    blocks=(1, 2, 1),
    strides=((2, 2), (2, 1)),
    reduction=2,
    fusion=16,
)


def built(**changes: object) -> NestedSpeakerNet:
    torch.manual_seed(0)
    return NestedSpeakerNet(replace(SMALL, **changes)).eval()


def maps(network: NestedSpeakerNet, frames: int) -> list[tuple[int, ...]]:
    """Frequencies and frames of each level's output."""
    seen: list[tuple[int, ...]] = []
    hooks = [m.register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape[2:]))) for m in network.levels]
    with torch.inference_mode():
        network.eval()(torch.randn(1, network.options.n_mels, frames))
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("pooling", ["SAP", "ASP"])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_the_studys_networks_have_its_size(variant: str, pooling: str, levels: int) -> None:
    options = study_options(variant, pooling, levels)
    with torch.device("meta"):
        network = NestedSpeakerNet(options)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1_620_000, rel=0.02)
    assert (options.variant, options.pooling, options.embedding_dim) == (variant, pooling, 512)
    assert options.channels[0] == 32
    assert options.channels[-4:] == (64, 128, 256, 512)


def test_the_studys_feature_maps() -> None:
    wanted = [(80, 301), (40, 151), (20, 76), (10, 38)]
    assert maps(NestedSpeakerNet(study_options("full", "SAP", 4)), 301) == wanted
    with pytest.raises(ValueError, match=r"networks of \[4, 5\] levels, not 6"):
        study_options("full", "SAP", 6)


def projections(network: NestedSpeakerNet) -> list[list[tuple[int, int]]]:
    """(from width, to width) of each level's sources."""
    return [[(s.project.in_channels, s.project.out_channels) for s in level] for level in network.sources]


def test_every_level_sees_all_earlier_ones() -> None:
    everything = [[], [(8, 8)], [(8, 16), (16, 16)]]
    for variant in ("full", "gated", "per-source"):
        assert projections(built(variant=variant)) == everything
    assert projections(built(previous=False)) == [[], [], [(8, 16)]]
    deep = NestedSpeakerNet(study_options("deep", "SAP", 4))
    assert projections(deep) == [[], [(64, 64)], [(64, 128), (128, 128)], []]


@pytest.mark.parametrize("variant", ["full", "gated", "per-source"])
def test_a_levels_input_is_the_sum_of_what_it_sees(variant: str) -> None:
    """Rebuilt by hand from the levels' outputs."""
    network = built(variant=variant)
    outputs: list[torch.Tensor] = []
    inputs: list[torch.Tensor] = []

    def note(module: torch.nn.Module, taken: tuple[torch.Tensor, ...], given: torch.Tensor) -> None:
        inputs.append(taken[0])
        outputs.append(given)

    for level in network.levels:
        level.register_forward_hook(note)
    with torch.inference_mode():
        network(torch.randn(2, 24, 40))
        size = outputs[1].shape[2:]
        expected = outputs[1].clone()
        for source, earlier in zip(network.sources[2], outputs[:2], strict=True):
            if variant == "full":
                aligned = F.interpolate(earlier, size=size, mode="bilinear", align_corners=False)
                expected += 0.5 * source.project(aligned)
            else:
                aligned = F.adaptive_avg_pool2d(earlier, size)
                projected = source.project(aligned)
                if variant == "per-source":
                    projected = F.batch_norm(
                        projected, source.norm.running_mean, source.norm.running_var, source.norm.weight
                    )
                expected += torch.sigmoid(torch.tensor(VARIANTS[variant].gate)) * projected
    torch.testing.assert_close(inputs[2], expected)


def test_a_normalised_source_is_bounded_whatever_comes_in() -> None:
    """The fix: an earlier level that grows a thousandfold adds no more to a later one's sum."""

    def added(variant: str, scale: float) -> float:
        source = built(variant=variant).train().sources[2][0]
        torch.manual_seed(1)
        x, like = scale * torch.rand(4, 8, 12, 20), torch.zeros(4, 16, 12, 20)
        source.ratio = (1, 1)
        with torch.no_grad():
            return float(source(x, like).std())

    assert added("per-source", 1_000.0) == pytest.approx(added("per-source", 1.0), rel=0.01)
    assert added("full", 1_000.0) == pytest.approx(1_000.0 * added("full", 1.0), rel=0.01)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_parameter_learns(variant: str) -> None:
    network = built(variant=variant, excitation="fusion", collapse="depthwise", embedding_norm=True).train()
    network(torch.randn(8, 24, 40)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if not name.endswith("fc.bias"):  # what a BatchNorm after it takes off again
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("stem_stride", [(1, 1), (4, 2)])
@pytest.mark.parametrize("frames", [2, 37, 301])
def test_any_duration_has_an_embedding(stem_stride: tuple[int, int], frames: int) -> None:
    for variant in VARIANTS:
        network = built(variant=variant, stem_stride=stem_stride, collapse="depthwise")
        with torch.inference_mode():
            vectors = network(torch.randn(3, 24, frames))
        assert vectors.shape == (3, 16)
        assert torch.isfinite(vectors).all()


def test_options_travel_as_lists() -> None:
    options = {
        "n_mels": 24,
        "embedding_dim": 16,
        "channels": [8, 8, 16],
        "blocks": [1, 1],
        "strides": [[2, 2]],
        "stem_stride": [4, 2],
        "fusion": 16,
    }
    network = SpeakerNetwork(NetworkConfig("NestedSpeakerNet", options, FrontEndOptions(n_mels=24)))
    assert maps(network.trunk, 50) == [(6, 25), (3, 13)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"variant": "denser"}, "unknown variant 'denser': use one of full, gated"),
        ({"blocks": (1, 1)}, "3 levels need 3 blocks and 2 strides"),
        ({"strides": ((2, 2),)}, "3 levels need 3 blocks and 2 strides"),
        ({"collapse": "max"}, "unknown collapse 'max'"),
        ({"excitation": "all"}, "unknown excitation 'all'"),
        ({"pooling": "MAX"}, "unknown pooling 'MAX'"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        built(**changes)
