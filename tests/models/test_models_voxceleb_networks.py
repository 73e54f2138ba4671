"""ResNetSE34V2 and VGGVox of voxceleb_trainer load as the networks that wrote their files."""

import re
from typing import Any

import pytest
import torch
from models_published import enlivened, network_from, waveforms
from models_voxceleb import ResNetSE34V2, VGGVox
from torch import Tensor, nn
from torch.nn import functional as F

from sayso.models.checkpoint import read_foreign
from sayso.models.errors import CheckpointError
from sayso.models.resnetse34v2 import ResNetSE34V2 as OurV2
from sayso.models.resnetse34v2 import ResNetSE34V2Options
from sayso.models.vggvox import VGGVox as OurVGGVox
from sayso.models.vggvox import VGGVoxOptions

ORIGINALS: dict[str, type[nn.Module]] = {"ResNetSE34V2": ResNetSE34V2, "VGGVox": VGGVox}
FORMS: list[Any] = [
    lambda s: s,
    lambda s: {f"__S__.{k}": v for k, v in s.items()} | {"__L__.fc.weight": torch.ones(9, 24)},
    lambda s: {f"module.__S__.{k}": v for k, v in s.items()},
    lambda s: {"model": s},
    lambda s: {"model_state_dict": {f"__S__.{k}": v for k, v in s.items()}, "epoch": 3},
    lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
]


@pytest.fixture(scope="module", params=ORIGINALS)
def original(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    return request.param, enlivened(ORIGINALS[request.param]())


def assert_same_function(network: nn.Module, reference: nn.Module, scale: float = 1.0) -> None:
    for seconds in (0.63, 1.5):
        audio = waveforms(seconds, batch=3)
        with torch.inference_mode():
            given, expected = network(audio), F.normalize(reference(audio * scale), dim=1)
        assert (expected[0] @ expected[1]).item() < 0.999  # voices are told apart
        torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_as_the_same_function(form: Any, original: tuple[str, nn.Module]) -> None:
    name, reference = original
    given = read_foreign(form(reference.state_dict()))
    assert (given.source, given.config.architecture) == ("clovaai/voxceleb_trainer", name)
    assert_same_function(given.network(), reference)


@pytest.mark.parametrize(
    "reference",
    [
        lambda: ResNetSE34V2("SAP", 7, 64),
        lambda: ResNetSE34V2("ASP", 32, 24, (16, 8, 8, 16)),
        lambda: VGGVox("TAP", 7),
        lambda: VGGVox("SAP", 32, (4, 6, 8, 10, 12, 14)),
    ],
)
def test_sizes_are_read_off_the_tensors(reference: Any) -> None:
    network = enlivened(reference())
    assert_same_function(network_from(network.state_dict()), network)


def test_int16_scale_and_linear_input_are_options(original: tuple[str, nn.Module]) -> None:
    name, reference = original
    state = reference.state_dict()
    assert_same_function(network_from(state, sample_scale=32768.0), reference, scale=32768.0)
    linear = enlivened(ORIGINALS[name](log_input=False))
    assert_same_function(network_from(linear.state_dict(), log_input=False), linear)


def test_published_sizes() -> None:
    v2, vggvox = OurV2(ResNetSE34V2Options()), OurVGGVox(VGGVoxOptions())
    published = [
        ResNetSE34V2("ASP", 512, 64, (32, 64, 128, 256)),
        VGGVox("SAP", 1024, VGGVoxOptions().filters),
    ]
    for ours, theirs in zip((v2, vggvox), published, strict=True):
        assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    ("name", "tensor", "spoilt", "named"),
    [
        ("ResNetSE34V2", "conv1.bias", None, "missing conv1.bias"),
        ("ResNetSE34V2", "attention.3.weight", None, "missing attention.3.weight"),
        ("ResNetSE34V2", "attention.0.weight", None, "missing attention.0.weight"),
        ("ResNetSE34V2", "torchfb.1.mel_scale.fb", None, "missing torchfb.mel_scale.fb"),
        ("ResNetSE34V2", "torchfb.1.mel_scale.fb", torch.ones(257, 36), "multiple of 8 mels, not 36"),
        ("ResNetSE34V2", "torchfb.1.mel_scale.fb", torch.ones(257, 64), "attention.0.weight has shape"),
        ("ResNetSE34V2", "fc.weight", torch.ones(24, 17), "fc.weight takes 17 inputs"),
        ("ResNetSE34V2", "fc.weight", torch.ones(24), "fc.weight has shape (24,)"),
        ("ResNetSE34V2", "bn6.weight", torch.ones(2), "unexpected bn6.weight"),
        ("VGGVox", "netcnn.8.bias", None, "missing netcnn.8.bias"),
        ("VGGVox", "netcnn.15.running_var", None, "missing netcnn.15.running_var"),
        ("VGGVox", "netcnn.0.weight", None, "missing netcnn.0.weight"),
        ("VGGVox", "sap_linear.weight", None, "missing sap_linear.weight"),
        ("VGGVox", "attention", None, "missing attention"),
        ("VGGVox", "netcnn.18.weight", torch.ones(16, 12, 3, 1), "netcnn.18.weight has shape (16, 12, 3, 1)"),
        ("VGGVox", "netcnn.21.weight", torch.ones(2), "unexpected netcnn.21.weight"),
        ("VGGVox", "torchfb.mel_scale.fb", torch.ones(257, 64), "takes 40 mels, not 64"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(name: str, tensor: str, spoilt: Tensor | None, named: str) -> None:
    state = ORIGINALS[name]().state_dict()
    state.pop(tensor, None)
    with pytest.raises(CheckpointError, match=re.escape(named)):
        network_from(state | ({tensor: spoilt} if spoilt is not None else {}))


def test_poolings_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown pooling 'MAX': use SAP or TAP"):
        OurVGGVox(VGGVoxOptions(pooling="MAX"))
    with pytest.raises(ValueError, match="unknown pooling 'TAP'"):
        OurV2(ResNetSE34V2Options(pooling="TAP"))
