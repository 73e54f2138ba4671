"""Trial lists in VoxCeleb's format: `1 path/a.wav path/b.wav` a line, 1 for a target, 0 for a non-target."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sayso.evaluate.arrays import BoolArray, FloatArray, IntArray

SCORING_BLOCK = (
    8192  # trials scored at once: 8192 x 512 x float64 is 32 MB a side, whatever the list's length
)


class TrialListError(ValueError):
    """A trial list that cannot be used; the message names the file, the line and what to do."""


@dataclass(frozen=True)
class TrialIdentity:
    """Which trial list a number was measured on, and how large it is."""

    name: str
    sha256: str
    targets: int
    nontargets: int
    speakers: int


@dataclass(frozen=True, eq=False)
class TrialList:
    """Trials as pairs of indices into `recordings`.

    labels: bool `[trials]`, true for a target (both recordings are of one speaker).
    first, second: int `[trials]`, indices into `recordings`.
    recordings: paths as the list writes them, each once, in first-seen order.
    name, sha256: the file's name and the digest of its bytes.
    """

    labels: BoolArray
    first: IntArray
    second: IntArray
    recordings: tuple[str, ...]
    name: str
    sha256: str

    def speakers(self) -> IntArray:
        """Speaker number of each recording, int `[recordings]`, counted from 0.

        Recordings joined by target trials are one speaker, whatever their paths say. A recording that is in
        no target trial is a speaker of its own. The numbering follows the recordings' names, so neither the
        order of the lines nor the order within a pair changes it.
        """
        by_name = np.argsort(np.array(self.recordings, dtype=np.str_), kind="stable")
        rank = np.empty_like(by_name)
        rank[by_name] = np.arange(by_name.size)
        parent = list(range(by_name.size))
        pairs = zip(
            rank[self.first[self.labels]].tolist(), rank[self.second[self.labels]].tolist(), strict=True
        )
        for a, b in pairs:
            low, high = sorted((_root(parent, a), _root(parent, b)))
            parent[high] = low
        roots = np.array([_root(parent, node) for node in range(len(parent))], dtype=np.int64)
        numbers = np.unique(roots, return_inverse=True)[1]
        return numbers[rank].astype(np.int64)

    def scores(self, embeddings: npt.ArrayLike) -> FloatArray:
        """Cosine of each trial's two embeddings, float64 `[trials]`, from `embeddings` `[recordings, dim]`.

        Raises ValueError on another number of rows, and on a row that has no direction (zero or not finite).
        """
        rows = np.asarray(embeddings)
        if rows.ndim != 2 or len(rows) != len(self.recordings):
            raise ValueError(
                f"embeddings must be [{len(self.recordings)}, dim], a row per recording; got {rows.shape}"
            )
        norms = np.sqrt(np.einsum("rd,rd->r", rows, rows, dtype=np.float64))
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if bad.size:
            raise ValueError(f"the embedding of {self.recordings[bad[0]]} is zero or not finite")
        scores = np.empty(len(self.labels))
        for start in range(0, len(scores), SCORING_BLOCK):
            block = slice(start, start + SCORING_BLOCK)
            a, b = self.first[block], self.second[block]
            dots = np.einsum("td,td->t", rows[a], rows[b], dtype=np.float64)
            scores[block] = dots / (norms[a] * norms[b])
        return scores

    def identity(self) -> TrialIdentity:
        """Name, digest and counts, as calibrations and reports carry them."""
        targets = int(self.labels.sum())
        return TrialIdentity(
            name=self.name,
            sha256=self.sha256,
            targets=targets,
            nontargets=len(self.labels) - targets,
            speakers=int(self.speakers().max()) + 1,
        )


def _root(parent: list[int], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]  # path halving keeps the chains short
        node = parent[node]
    return node


def read_trials(path: str | Path) -> TrialList:
    """Read a trial list. TrialListError when it is not one, OSError when the file cannot be read."""
    path = Path(path)
    content = path.read_bytes()
    labels: list[bool] = []
    pairs: list[int] = []
    index: dict[str, int] = {}
    for label, first, second in _lines(content, path):
        labels.append(label)
        pairs += (index.setdefault(first, len(index)), index.setdefault(second, len(index)))
    if not labels:
        raise TrialListError(f"{path}: no trials; expected lines such as '1 a.wav b.wav'")
    if all(labels) or not any(labels):
        only, missing = ("targets", "non-targets (0)") if labels[0] else ("non-targets", "targets (1)")
        raise TrialListError(f"{path}: lines 1 to {len(labels)} are all {only}; add {missing} to the list")
    first_second = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return TrialList(
        labels=np.array(labels, dtype=np.bool_),
        first=np.ascontiguousarray(first_second[:, 0]),
        second=np.ascontiguousarray(first_second[:, 1]),
        recordings=tuple(index),
        name=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _lines(content: bytes, path: Path) -> Iterator[tuple[bool, str, str]]:
    """Label and two paths of each line; blank lines are passed over."""
    # Split as bytes: str.splitlines would also cut at separators that a path may hold.
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            fields = raw.decode("utf-8").split()
        except UnicodeDecodeError as error:
            raise TrialListError(
                f"{path}:{number}: not UTF-8 text; save the list as UTF-8 ({error})"
            ) from error
        if not fields:
            continue
        if len(fields) != 3:
            raise TrialListError(
                f"{path}:{number}: {len(fields)} fields; write a label and two paths without spaces, "
                "as in '1 a.wav b.wav'"
            )
        if fields[0] not in ("0", "1"):
            raise TrialListError(
                f"{path}:{number}: label {fields[0]!r}; start the line with 1 (same speaker) or 0 (different)"
            )
        yield fields[0] == "1", fields[1], fields[2]
