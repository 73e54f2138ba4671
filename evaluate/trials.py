"""Trials: pairs of recordings, or templates and recordings, each of one speaker or of two."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sayso.domain.calibration import TrialIdentity
from sayso.evaluate.arrays import BoolArray, FloatArray, IntArray
from sayso.evaluate.list_files import Line, TrialListError, parse_map, parse_trials

__all__ = [
    "Template",
    "TemplateTrials",
    "TrialIdentity",
    "TrialList",
    "TrialListError",
    "Trials",
    "corpora",
    "read_template_trials",
    "read_trials",
]

# Trials scored at once: 8192 x 512 x float64 is 32 MB a side, whatever the list's length.
SCORING_BLOCK = 8192
VANISHED = 1e-6  # a mean of unit vectors shorter than this has no direction


class Trials(Protocol):
    """What an evaluation needs of a list of trials, whatever is compared in it."""

    @property
    def labels(self) -> BoolArray:
        """bool `[trials]`, true for a target: both sides are of one speaker."""

    @property
    def recordings(self) -> tuple[str, ...]:
        """The paths as the list writes them, each once."""

    @property
    def name(self) -> str:
        """The file's name."""

    def identity(self) -> TrialIdentity:
        """Name, digest and counts, as calibrations and reports carry them."""

    def scores(self, embeddings: npt.ArrayLike) -> FloatArray:
        """Cosine of each trial's two sides, float64 `[trials]`, from `embeddings` `[recordings, dim]`."""

    def speaker_pairs(self) -> tuple[IntArray, IntArray]:
        """Speaker number of the first and of the second side of each trial, int `[trials]` each."""

    def corpus_pairs(self) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]]:
        """Corpus of the first and of the second side of each trial, `[trials]` each; may be empty."""

    def of_probes(self, values: FloatArray) -> FloatArray:
        """`values` `[recordings]`, such as seconds of speech, of each trial's probe: float64 `[trials]`."""


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
        first, second = self.first[self.labels].tolist(), self.second[self.labels].tolist()
        return _speakers(self.recordings, zip(first, second, strict=True))

    def speaker_pairs(self) -> tuple[IntArray, IntArray]:
        """Speaker number of the first and of the second side of each trial, int `[trials]` each."""
        speakers = self.speakers()
        return speakers[self.first], speakers[self.second]

    def corpus_pairs(self) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]]:
        """Corpus of each trial's two recordings: the outermost folder by which the paths differ."""
        names = corpora(self.recordings)
        return names[self.first], names[self.second]

    def of_probes(self, values: FloatArray) -> FloatArray:
        """The smaller of the two recordings' `values` `[recordings]`, float64 `[trials]`."""
        return np.minimum(values[self.first], values[self.second])

    def scores(self, embeddings: npt.ArrayLike) -> FloatArray:
        """Cosine of each trial's two embeddings, float64 `[trials]`, from `embeddings` `[recordings, dim]`.

        Raises ValueError on another number of rows, and on a row that has no direction (zero or not finite).
        """
        rows, norms = _checked(embeddings, self.recordings)
        return _cosines(rows, norms, self.first, rows, norms, self.second)

    def identity(self) -> TrialIdentity:
        """Name, digest and counts, as calibrations and reports carry them."""
        return _identity(self.name, self.sha256, self.labels, int(self.speakers().max()) + 1)


@dataclass(frozen=True)
class Template:
    """What a speaker is compared with: its name in the list, and indices of the recordings it is made of."""

    name: str
    recordings: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TemplateTrials:
    """Trials of a template, made of one or several recordings, against a probe, which is a recording.

    labels: bool `[trials]`, true for a target (template and probe are of one speaker).
    template: int `[trials]`, indices into `templates`.
    probe: int `[trials]`, indices into `recordings`.
    templates: in the order of the map.
    recordings: paths as the map and the list write them, each once.
    name: the list's file name.
    sha256: the digest of the list's bytes followed by the map's.
    """

    labels: BoolArray
    template: IntArray
    probe: IntArray
    templates: tuple[Template, ...]
    recordings: tuple[str, ...]
    name: str
    sha256: str

    def speakers(self) -> tuple[IntArray, IntArray]:
        """Speaker numbers of the templates `[templates]` and of the recordings `[recordings]`, from 0.

        A template, its recordings and the probes of its target trials are one speaker. A probe that is in no
        target trial, a stranger, is a speaker of its own, since the list does not say who it is.
        """
        count = len(self.templates)
        names = [f"\0{template.name}" for template in self.templates] + list(self.recordings)
        pairs = [(i, count + r) for i, template in enumerate(self.templates) for r in template.recordings]
        template, probe = self.template[self.labels].tolist(), (count + self.probe[self.labels]).tolist()
        numbers = _speakers(names, [*pairs, *zip(template, probe, strict=True)])
        return numbers[:count], numbers[count:]

    def speaker_pairs(self) -> tuple[IntArray, IntArray]:
        """Speaker number of each trial's template and of its probe, int `[trials]` each."""
        of_templates, of_recordings = self.speakers()
        return of_templates[self.template], of_recordings[self.probe]

    def corpus_pairs(self) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]]:
        """Corpus of each trial's template (that of its first recording) and of its probe."""
        names = corpora(self.recordings)
        first = np.array([template.recordings[0] for template in self.templates])
        return names[first][self.template], names[self.probe]

    def of_probes(self, values: FloatArray) -> FloatArray:
        """The probes' `values` `[recordings]`, float64 `[trials]`."""
        return values[self.probe]

    def make_templates(self, embeddings: npt.ArrayLike) -> FloatArray:
        """Make the templates as the store makes them: the mean of unit vectors, of unit length again.

        `embeddings` are `[recordings, dim]`; the result is float64 `[templates, dim]`. Raises ValueError on
        another number of rows, a row without direction, and recordings that cancel each other.
        """
        rows, norms = _checked(embeddings, self.recordings)
        means = np.stack([_mean_direction(rows, norms, template.recordings) for template in self.templates])
        lengths = np.linalg.norm(means, axis=1)
        if np.any(vanished := lengths < VANISHED):
            raise ValueError(f"the recordings of {self.templates[int(np.argmax(vanished))].name} cancel out")
        made: FloatArray = means / lengths[:, None]
        return made

    def scores(self, embeddings: npt.ArrayLike) -> FloatArray:
        """Cosine of each trial's template and probe, float64 `[trials]`.

        `embeddings` are `[recordings, dim]`. Raises ValueError as `make_templates` does.
        """
        templates, (rows, norms) = self.make_templates(embeddings), _checked(embeddings, self.recordings)
        return _cosines(templates, np.ones(len(templates)), self.template, rows, norms, self.probe)

    def identity(self) -> TrialIdentity:
        """Name, digest and counts. Only the templates' speakers count: who strangers are is not known."""
        return _identity(self.name, self.sha256, self.labels, np.unique(self.speakers()[0]).size)


def read_trials(path: str | Path) -> TrialList:
    """Read a list of pairs, in any of the spellings that `list_files` knows.

    Raises TrialListError when it is not one, OSError when the file cannot be read.
    """
    path = Path(path)
    content = path.read_bytes()
    lines = parse_trials(content, path)
    index: dict[str, int] = {}
    pairs = [(_number(line.first, index), _number(line.second, index)) for line in lines]
    first, second = np.array(pairs, dtype=np.int64).T.copy()
    return TrialList(
        labels=_labels(lines, path),
        first=first,
        second=second,
        recordings=tuple(index),
        name=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def read_template_trials(path: str | Path, map_path: str | Path) -> TemplateTrials:
    """Read a list of trials of templates, and the map that says which recordings each template is made of.

    For example, the map `ann ann/1.wav ann/2.wav` and the trial `1 ann ann/3.wav`. Raises TrialListError when
    one of the two cannot be used, OSError when a file cannot be read.
    """
    path, map_path = Path(path), Path(map_path)
    content, map_content = path.read_bytes(), map_path.read_bytes()
    lines = parse_trials(content, path)
    made_of = parse_map(map_content, map_path, {line.first for line in lines})
    number = {name: i for i, name in enumerate(made_of)}
    index: dict[str, int] = {}
    templates = tuple(
        Template(name, tuple(_number(recording, index) for recording in recordings))
        for name, recordings in made_of.items()
    )
    for line in lines:
        if line.first not in number:
            raise TrialListError(
                f"{path}:{line.number}: the template {line.first} is not in {map_path}; a line names a "
                "template and then a probe"
            )
    return TemplateTrials(
        labels=_labels(lines, path),
        template=np.array([number[line.first] for line in lines], dtype=np.int64),
        probe=np.array([_number(line.second, index) for line in lines], dtype=np.int64),
        templates=templates,
        recordings=tuple(index),
        name=path.name,
        sha256=hashlib.sha256(content + map_content).hexdigest(),
    )


def _labels(lines: Sequence[Line], path: Path) -> BoolArray:
    """The labels, bool `[trials]`; raises TrialListError where one of the two classes is missing."""
    labels = np.array([line.target for line in lines], dtype=np.bool_)
    if labels.all() or not labels.any():
        only, missing = ("targets", "non-targets (0)") if labels[0] else ("non-targets", "targets (1)")
        raise TrialListError(
            f"{path}: lines {lines[0].number} to {lines[-1].number} are all {only}; add {missing} to the list"
        )
    return labels


def _number(name: str, index: dict[str, int]) -> int:
    return index.setdefault(name, len(index))


def _speakers(names: Sequence[str], same: Iterable[tuple[int, int]]) -> IntArray:
    """Number the speakers of things, some pairs of which are of the `same` one; int `[names]`, from 0."""
    by_name = np.argsort(np.array(names, dtype=np.str_), kind="stable")
    rank = np.empty_like(by_name)
    rank[by_name] = np.arange(by_name.size)
    parent = list(range(by_name.size))
    for a, b in same:
        low, high = sorted((_root(parent, int(rank[a])), _root(parent, int(rank[b]))))
        parent[high] = low
    roots = np.array([_root(parent, node) for node in range(len(parent))], dtype=np.int64)
    numbers = np.unique(roots, return_inverse=True)[1]
    return numbers[rank].astype(np.int64)


def _root(parent: list[int], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]  # path halving keeps the chains short
        node = parent[node]
    return node


def corpora(recordings: Sequence[str]) -> npt.NDArray[np.str_]:
    """The outermost folder by which the paths differ, `[recordings]`; empty where there is none.

    In VoxCeleb's lists that folder is the speaker; a corpus of one speaker has no error rate of its own.
    """
    folders = [PurePosixPath(path).parent.parts for path in recordings]
    for level in range(max(len(parts) for parts in folders)):
        names = [parts[level] if level < len(parts) else "" for parts in folders]
        if len(set(names)) > 1:
            return np.array(names, dtype=np.str_)
    return np.full(len(recordings), "", dtype=np.str_)


def _checked(
    embeddings: npt.ArrayLike, recordings: Sequence[str]
) -> tuple[npt.NDArray[np.floating], FloatArray]:
    """The embeddings `[recordings, dim]` as they are, and the length of each, float64 `[recordings]`."""
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or len(rows) != len(recordings):
        raise ValueError(
            f"embeddings must be [{len(recordings)}, dim], a row per recording; got {rows.shape}"
        )
    norms = np.sqrt(np.einsum("rd,rd->r", rows, rows, dtype=np.float64))
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        raise ValueError(f"the embedding of {recordings[bad[0]]} is zero or not finite")
    return rows, norms


def _mean_direction(
    rows: npt.NDArray[np.floating], norms: FloatArray, chosen: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """The mean of the chosen rows as unit vectors, float64 `[dim]`."""
    index = list(chosen)
    mean: FloatArray = (rows[index].astype(np.float64) / norms[index, None]).mean(axis=0)
    return mean


def _cosines(
    first: npt.NDArray[np.floating],
    first_norms: FloatArray,
    a: IntArray,
    second: npt.NDArray[np.floating],
    second_norms: FloatArray,
    b: IntArray,
) -> FloatArray:
    """Cosines of rows `a` of `first` with rows `b` of `second`, float64 `[trials]`."""
    scores = np.empty(len(a))
    for start in range(0, len(scores), SCORING_BLOCK):
        left, right = a[start : start + SCORING_BLOCK], b[start : start + SCORING_BLOCK]
        dots = np.einsum("td,td->t", first[left], second[right], dtype=np.float64)
        scores[start : start + SCORING_BLOCK] = dots / (first_norms[left] * second_norms[right])
    return scores


def _identity(name: str, sha256: str, labels: BoolArray, speakers: int) -> TrialIdentity:
    targets = int(labels.sum())
    return TrialIdentity(name, sha256, targets, len(labels) - targets, speakers)
