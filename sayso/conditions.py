"""The recordings of a list as a calibration needs them: whole, cut short, and through a telephone line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sayso.domain.evidence import SHORTEST_S, Band, Side, Sides
from sayso.evaluate.tenants import Comparisons, Voices
from sayso.evaluate.trials import TemplateTrials, TrialList, corpora
from sayso.listen import LONGEST_S, EmbeddedFiles, FileError, require_files
from sayso.runtime.audio import SAMPLE_RATE, Recording, Samples, decode
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import InputError
from sayso.runtime.session import available_cores
from sayso.runtime.speech import SpeechDetector
from sayso.train.waveform import telephone

SHORT_S = 2.0  # of speech, with its pauses
LEAST_SPEECH_S = 0.5  # of a probe: less is compared by nobody
_LINES = ("ULAW", "ALAW", "GSM610")
_WIDE, _NARROW = ("wide", "wide, short"), ("line", "line, short")
PROBES = (*_WIDE, *_NARROW)
TEMPLATES = ("wide", "line")
Heard = dict[str, tuple[NDArray[np.float32], Side]]  # by form: unit vector `[dim]`, and what is known of it


@dataclass(frozen=True, eq=False)
class Trial:
    """One list for a calibration: which recordings make each template, and the trials `[trials]`."""

    templates: tuple[tuple[int, ...], ...]
    labels: NDArray[np.bool_]
    template: NDArray[np.int64]
    probe: NDArray[np.int64]
    recordings: tuple[str, ...]
    groups: tuple[str, ...]  # of each recording
    enrolled_apart: bool = (
        True  # no recording is a probe here and enrolled there, as it is in a list of pairs
    )

    @classmethod
    def of(cls, trials: TrialList | TemplateTrials) -> Trial:
        """Of a list of pairs every first recording is a template."""
        groups = tuple(corpora(trials.recordings).tolist())
        if len(set(groups)) > len(set(trials.recordings)) / 4:  # folders of speakers, not of corpora
            groups = ("",) * len(groups)
        if isinstance(trials, TemplateTrials):
            made = tuple(t.recordings for t in trials.templates)
            return cls(made, trials.labels, trials.template, trials.probe, trials.recordings, groups)
        first, template = np.unique(trials.first, return_inverse=True)
        made = tuple((int(recording),) for recording in first)
        return cls(made, trials.labels, template, trials.second, trials.recordings, groups, False)


def compare_all(
    embedder: Embedder,
    lists: Sequence[tuple[TrialList | TemplateTrials, Path]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Comparisons]:
    """The trials of all lists, each with the folder of its recordings, under every condition.

    Templates are of all their recordings and of the first alone; probes are whole, short and several as one
    call, on a wide band and through a telephone line. Raises `FileError` naming recordings that cannot be
    used.
    """
    listed = [Trial.of(trials) for trials, _ in lists]
    files = [
        [root / name for name in trial.recordings] for trial, (_, root) in zip(listed, lists, strict=True)
    ]
    require_files([file for part in files for file in part])
    total, done = sum(map(len, files)), 0
    heard: list[list[Heard]] = []
    for trial, part in zip(listed, files, strict=True):
        forms = _forms(trial)
        with ThreadPoolExecutor(available_cores()) as pool:
            detector = SpeechDetector()
            jobs = [pool.submit(_hear, embedder, detector, f, forms[i], i) for i, f in enumerate(part)]
            results = []
            for job in jobs:
                results.append(job.result())
                done += 1
                progress(done, total)
        heard.append(results)
    names = sorted({f"{number} {group}" for number, trial in enumerate(listed) for group in trial.groups})
    parts = [
        _conditions(trial, results, [names.index(f"{number} {group}") for group in trial.groups])
        for number, (trial, results) in enumerate(zip(listed, heard, strict=True))
    ]
    shown = tuple(name.split(" ", 1)[1] or lists[int(name.split(" ", 1)[0])][0].name for name in names)
    return [replace(_joined([part[i] for part in parts]), names=shown) for i in range(len(parts[0]))]


def as_listed(trials: TrialList | TemplateTrials, embedded: EmbeddedFiles) -> Comparisons:
    """The trials of a list as they are, whatever the band of each recording."""
    trial = Trial.of(trials)
    heard: list[Heard] = [
        {"wide": (vector, Side(report.net_speech_s, 1, report.band))}
        for vector, report in zip(embedded.vectors, embedded.reports, strict=True)
    ]
    names = sorted(set(trial.groups))
    return Comparisons(
        _templates(trial, heard, "wide"),
        _voices([h["wide"] for h in heard]),
        trial.labels,
        trial.template.astype(np.int64),
        trial.probe.astype(np.int64),
        np.array([names.index(trial.groups[made_of[0]]) for made_of in trial.templates], np.int64),
        "as listed",
    )


def _forms(trial: Trial) -> list[set[str]]:
    """In which forms each recording is needed."""
    forms: list[set[str]] = [set() for _ in trial.recordings]
    for recording in {r for recordings in trial.templates for r in recordings}:
        forms[recording] |= set(TEMPLATES)
    for recording in set(trial.probe.tolist()):
        forms[recording] |= set(PROBES)
    return forms


def _hear(embedder: Embedder, detector: SpeechDetector, file: Path, forms: set[str], number: int) -> Heard:
    """A recording's vectors in the forms asked for; codecs and cuts by its number, so that a run repeats."""
    try:
        recording = decode(file.read_bytes(), LONGEST_S)
    except (OSError, InputError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FileError(f"{file}: {reason}") from error
    heard: Heard = {}
    rng = np.random.default_rng(number)

    def take(form: str, samples: Samples, seconds: float, band: Band) -> None:
        heard[form] = embedder.embed(samples).vector, Side(seconds, 1, band)

    def whole_and_short(names: tuple[str, str], heard_as: Recording, band: Band | None) -> None:
        report, speech = detector.detect(heard_as)
        speech = speech if len(speech) else heard_as.samples
        measured = band or report.band
        take(names[0], speech, report.net_speech_s, measured)
        if names[1] in forms:
            length = round(SHORT_S * SAMPLE_RATE)
            if len(speech) <= length:
                heard[names[1]] = heard[names[0]]
                return
            start = int(rng.integers(len(speech) - length))
            cut = speech[start : start + length]
            again, _ = detector.detect(Recording(cut, SAMPLE_RATE, 0.0, ()))
            take(names[1], cut, again.net_speech_s, measured)

    whole_and_short(_WIDE, recording, None)
    if "line" in forms:
        line = np.clip(telephone(recording.samples, _LINES[number % len(_LINES)]), -1.0, 1.0)
        whole_and_short(_NARROW, Recording(line.astype(np.float32), SAMPLE_RATE, 0.0, ()), "narrow")
    return heard


def _conditions(trial: Trial, heard: list[Heard], groups: list[int]) -> list[Comparisons]:
    wide, line = _templates(trial, heard, "wide"), _templates(trial, heard, "line")
    first = _templates(replace(trial, templates=tuple(r[:1] for r in trial.templates)), heard, "wide")
    grown = _grown(trial)
    single, calls, last = _single(trial), _calls(trial), _single(grown)
    cases = [
        *(("wide", wide, single, form, "") for form in PROBES),
        *(("line", line, single, form, "") for form in PROBES),
        *(("wide", first, single, form, "one recording enrolled") for form in _WIDE),
        *(("wide", wide, calls, form, "long probe") for form in TEMPLATES),
        *(("line", line, calls, form, "long probe") for form in TEMPLATES),
        *((form, _templates(grown, heard, form), last, form, "long template") for form in TEMPLATES),
    ]
    of_group = np.array([groups[made_of[0]] for made_of in trial.templates], np.int64)
    made = []
    for template_form, templates, probes, form, lengths in cases:
        voices = probes.voices(heard, form, templates.vectors.shape[1])
        short = f"probe of {SHORT_S:g} s" if form.endswith("short") else ""
        kept = voices.sides.net_speech_s[probes.probe] >= LEAST_SPEECH_S
        made.append(
            Comparisons(
                templates,
                voices,
                probes.labels[kept],
                probes.template[kept],
                probes.probe[kept],
                of_group,
                f"{'narrow' if template_form == 'line' else 'wide'}/{'wide' if form in _WIDE else 'narrow'}",
                lengths=", ".join(filter(None, (lengths, short))) or "as listed",
            )
        )
    return made


@dataclass(frozen=True, eq=False)
class _Probes:
    """Trials `[trials]`. Each probe is made of one recording, or of several of a speaker as one call."""

    recordings: tuple[tuple[int, ...], ...]
    labels: NDArray[np.bool_]
    template: NDArray[np.int64]
    probe: NDArray[np.int64]

    def voices(self, heard: list[Heard], form: str, dim: int) -> Voices:
        if not self.recordings:
            return Voices(np.zeros((0, dim), np.float32), Sides.of([]))
        return _voices([_as_one([heard[r][form] for r in made_of]) for made_of in self.recordings])


def _single(trial: Trial) -> _Probes:
    recordings, probe = np.unique(trial.probe, return_inverse=True)
    made_of = tuple((int(recording),) for recording in recordings)
    return _Probes(made_of, trial.labels, trial.template.astype(np.int64), probe.astype(np.int64))


def _calls(trial: Trial) -> _Probes:
    """The same trials with long probes: all probes of a speaker, one after the other.

    Lists hold sentences and commands; a caller may speak for half a minute. Strangers without a template are
    left out, as a list does not say which recordings are of one stranger; so are speakers with one probe.
    """
    calls = tuple(_own_probes(trial).values())
    speaker = {probe: row for row, probes in enumerate(calls) for probe in probes}
    pairs = {
        (int(template), speaker[int(probe)], bool(label))
        for template, probe, label in zip(trial.template, trial.probe, trial.labels, strict=True)
        if int(probe) in speaker
    }
    rows = np.array(sorted(pairs), np.int64).reshape(-1, 3)
    return _Probes(calls, rows[:, 2].astype(np.bool_), rows[:, 0], rows[:, 1])


def _grown(trial: Trial) -> Trial:
    """The trials of long templates alone: all probes of a speaker but the last are enrolled too."""
    own = _own_probes(trial)
    enrolled = {probe for probes in own.values() for probe in probes[:-1]}
    templates = tuple((*made_of, *own.get(i, ())[:-1]) for i, made_of in enumerate(trial.templates))
    kept = np.isin(trial.template, list(own)) & ~np.isin(trial.probe, list(enrolled))
    return replace(
        trial,
        templates=templates,
        labels=trial.labels[kept],
        template=trial.template[kept],
        probe=trial.probe[kept],
    )


def _own_probes(trial: Trial) -> dict[int, tuple[int, ...]]:
    """The probes of each template's own speaker, by template, where there are several."""
    if not trial.enrolled_apart:
        return {}
    own: dict[int, dict[int, None]] = {}
    for template, probe in zip(trial.template[trial.labels], trial.probe[trial.labels], strict=True):
        own.setdefault(int(template), {})[int(probe)] = None
    return {template: tuple(probes) for template, probes in own.items() if len(probes) > 1}


def _as_one(own: Sequence[tuple[NDArray[np.float32], Side]]) -> tuple[NDArray[np.float32], Side]:
    """Recordings of a speaker as one recording: a network's vector is the mean over windows of speech."""
    if len(own) == 1:
        return own[0]
    seconds = np.array([side.net_speech_s for _, side in own])
    mean = np.average([vector for vector, _ in own], axis=0, weights=np.maximum(seconds, SHORTEST_S))
    vector = np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6), np.float32)
    return vector, Side(float(seconds.sum()), 1, own[0][1].band)


def _templates(trial: Trial, heard: list[Heard], form: str) -> Voices:
    made = []
    for recordings in trial.templates:
        own = [heard[r][form] for r in recordings]
        mean = np.mean([vector for vector, _ in own], axis=0, dtype=np.float64)
        seconds = sum(side.net_speech_s for _, side in own)
        narrow = sum(side.net_speech_s for _, side in own if side.band == "narrow")
        band: Band = "narrow" if narrow > seconds / 2 else "wide"
        vector = np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6), np.float32)
        made.append((vector, Side(seconds, len(own), band)))
    return _voices(made)


def _voices(heard: Sequence[tuple[NDArray[np.float32], Side]]) -> Voices:
    return Voices(np.stack([vector for vector, _ in heard]), Sides.of([side for _, side in heard]))


def _joined(parts: Sequence[Comparisons]) -> Comparisons:
    """The same condition of several lists as one."""
    templates = np.cumsum([0, *(len(p.templates.sides) for p in parts)])
    probes = np.cumsum([0, *(len(p.probes.sides) for p in parts)])
    return Comparisons(
        Voices.joined([p.templates for p in parts]),
        Voices.joined([p.probes for p in parts]),
        np.concatenate([p.labels for p in parts]),
        np.concatenate([p.template + templates[i] for i, p in enumerate(parts)]),
        np.concatenate([p.probe + probes[i] for i, p in enumerate(parts)]),
        np.concatenate([p.groups for p in parts]),
        parts[0].condition,
        lengths=parts[0].lengths,
    )
