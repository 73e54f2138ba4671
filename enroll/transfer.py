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
    metadata, and gets the enrolments that are missing. Raises TransferRefused for a file that is not whole,
    or that holds no vector of a model served here; then nothing is changed.
    """
    speakers = _checked(lines, models)
    done = Imported()
    for facts in speakers:
        try:
            _import(store, tenant, facts, done)
        except EnrollError as error:
            done.refused.append((facts["id"], str(error)))
        advance()
    return done


def _checked(lines: Iterable[str], models: Collection[str]) -> list[dict[str, Any]]:
    """The speakers of a whole file."""
    try:
        objects = [json.loads(line) for line in lines if line.strip()]
    except (ValueError, RecursionError) as error:
        raise TransferRefused("it is not an export of speakers: a line is not JSON") from error
    if not objects or not all(isinstance(one, dict) for one in objects):
        raise TransferRefused("it is not an export of speakers")
    if objects[0].get("sayso") != "speakers":
        raise TransferRefused("it is not an export of speakers")
    if objects[0].get("format") != FORMAT:
        raise TransferRefused(f"it has format {objects[0].get('format')}, this version reads {FORMAT}")
    speakers = objects[1:-1]
    if objects[-1].get("end") != len(speakers):
        raise TransferRefused("it is cut off: export it again")
    held = {sha256 for one in speakers for e in one["enrollments"] for sha256 in e["embeddings"]}
    if held and not held & set(models):
        raise TransferRefused(
            f"its vectors are of the models {', '.join(sorted(s[:12] for s in held))}, none of which is "
            "served here. Serve the same model, or enrol the recordings again"
        )
    return speakers


def _import(store: Store, tenant: str, facts: dict[str, Any], done: Imported) -> None:
    try:
        store.speaker(tenant, facts["id"])
        done.known += 1
    except SpeakerNotFound:
        consent, expires = facts["consent"], facts["expires_at"]
        store.create_speaker(
            tenant,
            facts["id"],
            facts["name"],
            facts["groups"],
            facts["metadata"],
            consent and {**consent, "given_at": datetime.fromisoformat(consent["given_at"])},
            expires and datetime.fromisoformat(expires),
        )
        done.created += 1
    there = {one.id for one in store.enrollments(tenant, facts["id"])}
    for one in facts["enrollments"]:
        if one["id"] in there:
            done.already_there += 1
            continue
        vectors = {sha256: _vector(text) for sha256, text in one["embeddings"].items()}
        report = (one["net_speech_s"], one["duration_s"], one["snr_db"], one["clipping"])
        store.add_enrollment(tenant, facts["id"], NewEnrollment(*report, vectors), one["id"])
        done.enrollments += 1
    if facts["status"] == "opted_out":
        store.update_speaker(tenant, facts["id"], status="opted_out")


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
            "embeddings": {
                sha256: base64.b64encode(to_blob(vector)).decode()
                for sha256, vector in vectors.get(one.id, {}).items()
            },
        }


def _vector(text: str) -> Vector:
    try:
        return from_blob(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise TransferRefused("a vector in it cannot be read") from error


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
