"""RawNet3 hears the waveform; voxceleb_trainer's files load as the network that wrote them."""

import re
from typing import Any

import pytest
import torch
from models_published import enlivened, network_from, waveforms
from models_rawnet3 import ParamSincFB, RawNet3
from torch import Tensor
from torch.nn import functional as F

from sayso.models.checkpoint import read_foreign
from sayso.models.cost import count_macs, count_parameters
from sayso.models.describe import describe
from sayso.models.errors import CheckpointError
from sayso.models.frontend import FrontEndOptions, front_end_of
from sayso.models.network import SpeakerNetwork
from sayso.models.rawnet3 import RawNet3 as OurRawNet3
from sayso.models.rawnet3 import RawNet3Options, SincFilters

FORMS: list[Any] = [
    lambda s: s,
    lambda s: {"model": s},
    lambda s: {f"__S__.{k}": v for k, v in s.items()} | {"__L__.weight": torch.ones(9, 24)},
    lambda s: {"model_state_dict": {f"module.__S__.{k}": v for k, v in s.items()}, "epoch": 3},
    lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
]


@pytest.fixture(scope="module")
def original() -> RawNet3:
    return enlivened(RawNet3())


def assert_same_function(network: SpeakerNetwork, reference: RawNet3) -> None:
    for seconds in (0.63, 1.5):
        audio = waveforms(seconds, batch=3)
        with torch.inference_mode():
            given, expected = network(audio), F.normalize(reference(audio), dim=1)
        assert (expected[0] @ expected[1]).item() < 0.99  # voices are told apart
        torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_as_the_same_function(form: Any, original: RawNet3) -> None:
    given = read_foreign(form(original.saved()))
    assert given.source == "clovaai/voxceleb_trainer"
    assert_same_function(given.network(), original)


@pytest.mark.parametrize("sizes", [("ASP", 7, 64, 32), ("ECA", 16, 128, 40)])
def test_sizes_are_read_off_the_tensors(sizes: tuple[str, int, int, int]) -> None:
    reference = enlivened(RawNet3(*sizes))
    network = network_from(reference.saved())
    assert_same_function(network, reference)
    options = network.config.options
    assert tuple(options[n] for n in ("pooling", "embedding_dim", "channels", "aggregated")) == sizes


def test_published_sizes() -> None:
    """16.28 M parameters; the two norms that never run are not counted."""
    published = RawNet3("ECA", 256, 1024, 1536)
    ours = sum(p.numel() for p in OurRawNet3(RawNet3Options()).parameters())
    idle = sum(p.numel() for m in (published.bn1, published.bn6) for p in m.parameters())
    narrower = (128 - 16) * (3 * 1536 + 1 + 2 + 1536)  # the reference's attention has 16 channels, not 128
    assert ours == sum(p.numel() for p in published.parameters()) - idle + narrower


def test_filters_are_those_of_asteroid_to_the_last_bit() -> None:
    ours, theirs = SincFilters(64), ParamSincFB(64)
    torch.testing.assert_close(ours.weight, theirs.filters(), atol=1e-4, rtol=0)
    given = theirs.state_dict()
    names = {"low_hz": "low_hz_", "band_hz": "band_hz_", "window": "window_", "time": "n_"}
    ours.load_state_dict({name: given[published] for name, published in names.items()})
    assert torch.equal(ours.weight, theirs.filters())
    installed = pytest.importorskip("asteroid_filterbanks", reason="asteroid-filterbanks is not installed")
    bank = installed.ParamSincFB(64, 251, stride=10)
    bank.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.weight, bank.filters())


@pytest.mark.parametrize(
    ("tensor", "spoilt", "named"),
    [
        ("preprocess.0.flipped_filter", None, "missing preprocess.0.flipped_filter"),
        ("preprocess.0.flipped_filter", torch.ones(1, 1, 3), "flipped_filter is not a pre-emphasis"),
        ("preprocess.1.bias", None, "missing preprocess.1.bias"),
        ("conv1.filterbank.band_hz_", None, "missing conv1.filterbank.band_hz_"),
        ("conv1.filterbank.n_", torch.ones(1, 64), "conv1.filterbank.n_ has shape (1, 64), expected"),
        ("layer2.afms.alpha", None, "missing layer2.afms.alpha"),
        ("layer1.residual.0.weight", None, "missing layer1.residual.0.weight"),
        ("bn1.running_mean", None, "missing bn1.running_mean"),
        ("bn6.weight", torch.ones(5), "bn6.weight has shape (5,), expected (24,)"),
        ("attention.3.weight", None, "missing attention.3.weight"),
        ("layer3.conv3.weight", torch.ones(60, 60, 1), "takes a multiple of 8 channels, not 60"),
        ("layer4.0.weight", torch.ones(1), "unexpected layer4.0.weight"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tensor: str, spoilt: Tensor | None, named: str) -> None:
    state = RawNet3().saved()
    state.pop(tensor, None)
    with pytest.raises(CheckpointError, match=re.escape(named)):
        network_from(state | ({tensor: spoilt} if spoilt is not None else {}))


def test_front_end_flags_are_refused(original: RawNet3) -> None:
    with pytest.raises(CheckpointError, match="leave the front-end flags out"):
        read_foreign(original.saved(), sample_scale=32768.0)


def test_a_pooling_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown pooling 'SAP': use ECA or ASP"):
        OurRawNet3(RawNet3Options(pooling="SAP"))


def test_what_is_cached_for_training_is_the_waveform_again() -> None:
    front_end = front_end_of(FrontEndOptions(n_mels=0, kind="waveform", pre_emphasis=0.97))
    audio = waveforms(0.5)[:, :7_999]
    cached = front_end.unnormalised(audio)
    assert cached.shape == (2, 160, 49)
    assert torch.equal(front_end.normalise(cached), front_end(audio)[:, :, : 49 * 160])
    assert front_end(audio).shape == (2, 1, 7_999)


def test_the_shortest_waveform_and_silence_are_finite(original: RawNet3) -> None:
    network = network_from(original.saved())
    assert network.min_samples == 541
    for audio in (waveforms(1.0)[:, :541], torch.zeros(1, 16_000)):
        assert torch.isfinite(network(audio)).all()


def test_autocast_leaves_the_filters_alone(original: RawNet3) -> None:
    network, audio = network_from(original.saved()), waveforms(1.0)
    heard: list[Tensor] = []
    network.trunk.layer1.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0]))
    network(audio)
    with torch.autocast("cpu", torch.bfloat16):
        network(audio)
    assert torch.equal(*heard)


def test_costs_and_levels_count_the_filters(original: RawNet3) -> None:
    network = network_from(original.saved())
    levels = describe(network)
    assert [level.sees for level in levels] == [("stem",), ("level 1",), ("level 1", "level 2")]
    assert [level.frames for level in levels] == [955, 318, 318]
    rest = count_macs(network) - sum(level.macs for level in levels)
    frames = (48_000 - 251) // 10 + 1
    pooled = 318 * (192 * 48 + 3 * 48 * 16 + 16 * 48) + 96 * 24
    assert rest == frames * 16 * 251 + pooled
    assert count_parameters(network) > sum(level.parameters for level in levels)
