"""What the model tests share: the published network's reference, beside this file."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parent))  # importlib mode leaves a test's own folder out

from models_published import Published


@pytest.fixture(scope="session")
def published() -> Published:
    """A network of half the published widths, for tests that are not about sizes."""
    return Published(filters=(8, 16, 32, 64), n_out=64)


@pytest.fixture
def state(published: Published) -> dict[str, Tensor]:
    """Its tensors, free to be spoiled."""
    return {name: tensor.clone() for name, tensor in published.state_dict().items()}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """`saved(content)`: a checkpoint file holding it."""

    def save(content: Any, **options: Any) -> Path:
        path = tmp_path / "checkpoint.model"
        torch.save(content, path, **options)
        return path

    return save
