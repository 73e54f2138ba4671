"""The recordings to train on: CSV lists of them, or folders laid out like VoxCeleb."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sayso.domain.errors import SaysoError

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"})


class DataError(SaysoError, ValueError):
    """Training data that cannot be used; the message says which file or row, and why."""


@dataclass(frozen=True)
class Manifest:
    """Recordings with their speakers.

    root: the folder that `paths` are relative to.
    sha256: identifies the lists that were read.
    paths, speakers, corpus: one entry a recording; the corpus is empty where the list names none.
    train: bool `[recordings]`, true where the recording is trained on; the others are for development.
    corpora: the corpora that are trained on.
    folders: of each list that was read, its folder relative to `root`.
    """

    root: Path
    sha256: str
    paths: tuple[str, ...]
    speakers: tuple[str, ...]
    train: NDArray[np.bool_]
    corpora: tuple[str, ...]
    corpus: tuple[str, ...]
    folders: tuple[str, ...] = (".",)

    @classmethod
    def read(cls, files: Sequence[Path], dev: Sequence[str] = ()) -> Manifest:
        """Read one or several lists as one manifest, recordings in the order given. Raises `DataError`.

        Each of `files` is a CSV or a folder `speaker/.../recording`. A CSV has the columns `path, speaker,
        split` (others are free), split being train or dev, and its paths are relative to its folder. A folder
        says nothing about development: the speakers of `dev`, the recordings of a trial list, are kept out of
        training there.

        Paths of several lists are relative to the innermost folder that holds all of them. A speaker's name
        means the same speaker in each.
        """
        roots = [file if file.is_dir() else file.parent for file in files]
        if len(files) == 1:
            return cls._read_one(files[0], dev)
        root = Path(os.path.commonpath([folder.absolute() for folder in roots]))
        folders = [folder.absolute().relative_to(root).as_posix() for folder in roots]
        if len(set(folders)) < len(folders):
            raise DataError("two manifests lie in one folder, so their recordings could not be told apart")
        parts = [
            cls._read_one(file, [*dev, *_inside(folder, dev)])
            for file, folder in zip(files, folders, strict=True)
        ]
        return cls(
            root,
            hashlib.sha256("\n".join(part.sha256 for part in parts).encode()).hexdigest(),
            tuple(
                _joined(folder, path)
                for folder, part in zip(folders, parts, strict=True)
                for path in part.paths
            ),
            tuple(speaker for part in parts for speaker in part.speakers),
            np.concatenate([part.train for part in parts]),
            tuple(sorted({corpus for part in parts for corpus in part.corpora})),
            tuple(corpus for part in parts for corpus in part.corpus),
            tuple(folders),
        )

    def rows(self, recordings: Sequence[str]) -> NDArray[np.int64]:
        """Return the index of each of `recordings` in `paths`.

        The recordings are those of a trial list, relative to `root` or to the folder of one of the lists.
        Raises `DataError` for a recording that is in no list or, relative to its own folder, in several.
        """
        row = {path: i for i, path in enumerate(self.paths)}
        missing = [recording for recording in recordings if recording not in row]
        for recording in missing:
            matches = {row[path] for f in self.folders if (path := _joined(f, recording)) in row}
            if len(matches) > 1:
                raise DataError(
                    f"the trials' recording {recording} is in {len(matches)} manifests: write its path "
                    f"relative to {self.root}"
                )
            if matches:
                row[recording] = matches.pop()
        unlisted = [recording for recording in missing if recording not in row]
        if unlisted:
            raise DataError(
                f"the trials name {len(unlisted)} recordings that no manifest lists, such as {unlisted[0]}"
            )
        return np.array([row[recording] for recording in recordings], dtype=np.int64)

    def without(self, corpora: Sequence[str]) -> Manifest:
        """Return the same recordings, of which those of `corpora` are not trained on.

        Raises `DataError` for a corpus that is not trained on as it is, and where nothing would be left.
        """
        unknown = set(corpora) - set(self.corpora)
        if unknown:
            raise DataError(
                f"the recipe leaves out corpora that no manifest trains on: {', '.join(sorted(unknown))}"
            )
        if not corpora:
            return self
        train = self.train & np.array([corpus not in corpora for corpus in self.corpus])
        if not train.any():
            raise DataError("the recipe leaves out every corpus, so nothing is left to train on")
        return replace(self, train=train, corpora=tuple(c for c in self.corpora if c not in corpora))

    def check_speakers(self) -> None:
        """Raise `DataError` unless two speakers or more are trained on: there is nothing to tell apart."""
        names = sorted({s for s, train in zip(self.speakers, self.train, strict=True) if train})
        if len(names) < 2:
            raise DataError(
                f"only the speaker {names[0]} is left to train on: telling speakers apart takes two or more, "
                "beside those of the trial list"
            )

    @classmethod
    def _read_one(cls, path: Path, dev: Sequence[str]) -> Manifest:
        return cls._scan(path, dev) if path.is_dir() else cls._parse(path)

    def drawn(self, speakers: int) -> Manifest:
        """Return the same recordings, trained on those of so many of the speakers only.

        Which ones is drawn once and for all. Raises `DataError` where there are not as many.
        """
        names = sorted({s for s, train in zip(self.speakers, self.train, strict=True) if train})
        if speakers > len(names):
            raise DataError(f"the recipe asks for {speakers} speakers; there are {len(names)} to train on")
        chosen = set(np.random.default_rng(0).permutation(names)[:speakers].tolist())
        kept = np.array([s in chosen for s in self.speakers])
        return replace(self, train=self.train & kept)

    @classmethod
    def _scan(cls, root: Path, dev: Sequence[str]) -> Manifest:
        files = (p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        # Hidden files are no recordings: macOS leaves `._x.wav` beside x.wav on disks of others.
        paths = tuple(
            sorted(p.as_posix() for p in files if not any(part.startswith(".") for part in p.parts))
        )
        speakers = tuple(p.split("/")[0] for p in paths)
        if not paths or any("/" not in p for p in paths):
            raise DataError(f"{root} must hold one folder a speaker with recordings in it")
        held_out = {p.split("/")[0] for p in dev}
        train = np.array([s not in held_out for s in speakers])
        if not train.any():
            raise DataError(f"{root} has no speaker that the trial list leaves for training")
        listing = hashlib.sha256("\n".join(paths).encode()).hexdigest()
        return cls(root, listing, paths, speakers, train, (root.name,), (root.name,) * len(paths))

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
            corpus=tuple(r.get("corpus") or "" for r in rows),
        )


def _joined(folder: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(folder, path))


def _inside(folder: str, paths: Sequence[str]) -> list[str]:
    """Return those of `paths` that lie in `folder`, relative to it."""
    return [path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")]
