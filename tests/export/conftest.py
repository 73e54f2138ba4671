"""What the export tests share: one tiny network, exported once, and its graph."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))  # importlib mode leaves a test's own folder out

from export_samples import Exported

from sayso.export import exporter
from sayso.models.checkpoint import load_checkpoint, save_checkpoint
from sayso.models.frontend import FrontEndOptions
from sayso.models.network import NetworkConfig, SpeakerNetwork
from sayso.runtime.synthesis import synthetic_voice

TRAINING = {"corpora": ["synthetic"], "recipe": {"name": "tiny", "crops": 3}}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes = {"filters": [8, 8, 8, 8], "blocks": [1, 1, 1, 1], "reduction": 4}
    options = {"pooling": "ASP", "embedding_dim": 32, "n_mels": 40} | sizes
    front_end = FrontEndOptions(window="hann", pre_emphasis=0.97)
    network = SpeakerNetwork(NetworkConfig("ResNetSE34L", options, front_end))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    voices = [synthetic_voice(3, pitch, tract) for pitch, tract in ((110, 0.9), (160, 1.0), (210, 1.1))]
    with torch.no_grad():  # statistics of voices: else every voice gets nearly the same vector
        network.train()(torch.stack([torch.from_numpy(voice) for voice in voices]))
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, network, TRAINING)
    return path


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("models") / "tiny.onnx"
    card = exporter.export_checkpoint(checkpoint, path, "tiny")
    return Exported(checkpoint, load_checkpoint(checkpoint).network, path, card)
