"""Enrols the recordings of one or many people; a recording that is refused stops nobody."""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from sayso.domain.errors import SaysoError
from sayso.enroll.errors import InvalidField, SpeakerNotFound
from sayso.enroll.fields import checked_id
from sayso.runtime.audio import MIX, SentAudio, decode
from sayso.runtime.errors import InputError
from sayso.runtime.session import available_cores
from sayso.runtime.speech import QualityLimits
from sayso.service.call import Call
from sayso.service.engine import Engine
from sayso.service.idempotency import id_from
from sayso.service.schemas import EnrollmentAdded

COLUMNS = ("path", "speaker")
LOOSE = "it lies beside the speakers' folders: put it into a folder named after its speaker, or use a CSV"


class BulkError(InputError):
    """The folder or the CSV cannot be used; nothing was enrolled."""

    code = "bulk_invalid"


@dataclass
class Person:
    """Somebody to enrol: their recordings, in order, and what else is known of them.

    `made_of` is the name that the id was made of, such as `Tom Jones`; None where it was an id as it stood.
    """

    id: str
    name: str | None = None
    groups: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    made_of: str | None = None


@dataclass(frozen=True)
class Source:
    """The people of a folder or a CSV, and recordings in the folder that belong to nobody."""

    people: list[Person]
    loose: list[Path]


@dataclass(frozen=True)
class Row:
    """The outcome for one recording: added, known or refused. `status` is the speaker's status after it."""

    speaker: str
    path: str
    outcome: str
    status: str
    net_speech_s: float | None
    remaining_speech_s: float | None
    code: str
    detail: str


def read_source(source: Path) -> Source:
    """Read the people from a folder (one folder a speaker) or a CSV (`path,speaker`, maybe `name`, `groups`).

    Paths in a CSV are relative to it; semicolons separate groups. A name that is no id, such as `Tom Jones`,
    becomes one, `Tom-Jones`, and is kept as the speaker's name. Raises `BulkError`.
    """
    read = _folder(source) if source.is_dir() else Source(_csv(source), [])
    if not read.people:
        loose = f"; {len(read.loose)} files lie in it without a folder" if read.loose else ""
        raise BulkError(
            f"{source} holds nobody: one folder a speaker with recordings in it is expected{loose}"
        )
    return read


def _folder(source: Path) -> Source:
    people: dict[str, Person] = {}
    visible = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    for folder in (path for path in visible if path.is_dir()):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and _is_visible(path, folder))
        if files:
            _person(people, folder.name).files += files
    return Source(list(people.values()), [path for path in visible if path.is_file()])


def _is_visible(path: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _csv(source: Path) -> list[Person]:
    people: dict[str, Person] = {}
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise BulkError(f"{source} lacks the column `{missing[0]}`: its first line names the columns")
            for number, row in enumerate(reader, start=2):
                if not row["path"] or not row["speaker"]:
                    raise BulkError(f"{source}, line {number}: path and speaker are both needed")
                person = _person(people, row["speaker"])
                person.name = row.get("name") or person.name
                named = (part.strip() for part in (row.get("groups") or "").split(";"))
                person.groups += [group for group in named if group and group not in person.groups]
                person.files.append(source.parent / row["path"])
    except (UnicodeDecodeError, csv.Error) as error:
        raise BulkError(f"{source} is not a CSV in UTF-8: {error}") from error
    return list(people.values())


def _person(people: dict[str, Person], called: str) -> Person:
    """Find a person by name in `people`, or add them; raises `BulkError` if two names get the same id."""
    try:
        id_, made_of = checked_id("speaker", called), None
    except InvalidField:
        id_, made_of = _made_id(called), called
    person = people.setdefault(id_, Person(id_, made_of, made_of=made_of))
    if person.made_of != made_of:
        raise BulkError(f"{called!r} and {person.made_of or id_!r} would both get the id {id_}: rename one")
    return person


def _made_id(called: str) -> str:
    """Make an id of a name: `Tom Jones` becomes Tom-Jones; letters that are not Latin become a number."""
    plain = unicodedata.normalize("NFKD", called).encode("ascii", "ignore").decode()
    made = re.sub(r"[^A-Za-z0-9._@-]+", "-", plain).strip("-._@")[:100]
    if len(re.sub(r"\W", "", made)) < len(re.sub(r"\W", "", called)):
        made = f"{made}-{hashlib.sha256(called.encode()).hexdigest()[:12]}".strip("-")
    return made


def loose_rows(files: list[Path]) -> list[Row]:
    """Rows that refuse recordings which belong to nobody."""
    return [Row("", str(file), "refused", "", None, None, "no_speaker", LOOSE) for file in files]


def enroll_all(
    engine: Engine,
    people: list[Person],
    new_call: Callable[[], Call],
    advance: Callable[[], None] = lambda: None,
    channel: str = MIX,
) -> Iterator[Row]:
    """Enrol everybody; rows come as speakers are done, and `advance` is called after each recording.

    An enrolment's id follows from the recording's bytes, so doing it again adds nothing twice. `channel` is
    taken of each recording.
    """

    def enroll(person: Person) -> list[Row]:
        return [row for row, _ in enroll_person(engine, person, new_call, advance, channel)]

    with ThreadPoolExecutor(available_cores()) as pool:
        for rows in pool.map(enroll, people):
            yield from rows


def enroll_person(
    engine: Engine,
    person: Person,
    new_call: Callable[[], Call],
    advance: Callable[[], None] = lambda: None,
    channel: str = MIX,
) -> list[tuple[Row, EnrollmentAdded | None]]:
    """Enrol one person's recordings in order: a row for each, and what was added where it was not refused.

    A speaker is created with the first recording that is good enough, never without one. `channel` is taken
    of each recording.
    """
    outcomes = []
    for file in person.files:
        outcomes.append(_enroll(engine, person, file, new_call(), channel))
        advance()
    return outcomes


def _enrollment_id(data: bytes, channel: str) -> str:
    """The id that follows from a recording's bytes and the channel taken of it."""
    return id_from("enr", data) if channel == MIX else id_from("enr", data, channel)


def _enroll(
    engine: Engine, person: Person, file: Path, call: Call, channel: str
) -> tuple[Row, EnrollmentAdded | None]:
    try:
        data = file.read_bytes()
        try:
            speaker = engine.store.speaker(call.tenant, person.id)
            if person.made_of is not None and speaker.name != person.name:
                holder = speaker.name or "somebody without a name"
                taken = f"the id {person.id} is taken by {holder}: use a CSV"
                return _refused(person, file, "id_taken", taken), None
            earlier = {enrollment.id for enrollment in engine.store.enrollments(call.tenant, person.id)}
        except SpeakerNotFound:
            _check(engine, data)
            engine.store.create_speaker(call.tenant, person.id, person.name, person.groups)
            earlier = set()
        enrollment_id = _enrollment_id(data, channel)
        added = engine.enroll(call, person.id, SentAudio(data, channel=channel), enrollment_id)
    except SaysoError as error:
        seconds = getattr(error, "net_speech_s", None)
        return _refused(person, file, error.code, str(error), seconds), None
    except OSError as error:
        return _refused(person, file, "file_invalid", error.strerror or str(error)), None
    outcome = "known" if enrollment_id in earlier else "added"
    net_speech_s = round(added.audio.net_speech_s, 3)
    remaining = added.remaining_speech_s
    return Row(person.id, str(file), outcome, added.status, net_speech_s, remaining, "", ""), added


def _check(engine: Engine, data: bytes) -> None:
    """Raise if a recording is not good enough to enrol, so that no speaker is created for it."""
    settings = engine.settings
    report, _ = engine.ear.detector.detect(decode(data, settings.max_audio_s))
    QualityLimits(settings.enroll_min_speech_s, settings.min_snr_db, settings.max_clipping).check(report)


def _refused(person: Person, file: Path, code: str, detail: str, net_speech_s: float | None = None) -> Row:
    return Row(person.id, str(file), "refused", "", net_speech_s, None, code, detail)


class Report:
    """A CSV with a line for each recording, written at once, so that a crash leaves what was done."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writer = csv.DictWriter(file, fieldnames=list(Row.__dataclass_fields__))
        self._writer.writeheader()

    def add(self, row: Row) -> None:
        self._writer.writerow(asdict(row))
        self._file.flush()
