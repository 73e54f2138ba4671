"""ECAPA-TDNN has the published sizes, and files of two projects load as the networks that wrote them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models_ecapa import SpeechBrain, Tao
from models_published import enlivened, waveforms
from torch import Tensor, nn
from torch.nn import functional as F

from sayso.models.checkpoint import load_checkpoint, read_foreign
from sayso.models.ecapa import ECAPATDNN, ECAPAOptions
from sayso.models.errors import CheckpointError
from sayso.models.frontend import FrontEndOptions, front_end_of

State = dict[str, Tensor]


def as_saved(state: State) -> State:
    """Put names as TaoRuijie's trainer writes them, its loss beside the network."""
    return {f"speaker_encoder.{k}": v for k, v in state.items()} | {"speaker_loss.weight": torch.ones(9, 24)}


ORIGINALS: dict[str, tuple[type[nn.Module], Callable[[State], Any]]] = {
    "TaoRuijie/ECAPA-TDNN": (Tao, as_saved),
    "speechbrain": (SpeechBrain, lambda state: state),
}


@pytest.fixture(scope="module", params=ORIGINALS)
def original(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    return request.param, enlivened(ORIGINALS[request.param][0](32))


def assert_same_function(network: nn.Module, reference: nn.Module, seconds: float = 1.5) -> None:
    audio = waveforms(seconds, batch=3)
    with torch.inference_mode():
        given, expected = network(audio), F.normalize(reference(audio), dim=1)
    assert (expected[0] @ expected[1]).item() < 0.99  # voices are told apart, so equality says something
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("channels", "millions"), [(512, 6.2), (1024, 14.7)])
def test_parameters_are_the_published_ones(channels: int, millions: float) -> None:
    network = ECAPATDNN(ECAPAOptions(channels=channels))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("seconds", [0.1, 0.73, 2.0])
def test_a_file_loads_as_the_network_that_wrote_it(original: tuple[str, nn.Module], seconds: float) -> None:
    source, reference = original
    given = read_foreign(ORIGINALS[source][1](reference.state_dict()))
    assert given.source == source
    assert_same_function(given.network(), reference, seconds)


def test_every_wrapping_loads(original: tuple[str, nn.Module], tmp_path: Path) -> None:
    source, reference = original
    state = reference.state_dict()
    forms = [
        state,
        {f"module.{k}": v for k, v in state.items()},
        {"model": state, "epoch": 3},
        {k: v for k, v in state.items() if "num_batches" not in k},
    ]
    for form in forms:
        torch.save(form, tmp_path / "embedding_model.ckpt")
        loaded = load_checkpoint(tmp_path / "embedding_model.ckpt")
        assert_same_function(loaded.network, reference)
        assert loaded.source == source


@pytest.mark.parametrize(
    "sizes", [{"channels": 16, "squeezed": 4}, {"channels": 24, "aggregated": 40, "n_out": 7}]
)
def test_sizes_are_read_off_the_tensors(original: tuple[str, nn.Module], sizes: dict[str, int]) -> None:
    reference = enlivened(ORIGINALS[original[0]][0](**sizes))
    network = read_foreign(reference.state_dict()).network()
    assert_same_function(network, reference)
    assert network.config.options["channels"] == sizes["channels"]
    assert network.embedding_dim == sizes.get("n_out", 24)


RES2 = "blocks.2.res2net_block.blocks"
SPOILT: dict[str, list[tuple[str, Tensor | None, str]]] = {
    "TaoRuijie/ECAPA-TDNN": [
        ("layer2.se.se.3.bias", None, "missing layer2.se.se.3.bias"),
        ("attention.2.running_var", None, "missing attention.2.running_var"),
        ("fc6.weight", None, "missing fc6.weight"),
        ("torchfbank.1.mel_scale.fb", None, "missing torchfbank.mel_scale.fb"),
        ("bn6.bias", torch.ones(5), "bn6.bias has shape (5,), expected (24,)"),
        ("attention.0.weight", torch.ones(16), "attention.0.weight has shape (16,), expected 3 dimensions"),
        ("layer1.convs.9.weight", torch.ones(1), "unexpected layer1.convs.9.weight"),
        ("layer1.convs.0.weight", torch.ones(5, 5, 3), "32 channels do not divide into 6 groups"),
        ("layer1.convs.0.weight", torch.ones(64, 64, 3), "32 channels do not divide into 0 groups"),
        ("torchfbank.2.more", torch.ones(1), "unexpected torchfbank.2.more"),
        ("layer5.conv1.weight", torch.ones(1), "unexpected layer5.conv1.weight"),
    ],
    "speechbrain": [
        ("blocks.2.se_block.conv2.conv.bias", None, "missing blocks.2.se_block.conv2.conv.bias"),
        (f"{RES2}.4.norm.norm.bias", None, f"missing {RES2}.4.norm.norm.bias"),
        ("asp.tdnn.conv.conv.bias", None, "missing asp.tdnn.conv.conv.bias"),
        ("mfa.norm.norm.weight", None, "missing mfa.norm.norm.weight"),
        ("blocks.0.conv.conv.weight", None, "missing blocks.0.conv.conv.weight"),
        ("fc.conv.bias", torch.ones(5), "fc.conv.bias has shape (5,), expected (24,)"),
        ("blocks.3.shortcut.conv.weight", torch.ones(1), "unexpected blocks.3.shortcut.conv.weight"),
        ("blocks.4.tdnn1.conv.conv.weight", torch.ones(1), "unexpected blocks.4.tdnn1.conv.conv.weight"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "name", "tensor", "named"),
    [(source, *case) for source, cases in SPOILT.items() for case in cases],
)
def test_what_does_not_fit_is_named(source: str, name: str, tensor: Tensor | None, named: str) -> None:
    state = ORIGINALS[source][0](32).state_dict()
    spoilt = {k: v for k, v in state.items() if k != name} | ({name: tensor} if tensor is not None else {})
    with pytest.raises(CheckpointError, match=re.escape(named)):
        read_foreign(spoilt).network()


def test_front_end_flags_are_refused(original: tuple[str, nn.Module]) -> None:
    for flags in ({"sample_scale": 32768.0}, {"log_input": False}):
        with pytest.raises(CheckpointError, match="leave the front-end flags out"):
            read_foreign(original[1].state_dict(), **flags)


def test_speechbrains_own_code_agrees() -> None:
    """Runs where SpeechBrain is installed (1.1.2 was tried): its class, its Fbank, its normalisation."""
    network = pytest.importorskip("speechbrain.lobes.models.ECAPA_TDNN").ECAPA_TDNN
    lobes = pytest.importorskip("speechbrain.lobes.features")
    processing = pytest.importorskip("speechbrain.processing.features")

    class Original(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = network(80, channels=[64, 64, 64, 64, 96], attention_channels=16, se_channels=8)
            self.fbank = lobes.Fbank(n_mels=80)
            self.norm = processing.InputNormalization(norm_type="sentence", std_norm=False)

        def forward(self, waveform: Tensor) -> Tensor:
            return self.trunk(self.norm(self.fbank(waveform), torch.ones(len(waveform)))).squeeze(1)

    torch.manual_seed(0)
    reference = enlivened(Original())
    assert_same_function(read_foreign(reference.trunk.state_dict()).network(), reference)


def test_silence_is_finite_in_decibels() -> None:
    features = front_end_of(FrontEndOptions(n_mels=80, kind="speechbrain-fbank"))(torch.zeros(1, 16_000))
    assert torch.isfinite(features).all()


def test_an_unknown_front_end_or_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown front-end 'mfcc'"):
        front_end_of(FrontEndOptions(kind="mfcc"))
    with pytest.raises(ValueError, match="unknown variant 'thin'"):
        ECAPATDNN(ECAPAOptions(variant="thin"))
    with pytest.raises(ValueError, match="20 channels do not divide into 8 groups"):
        ECAPATDNN(ECAPAOptions(channels=20))
