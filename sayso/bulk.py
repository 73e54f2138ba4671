"""Enrolling many people at once, from a folder of folders or a CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from sayso.enroll.errors import EnrollError, SpeakerNotFound
from sayso.runtime.audio import MIX as MIX
from sayso.runtime.audio import SentAudio
from sayso.runtime.errors import InputError, RuntimeFault
from sayso.runtime.session import available_cores
from sayso.service.call import Call
from sayso.service.engine import Engine
from sayso.service.idempotency import id_from

COLUMNS = ("path", "speaker")


class BulkError(InputError):
    """The folder or the CSV cannot be used; nothing was enrolled."""

    code = "bulk_invalid"


@dataclass
class Person:
    """Somebody to enrol: their recordings, in order, and what else the CSV says."""

    id: str
    name: str | None = None
    groups: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """What became of one recording: `outcome` is added, known or refused, `status` the speaker's then."""

    speaker: str
    path: str
    outcome: str
    status: str
    net_speech_s: float | None
    remaining_speech_s: float | None
    code: str
    detail: str


def read_source(source: Path) -> list[Person]:
    """Who is in a folder (one folder a speaker) or a CSV (`path,speaker`, and `name`, `groups` if wanted).

    Paths in a CSV are relative to it; several groups are parted by semicolons. Raises `BulkError`.
    """
    people = _folder(source) if source.is_dir() else _csv(source)
    if not people:
        raise BulkError(f"{source} holds nobody: one folder a speaker with recordings in it is expected")
    return people


def _folder(source: Path) -> list[Person]:
    people = []
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        if files:
            people.append(Person(folder.name, files=files))
    return people


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
                person = people.setdefault(row["speaker"], Person(row["speaker"]))
                person.name = person.name or row.get("name") or None
                named = (part.strip() for part in (row.get("groups") or "").split(";"))
                person.groups += [group for group in named if group and group not in person.groups]
                person.files.append(source.parent / row["path"])
    except (UnicodeDecodeError, csv.Error) as error:
        raise BulkError(f"{source} is not a CSV in UTF-8: {error}") from error
    return list(people.values())


def enroll_all(
    engine: Engine,
    people: list[Person],
    new_call: Callable[[], Call],
    advance: Callable[[], None] = lambda: None,
    channel: str = MIX,
) -> Iterator[Row]:
    """Enrol everybody, a recording that is refused stopping nobody; rows come as speakers are done.

    An enrolment's id follows from the recording's bytes, so doing it again adds nothing twice. `channel` is
    taken of each recording.
    """

    def one(person: Person) -> list[Row]:
        rows = []
        for file in person.files:
            rows.append(_enroll(engine, person, file, new_call(), channel))
            advance()
        return rows

    with ThreadPoolExecutor(available_cores()) as pool:
        for rows in pool.map(one, people):
            yield from rows


def enrollment_id(data: bytes, channel: str) -> str:
    """The id that follows from a recording's bytes and the channel taken of it."""
    return id_from("enr", data) if channel == MIX else id_from("enr", data, channel)


def _enroll(engine: Engine, person: Person, file: Path, call: Call, channel: str) -> Row:
    try:
        data = file.read_bytes()
        try:
            engine.store.speaker(call.tenant, person.id)
            there = {one.id for one in engine.store.enrollments(call.tenant, person.id)}
        except SpeakerNotFound:
            engine.store.create_speaker(call.tenant, person.id, person.name, person.groups)
            there = set()
        wanted = enrollment_id(data, channel)
        added = engine.enroll(call, person.id, SentAudio(data, channel=channel), wanted)
    except (EnrollError, RuntimeFault) as error:
        heard = getattr(error, "net_speech_s", None)
        return Row(person.id, str(file), "refused", "", heard, None, error.code, str(error))
    except OSError as error:
        return Row(
            person.id, str(file), "refused", "", None, None, "file_invalid", error.strerror or str(error)
        )
    outcome = "known" if wanted in there else "added"
    heard = round(added.audio.net_speech_s, 3)
    return Row(person.id, str(file), outcome, added.status, heard, added.remaining_speech_s, "", "")


class Report:
    """A CSV with a line for each recording, written as they come, so that a crash leaves what was done."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writer = csv.DictWriter(file, fieldnames=list(Row.__dataclass_fields__))
        self._writer.writeheader()

    def add(self, row: Row) -> None:
        self._writer.writerow(asdict(row))
        self._file.flush()
