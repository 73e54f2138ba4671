"""Speakers on the way from one instance to another: vectors and facts, never recordings.

A file has one JSON object a line: a head, each speaker with their enrolments, an end. Vectors are
little-endian float32 in base64, named by the sha256 of their model: they are compared under no other. It
is biometric data in the clear: whoever has it can compare voices with it.
"""

import base64
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sayso.domain.evidence import Band
from sayso.enroll.errors import EnrollError, SpeakerNotFound, TransferRefused
from sayso.enroll.store import Store
from sayso.enroll.types import NewEnrollment, Speaker, Vector
from sayso.enroll.vectors import from_blob, to_blob

FORMAT = 1
_PAGE = 200


@dataclass
class Imported:
    """What an import did; `refused` has the ids that could not be taken over, with why."""

    created: int = 0
    known: int = 0
    enrollments: int = 0
    already_there: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def export_speakers(
    store: Store, tenant: str, group: str | None = None, advance: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """The lines of a tenant's export (of one group, if named), without newlines."""
    yield _line({"sayso": "speakers", "format": FORMAT, "tenant": tenant})
    count, cursor = 0, None
    while True:
        page = store.speakers(tenant, _PAGE, cursor, group)
        for speaker in page.items:
            try:
                enrollments = list(_enrollments(store, tenant, speaker.id))
            except SpeakerNotFound:  # deleted while we wrote
                continue
            yield _line({**_facts(speaker), "enrollments": enrollments})
            count += 1
            advance()
        cursor = page.next_cursor
        if cursor is None:
            break
    yield _line({"end": count})


def import_speakers(
    store: Store,
    tenant: str,
    lines: Iterable[str],
    models: Collection[str],
    advance: Callable[[], None] = lambda: None,
) -> Imported:
    """Take over an export's speakers into a tenant; doing it again adds nothing twice.

    `models` are the sha256 of those served here. A speaker who is there already keeps name, groups and
    metadata, and gets the enrolments that are missing. Raises TransferRefused, and changes nothing, if the
    file is cut off, if a field is missing or of another type, or if no vector is of a served model.
    """
    speakers = _checked(lines, models)
    done = Imported()
    for speaker in speakers:
        try:
            _import(store, tenant, speaker, done)
        except EnrollError as error:
            done.refused.append((speaker.id, str(error)))
        advance()
    return done


def _checked(lines: Iterable[str], models: Collection[str]) -> list["_SpeakerLine"]:
    """Return the speakers of a whole file, every field of each line checked for its type."""
    try:
        objects = [json.loads(line) for line in lines if line.strip()]
    except (ValueError, RecursionError) as error:
        raise TransferRefused("it is not an export of speakers: a line is not JSON") from error
    if not objects or not all(isinstance(line, dict) for line in objects):
        raise TransferRefused("it is not an export of speakers")
    if objects[0].get("sayso") != "speakers":
        raise TransferRefused("it is not an export of speakers")
    if objects[0].get("format") != FORMAT:
        raise TransferRefused(f"it has format {objects[0].get('format')}, this version reads {FORMAT}")
    if objects[-1].get("end") != len(objects) - 2:
        raise TransferRefused("it is cut off: export it again")
    speakers = [_speaker(_Fields(facts, f"line {n}: ")) for n, facts in enumerate(objects[1:-1], start=2)]
    held = {sha256 for speaker in speakers for e in speaker.enrollments for sha256 in e.new.embeddings}
    if held and not held & set(models):
        raise TransferRefused(
            f"its vectors are of the models {', '.join(sorted(s[:12] for s in held))}, none of which is "
            "served here. Serve the same model, or enrol the recordings again"
        )
    return speakers


@dataclass(frozen=True)
class _EnrollmentLine:
    id: str
    new: NewEnrollment


@dataclass(frozen=True)
class _SpeakerLine:
    id: str
    name: str | None
    groups: list[str]
    metadata: dict[str, Any]
    opted_out: bool
    consent: dict[str, object] | None
    expires_at: datetime | None
    enrollments: list[_EnrollmentLine]


class _Fields:
    """The fields of one JSON object; each `get` raises TransferRefused, naming the field by its `place`."""

    def __init__(self, values: object, place: str) -> None:
        self._place = place
        self._values: dict[str, Any] = self._typed(values, place.rstrip(": ."), dict)

    def get(self, name: str, *types: type[Any]) -> Any:
        if name not in self._values:
            raise TransferRefused(f"{self._place}{name} is missing")
        return self._typed(self._values[name], f"{self._place}{name}", *types)

    def band(self) -> Band:
        """The band of a recording; files of before it was measured do not have it."""
        return "narrow" if self._values.get("band") == "narrow" else "wide"

    def number(self, name: str, *types: type[Any]) -> Any:
        value = self.get(name, int, float, *types)
        return value if value is None else float(value)

    def moment(self, name: str, *types: type[Any]) -> datetime | None:
        text = self.get(name, str, *types)
        try:
            return None if text is None else datetime.fromisoformat(text)
        except ValueError as error:
            raise TransferRefused(f"{self._place}{name} is no moment in ISO 8601") from error

    def texts(self, name: str) -> list[str]:
        values = self.get(name, list)
        return [self._typed(value, f"{self._place}{name}", str) for value in values]

    def objects(self, name: str) -> "list[_Fields]":
        values = self.get(name, list)
        return [_Fields(value, f"{self._place}{name}[{n}].") for n, value in enumerate(values)]

    def nested(self, name: str) -> "_Fields | None":
        value = self.get(name, dict, _NONE)
        return None if value is None else _Fields(value, f"{self._place}{name}.")

    def vectors(self, name: str) -> dict[str, Vector]:
        values = self.get(name, dict)
        return {sha256: self._vector(text, f"{self._place}{name}") for sha256, text in values.items()}

    def _vector(self, text: object, what: str) -> Vector:
        try:
            return from_blob(base64.b64decode(self._typed(text, what, str), validate=True))
        except ValueError as error:
            raise TransferRefused(f"{what} holds a vector that cannot be read") from error

    @staticmethod
    def _typed(value: object, what: str, *types: type[Any]) -> Any:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            wanted = " or ".join(_NAMES[kind] for kind in types)
            raise TransferRefused(f"{what} must be {wanted}")
        return value


_NONE = type(None)
_NAMES: dict[type[Any], str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a number",
    float: "a fraction",
    _NONE: "null",
}


def _speaker(facts: _Fields) -> _SpeakerLine:
    consent = facts.nested("consent")
    return _SpeakerLine(
        id=facts.get("id", str),
        name=facts.get("name", str, _NONE),
        groups=facts.texts("groups"),
        metadata=facts.get("metadata", dict),
        opted_out=facts.get("status", str) == "opted_out",
        consent=None if consent is None else _consent(consent),
        expires_at=facts.moment("expires_at", _NONE),
        enrollments=[_enrollment(recording) for recording in facts.objects("enrollments")],
    )


def _consent(facts: _Fields) -> dict[str, object]:
    return {"given_at": facts.moment("given_at"), "reference": facts.get("reference", str, _NONE)}


def _enrollment(facts: _Fields) -> _EnrollmentLine:
    new = NewEnrollment(
        net_speech_s=facts.number("net_speech_s"),
        duration_s=facts.number("duration_s"),
        snr_db=facts.number("snr_db", _NONE),
        clipping=facts.number("clipping"),
        embeddings=facts.vectors("embeddings"),
        band=facts.band(),
    )
    return _EnrollmentLine(facts.get("id", str), new)


def _import(store: Store, tenant: str, speaker: _SpeakerLine, done: Imported) -> None:
    try:
        store.speaker(tenant, speaker.id)
        done.known += 1
    except SpeakerNotFound:
        store.create_speaker(
            tenant,
            speaker.id,
            speaker.name,
            speaker.groups,
            speaker.metadata,
            speaker.consent,
            speaker.expires_at,
        )
        done.created += 1
    present = {enrollment.id for enrollment in store.enrollments(tenant, speaker.id)}
    for enrollment in speaker.enrollments:
        if enrollment.id in present:
            done.already_there += 1
            continue
        store.add_enrollment(tenant, speaker.id, enrollment.new, enrollment.id)
        done.enrollments += 1
    if speaker.opted_out:
        store.update_speaker(tenant, speaker.id, status="opted_out")


def _facts(speaker: Speaker) -> dict[str, Any]:
    return {
        "id": speaker.id,
        "name": speaker.name,
        "groups": list(speaker.groups),
        "metadata": speaker.metadata,
        "status": speaker.status,
        "consent": asdict(speaker.consent) if speaker.consent else None,
        "expires_at": speaker.expires_at,
    }


def _enrollments(store: Store, tenant: str, speaker_id: str) -> Iterator[dict[str, Any]]:
    vectors = store.enrolled_vectors(tenant, speaker_id)
    for one in store.enrollments(tenant, speaker_id):
        yield {
            "id": one.id,
            "net_speech_s": one.net_speech_s,
            "duration_s": one.duration_s,
            "snr_db": one.snr_db,
            "clipping": one.clipping,
            "band": one.band,
            "embeddings": {
                sha256: base64.b64encode(to_blob(vector)).decode()
                for sha256, vector in vectors.get(one.id, {}).items()
            },
        }


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
