"""Trial lists and template maps as text files, in the spellings that people use.

A list of trials has three columns: a label and two recordings (or a template and a recording). VoxCeleb puts
the label first, as 1 or 0; Kaldi puts it last, as `target` or `nontarget`; others write a CSV with a header.
The file itself tells which of these it is. Lines that begin with `#` are comments.
"""

import csv
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sayso.domain.errors import SaysoError

TARGET_LABELS = {"1", "1.0", "target", "tgt", "tar", "true", "same", "match", "genuine", "positive"}
NONTARGET_LABELS = {
    "0",
    "0.0",
    "-1",
    "nontarget",
    "non-target",
    "nontgt",
    "nontar",
    "imp",
    "imposter",
    "impostor",
}
NONTARGET_LABELS |= {"false", "different", "diff", "nonmatch", "non-match", "negative"}
_DELIMITERS = ("\t", None, ",", ";")  # None is white space

# Names of columns in headers: of pandas tables, of NIST's keys (modelid, segmentid, targettype), of toolkits.
_WHAT = r"([_ -]?(id|path|file|wav|audio|utt|utterance|recording|segment|spk|speaker))?"
_LABEL_NAME = re.compile(
    r"label|labels|target|is_?target|target_?type|key|truth|match|is_?match|is_?same|same|same_?speaker", re.I
)
_FIRST_NAME = re.compile(
    rf"(enrol|enroll|enrolment|enrollment|model|template|reference|first){_WHAT}"
    r"|(path|file|wav|audio|utt|utterance|recording|segment|id|spk|speaker)[_ -]?(1|a)|spk|speaker",
    re.I,
)
_SECOND_NAME = re.compile(
    rf"(test|probe|segment|second|recording|utt|utterance|path|file|wav|audio)s?{_WHAT}"
    r"|(path|file|wav|audio|utt|utterance|recording|segment|id|spk|speaker)[_ -]?(2|b)",
    re.I,
)


class TrialListError(SaysoError, ValueError):
    """A trial list that cannot be used; the message names the file, the line and what to do."""


@dataclass(frozen=True)
class Line:
    """One trial as it stands in its file: the line's number, whether it is a target, and what is compared."""

    number: int
    target: bool
    first: str
    second: str


@dataclass(frozen=True)
class _Layout:
    """Which column is which. `delimiter` None stands for white space; `width` is the number of columns."""

    delimiter: str | None
    label: int
    first: int
    second: int
    width: int = 3
    has_header: bool = False

    def read(self, number: int, text: str) -> Line | None:
        """The trial on a line; None where the line does not fit."""
        fields = _split(text, self.delimiter, self.width)
        if len(fields) != self.width:
            return None
        target = _label(fields[self.label])
        first, second = fields[self.first], fields[self.second]
        return Line(number, target, first, second) if target is not None and first and second else None


def parse_trials(content: bytes, path: Path) -> list[Line]:
    """Read the trials of a list; `path` is for messages.

    Raises `TrialListError` where a line does not fit what the others are, and where a file can be read in two
    ways, such as `1 0 1`.
    """
    lines = list(_lines(content, path))
    if not lines:
        raise TrialListError(f"{path}: no trials; expected lines such as '1 a.wav b.wav'")
    readings: list[list[Line]] = []
    closest: tuple[tuple[int, bool], _Layout] | None = None
    for layout in _layouts(*lines[0], path):
        rows = lines[1:] if layout.has_header else lines
        trials = [trial for number, text in rows if (trial := layout.read(number, text)) is not None]
        if trials and len(trials) == len(rows) and trials not in readings:
            readings.append(trials)
        fit = len(trials), layout.has_header
        if closest is None or fit > closest[0]:
            closest = fit, layout
    if len(readings) > 1:
        raise TrialListError(
            f"{path}: the first and the last column both hold labels only, so either could be the label; add "
            "a header line 'label enrol test' or 'enrol test label'"
        )
    if readings:
        return readings[0]
    if closest is None:  # there is always a layout to try
        raise AssertionError
    raise TrialListError(_first_misfit(lines, closest[1], path))


def _layouts(number: int, first_line: str, path: Path) -> Iterator[_Layout]:
    """What a list may be that begins with this line, the likelier first."""
    for delimiter in _DELIMITERS:
        fields = _split(first_line, delimiter, 3)
        if delimiter is not None and len(fields) < 3:
            continue
        if len(fields) >= 3 and (header := _header(fields, delimiter, f"{path}:{number}")) is not None:
            yield header
        else:
            yield _Layout(delimiter, label=0, first=1, second=2)
            yield _Layout(delimiter, label=2, first=0, second=1)


def _header(fields: list[str], delimiter: str | None, place: str) -> _Layout | None:
    """The layout that a header line describes; None where the line is no header."""
    labels = [i for i, name in enumerate(fields) if _LABEL_NAME.fullmatch(name)]
    firsts = [i for i, name in enumerate(fields) if _FIRST_NAME.fullmatch(name)]
    seconds = [i for i, name in enumerate(fields) if _SECOND_NAME.fullmatch(name) and i not in firsts]
    if len(labels) != 1:
        return None
    others = [i for i in range(len(fields)) if i != labels[0]]
    if any(_label(fields[i]) is not None for i in others):
        return None  # a trial of a recording that is called `key`, say
    if len(firsts) == len(seconds) == 1:
        others = [firsts[0], seconds[0]]
    elif _label(fields[labels[0]]) is not None:
        return None  # a trial: `target a.wav b.wav`
    if len(others) != 2:
        raise TrialListError(
            f"{place}: the columns {', '.join(fields)} do not say which two are compared; name them label, "
            "enrol and test"
        )
    return _Layout(delimiter, labels[0], others[0], others[1], len(fields), has_header=True)


def _first_misfit(lines: list[tuple[int, str]], layout: _Layout, path: Path) -> str:
    """What is wrong with the first line that does not fit the layout."""
    for number, text in lines[1:] if layout.has_header else lines:
        if layout.read(number, text) is not None:
            continue
        fields = _split(text, layout.delimiter, layout.width)
        if len(fields) != layout.width:
            expected = f", not {layout.width} as in the header" if layout.has_header else ""
            return (
                f"{path}:{number}: {len(fields)} fields{expected}; write a label and two paths without "
                "spaces, as in '1 a.wav b.wav', or a CSV with the header label,enrol,test"
            )
        if _label(fields[layout.label]) is None:
            return (
                f"{path}:{number}: label {fields[layout.label]!r}; it must be 1 or target (same speaker), or "
                "0 or nontarget (different speakers), in the first or the last column of every line"
            )
        return f"{path}:{number}: a path is empty"
    return f"{path}: a header and no trials"


def parse_map(content: bytes, path: Path, templates: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """Read which recordings each template is made of; `path` is for messages.

    A line holds a template and its recordings (Kaldi's spk2utt), or one template and one recording, several
    lines adding up (NIST's enrolment lists, CSVs with a header). `templates` are the names that the trials
    use, by which the columns are told apart. Raises `TrialListError`.
    """
    lines = list(_lines(content, path))
    best: dict[str, tuple[str, ...]] = {}
    error: TrialListError | None = None
    for delimiter in (None, "\t", ",", ";"):
        try:
            made = _map(lines, delimiter, path)
        except TrialListError as reason:
            error = error or reason
            continue
        if not best or len(made.keys() & set(templates)) > len(best.keys() & set(templates)):
            best = made
    if not best:
        raise error or TrialListError(
            f"{path}: no templates; expected lines such as 'ann ann/1.wav ann/2.wav'"
        )
    return best


def _map(lines: list[tuple[int, str]], delimiter: str | None, path: Path) -> dict[str, tuple[str, ...]]:
    made: dict[str, list[str]] = {}
    for position, (number, text) in enumerate(lines):
        name, *recordings = [field for field in _split(text, delimiter) if field]
        if not position and recordings and _is_map_header(name, recordings):
            continue
        if not recordings:
            raise TrialListError(
                f"{path}:{number}: the template {name} has no recordings; write 'ann ann/1.wav ann/2.wav'"
            )
        kept = made.setdefault(name, [])
        for recording in recordings:
            if recording in kept:
                raise TrialListError(f"{path}:{number}: {recording} is listed twice for the template {name}")
            kept.append(recording)
    return {name: tuple(recordings) for name, recordings in made.items()}


def _is_map_header(name: str, recordings: list[str]) -> bool:
    return bool(_FIRST_NAME.fullmatch(name) and all(_SECOND_NAME.fullmatch(r) for r in recordings))


def _lines(content: bytes, path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that holds something but a comment."""
    # Split as bytes: str.splitlines would also cut at separators that a path may hold.
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            text = raw.decode("utf-8").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise TrialListError(
                f"{path}:{number}: not UTF-8 text; save the list as UTF-8 ({error})"
            ) from error
        if text.strip() and not text.lstrip().startswith("#"):
            yield number, text


def _split(text: str, delimiter: str | None, width: int | None = None) -> list[str]:
    """The fields of a line; with a `width`, a comment behind so many fields is dropped."""
    if delimiter is not None:
        try:
            return [field.strip() for field in next(csv.reader([text], delimiter=delimiter))]
        except csv.Error:
            return [text]
    fields = text.split()
    if width is not None and len(fields) > width and fields[width].startswith("#"):
        return fields[:width]
    return fields


def _label(field: str) -> bool | None:
    """Whether a label means a target; None where it is no label."""
    word = field.lower()
    return True if word in TARGET_LABELS else False if word in NONTARGET_LABELS else None
