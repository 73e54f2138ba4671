"""voxceleb_trainer's files load in every form they have had, as the same function, or name what is wrong."""

import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models_published import Published, network_from, waveforms
from torch import Tensor, nn

from sayso.models.checkpoint import load_checkpoint
from sayso.models.errors import CheckpointError

State = dict[str, Tensor]
Saved = Callable[..., Path]


def assert_same_function(network: nn.Module, reference: Published, scale: float = 1.0) -> None:
    audio = waveforms()
    with torch.inference_mode():
        given = network(audio)
    torch.testing.assert_close(given, reference.directions(audio * scale), atol=1e-5, rtol=0)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def trained(state: State) -> State:
    """Put a loss beside the network, as the trainer's wrapper does."""
    loss = {
        "__L__.W": torch.randn(64, 9),
        "__L__.fc.weight": torch.randn(9, 64),
        "__L__.w": torch.tensor(10.0),
    }
    return prefixed(state, "__S__.") | loss


FORMS: dict[str, Callable[[State], Any]] = {
    "bare": lambda s: s,
    "ordered": OrderedDict,
    "loss beside it": trained,
    "model": lambda s: {"model": s},
    "model with a loss": lambda s: {"model": trained(s), "epoch": 3},
    "since 2026-04": lambda s: {
        "model_state_dict": trained(s),
        "optimizer_state_dict": {"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 1e-3}]},
        "scheduler_state_dict": {"last_epoch": 7, "_last_lr": [1e-3]},
        "epoch": 7,
    },
    "state_dict": lambda s: {"state_dict": s},
    "module.": lambda s: prefixed(s, "module."),
    "module.__S__.": lambda s: prefixed(trained(s), "module."),
    "__S__.module.": lambda s: prefixed(s, "__S__.module.") | {"__L__.W": torch.ones(2)},
    "before PyTorch 0.4.1": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}


def test_the_comparison_would_notice_a_wrong_front_end(state: State, published: Published) -> None:
    assert_same_function(network_from(state), published)
    with pytest.raises(AssertionError):
        assert_same_function(network_from(state, log_input=False), published)
    with pytest.raises(AssertionError):
        assert_same_function(network_from(state, sample_scale=0.03), published)
    for other in (
        {"torchfb.spectrogram.window": torch.hann_window(400)},
        {"bn1.running_var": state["bn1.running_var"] * 1.01},
        {"layer3.4.se.fc.2.bias": state["layer3.4.se.fc.2.bias"] + 0.01},
    ):
        with pytest.raises(AssertionError):
            assert_same_function(network_from(state | other), published)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_as_the_same_function(
    form: str, published: Published, state: State, saved: Saved
) -> None:
    loaded = load_checkpoint(saved(FORMS[form](state)))
    assert_same_function(loaded.network, published)
    assert loaded.source == "clovaai/voxceleb_trainer"
    assert not loaded.network.training


def test_files_of_old_pytorch_load(published: Published, state: State, saved: Saved) -> None:
    path = saved(trained(state), _use_new_zipfile_serialization=False)
    assert_same_function(load_checkpoint(path).network, published)


@pytest.mark.parametrize(
    ("encoder", "n_out", "n_mels", "filters"),
    [
        ("SAP", 512, 40, (16, 32, 64, 128)),
        ("ASP", 512, 80, (16, 32, 64, 128)),
        ("SAP", 256, 80, (16, 32, 64, 128)),
        ("ASP", 256, 40, (8, 16, 32, 64)),
        ("SAP", 192, 64, (20, 40, 80, 160)),
    ],
)
def test_sizes_are_read_off_the_tensors(
    encoder: str, n_out: int, n_mels: int, filters: tuple[int, ...]
) -> None:
    reference = Published(encoder, n_out, n_mels, filters)
    network = network_from(trained(reference.state_dict()))
    assert_same_function(network, reference)
    assert network.embedding_dim == n_out
    assert network.config.front_end.n_mels == n_mels
    assert network.config.options["pooling"] == encoder


@pytest.mark.parametrize(
    "options",
    [
        {"pre_emphasis": True},
        {"window": torch.hann_window},
        {"pre_emphasis": True, "window": torch.hann_window, "encoder": "ASP"},
        {"window": torch.blackman_window},
    ],
)
def test_older_front_ends_load(options: dict[str, Any]) -> None:
    reference = Published(filters=(8, 16, 32, 64), **options)
    network = network_from(reference.state_dict())
    assert_same_function(network, reference)
    front_end = network.config.front_end
    assert front_end.pre_emphasis == (0.97 if "pre_emphasis" in options else 0.0)
    named = {torch.hann_window: "hann", torch.blackman_window: "file"}
    assert front_end.window == named.get(options.get("window"), "hamming")


def test_the_filterbank_is_the_files_own(published: Published, state: State) -> None:
    state["torchfb.mel_scale.fb"] *= torch.rand(257, 40) + 0.5
    reference = Published(filters=(8, 16, 32, 64), n_out=64)
    reference.load_state_dict(state)
    assert_same_function(network_from(state), reference)


def test_int16_scale_and_linear_input_are_options(saved: Saved) -> None:
    reference = Published(filters=(8, 16, 32, 64))
    path = saved(reference.state_dict())
    assert_same_function(load_checkpoint(path, sample_scale=32768.0).network, reference, scale=32768.0)
    linear = Published(filters=(8, 16, 32, 64), log_input=False)
    linear.load_state_dict(reference.state_dict())
    assert_same_function(load_checkpoint(path, log_input=False).network, linear)


def test_half_precision_files_load(published: Published, state: State) -> None:
    halved = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    reference = Published(filters=(8, 16, 32, 64), n_out=64)
    reference.load_state_dict(halved)
    assert_same_function(network_from(halved), reference)


def without(*names: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if name not in names}


def with_(name: str, tensor: Tensor) -> Callable[[State], State]:
    return lambda state: state | {name: tensor}


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (without("fc.bias"), "missing fc.bias"),
        (without("fc.weight"), "missing fc.weight"),
        (without("attention"), "missing attention"),
        (without("sap_linear.bias", "bn1.running_var"), "missing bn1.running_var; missing sap_linear.bias"),
        (without("conv1.weight"), "missing conv1.weight"),
        (without("layer3.4.se.fc.2.bias"), "missing layer3.4.se.fc.2.bias"),
        (without("layer4.0.conv1.weight"), "missing layer4.0.conv1.weight"),
        (without("layer2.0.downsample.1.running_mean"), "missing layer2.0.downsample.1.running_mean"),
        (without("torchfb.mel_scale.fb"), "missing torchfb.mel_scale.fb"),
        (without("torchfb.spectrogram.window"), "missing torchfb.spectrogram.window"),
        (with_("fc.bias", torch.ones(63)), "fc.bias has shape (63,), expected (64,)"),
        (with_("conv1.weight", torch.ones(8, 1, 3, 3)), "conv1.weight has shape (8, 1, 3, 3), expected"),
        (with_("fc.weight", torch.ones(64, 65)), "fc.weight takes 65 inputs"),
        (with_("fc.weight", torch.ones(64)), "fc.weight has shape (64,)"),
        (with_("fc.weight", torch.ones(())), "fc.weight has shape ()"),
        (with_("attention", torch.ones(())), "attention has shape ()"),
        (with_("attention", torch.ones(64, 2)), "attention has shape (64, 2), expected (64, 1)"),
        (with_("layer2.0.conv1.weight", torch.ones(0, 8, 3, 3)), "layer2.0.conv1.weight has shape (0,"),
        (with_("layer1.1.bn1.weight", torch.ones(9)), "layer1.1.bn1.weight has shape (9,), expected (8,)"),
        (with_("torchfb.mel_scale.fb", torch.ones(201, 40)), "torchfb.mel_scale.fb has shape (201, 40)"),
        (with_("torchfb.mel_scale.fb", torch.ones(257, 0)), "torchfb.mel_scale.fb has shape (257, 0)"),
        (with_("torchfb.spectrogram.window", torch.ones(512)), "torchfb.spectrogram.window has shape (512,)"),
        (with_("torchfb.0.flipped_filter", torch.ones(1, 1, 3)), "torchfb.flipped_filter"),
        (with_("torchfb.0.flipped_filter", torch.ones(0)), "torchfb.flipped_filter"),
        (with_("layer5.0.conv1.weight", ONE), "unexpected layer5.0.conv1.weight"),
        (with_("layer1.3.conv1.weight", torch.ones(8, 8, 3, 3)), "missing layer1.3.bn1.weight"),
        (with_("layer1.0.downsample.0.weight", ONE), "unexpected layer1.0.downsample.0.weight"),
        (with_("layer1.4000000000.conv1.weight", ONE), "unexpected layer1.4000000000.conv1.weight"),
        (with_("layer1.x.conv1.weight", ONE), "unexpected layer1.x.conv1.weight"),
        (with_("bn9.weight", ONE), "unexpected bn9.weight"),
        (with_("module", ONE), "unexpected "),
        (with_("__S__.fc.bias", torch.ones(64)), "fc.bias twice"),
        (lambda state: state | {"fc.bias": [1.0]}, "list under 'fc.bias'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(spoil: Callable[[State], Any], named: str, state: State) -> None:
    with pytest.raises(CheckpointError, match=re.escape(named)):
        network_from(spoil(state))


def test_the_front_end_is_named_by_the_files_own_keys(state: State) -> None:
    sequential = {name.replace("torchfb.", "torchfb.1."): tensor for name, tensor in state.items()}
    assert network_from(sequential).config.front_end.pre_emphasis == 0.0
    sequential["torchfb.1.mel_scale.fb"] = torch.ones(5, 5)
    with pytest.raises(CheckpointError, match=r"torchfb\.mel_scale\.fb has shape \(5, 5\)"):
        network_from(sequential)


def test_another_network_is_refused(state: State) -> None:
    """One that pools in another way, and has a layer of its own."""
    del state["attention"], state["sap_linear.weight"], state["sap_linear.bias"]
    state["mixer.0.weight"] = torch.ones(8, 8)
    with pytest.raises(CheckpointError, match="not a ResNetSE34L checkpoint: missing attention"):
        network_from(state)


@pytest.mark.parametrize("content", [[], {}, 3, "text", None, {"model": {}}, torch.ones(3), {"epoch": 3}])
def test_what_is_no_state_dict_is_refused(content: object, saved: Saved) -> None:
    with pytest.raises(CheckpointError, match=r"state_dict|not a tensor"):
        load_checkpoint(saved(content))
