"""What the runtime tests share: a toy model file and the loaded speech detector."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # importlib mode leaves a test's own folder out

from runtime_samples import toy_model

from sayso.runtime.speech import SpeechDetector


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "toy.onnx"
    path.write_bytes(toy_model())
    return path


@pytest.fixture(scope="session")
def detector() -> SpeechDetector:
    return SpeechDetector()
