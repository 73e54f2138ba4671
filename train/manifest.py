"""What there is to train on: a CSV of recordings, or a folder laid out like VoxCeleb."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"})


class DataError(ValueError):
    """The training data cannot be used; the message says which file or row and why."""


@dataclass(frozen=True)
class Manifest:
    """Recordings with their speakers; `train` marks the rows that are trained on, the rest is dev."""

    root: Path
    sha256: str
    paths: tuple[str, ...]
    speakers: tuple[str, ...]
    train: NDArray[np.bool_]
    corpora: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, dev: tuple[str, ...] = ()) -> Manifest:
        """A CSV, or a folder `speaker/.../recording`. Raises `DataError`.

        `dev` names the recordings of the trial list: in a folder, their speakers are left out of
        training. A CSV says so itself, with `path, speaker, split` (other columns are free), split
        train or dev, and paths relative to its own folder.
        """
        return cls._scan(path, dev) if path.is_dir() else cls._parse(path)

    def drawn(self, speakers: int) -> Manifest:
        """The same recordings, trained on those of `speakers` of the speakers only. Raises `DataError`."""
        names = sorted({s for s, train in zip(self.speakers, self.train, strict=True) if train})
        if speakers > len(names):
            raise DataError(f"the recipe asks for {speakers} speakers; there are {len(names)} to train on")
        chosen = set(np.random.default_rng(0).permutation(names)[:speakers].tolist())
        kept = np.array([s in chosen for s in self.speakers])
        return replace(self, train=self.train & kept)

    @classmethod
    def _scan(cls, root: Path, dev: tuple[str, ...]) -> Manifest:
        found = (p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        paths = tuple(sorted(p.relative_to(root).as_posix() for p in found))
        speakers = tuple(p.split("/")[0] for p in paths)
        if not paths or any("/" not in p for p in paths):
            raise DataError(f"{root} must hold one folder a speaker with recordings in it")
        held_out = {p.split("/")[0] for p in dev}
        train = np.array([s not in held_out for s in speakers])
        if not train.any():
            raise DataError(f"{root} has no speaker that the trial list leaves for training")
        listing = hashlib.sha256("\n".join(paths).encode()).hexdigest()
        return cls(root, listing, paths, speakers, train, (root.name,))

    @classmethod
    def _parse(cls, path: Path) -> Manifest:
        try:
            content = path.read_bytes()
            text = content.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the manifest {path}: {error}") from error
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        missing = {"path", "speaker", "split"} - set(rows[0] if rows else ())
        if missing:
            raise DataError(f"the manifest {path} lacks the columns {', '.join(sorted(missing))}")
        for number, row in enumerate(rows, start=1):
            if not row["path"] or not row["speaker"] or row["split"] not in ("train", "dev"):
                raise DataError(f"row {number} of {path} needs a path, a speaker, and train or dev as split")
        if not any(row["split"] == "train" for row in rows):
            raise DataError(f"the manifest {path} has no row whose split is train")
        return cls(
            root=path.parent,
            sha256=hashlib.sha256(content).hexdigest(),
            paths=tuple(r["path"] for r in rows),
            speakers=tuple(r["speaker"] for r in rows),
            train=np.array([r["split"] == "train" for r in rows]),
            corpora=tuple(sorted({r.get("corpus") or "" for r in rows if r["split"] == "train"} - {""})),
        )
