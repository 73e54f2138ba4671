"""Speakers and their enrolments in one SQLite file, by tenant; each change is one transaction."""

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self, TypedDict, Unpack, get_args

from enroll import clock, fields, rows, templates
from enroll.database import Database
from enroll.errors import (
    EnrollmentNotFound,
    InvalidEmbedding,
    InvalidField,
    ModelMismatch,
    SpeakerExists,
    SpeakerNotEnrolled,
    SpeakerOptedOut,
)
from enroll.feed import TemplateFeed
from enroll.idempotency import Answers, forget_answers
from enroll.keys import KeyRing
from enroll.types import Enrollment, NewEnrollment, Page, Speaker, Status, Template, Vector
from enroll.vectors import checked_vector, from_blob

MAX_PAGE = 1000


class SpeakerChanges(TypedDict, total=False):
    """What `update_speaker` can change; a key that is absent stays as it is.

    `status="opted_out"` opts the speaker out; any other status withdraws that, and what the speaker is
    then follows from the speech enrolled.
    """

    name: str | None
    groups: Iterable[str]
    metadata: Mapping[str, object] | None
    status: Status


class Store:
    """Everything kept about speakers. Thread-safe; several processes may open the same file.

    A speaker is enrolled once `required_speech_s` seconds of net speech are stored. `keys`, `answers` and
    `feed` are the API keys, the idempotent answers and the index's view of the same file. Any call may
    raise StoreError.
    """

    def __init__(self, path: Path | str, required_speech_s: float) -> None:
        self.required_speech_s = required_speech_s
        self._database = Database(path)
        self.keys = KeyRing(self._database)
        self.answers = Answers(self._database)
        self.feed = TemplateFeed(self._database, required_speech_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; later calls raise StoreUnavailable."""
        self._database.close()

    def check(self) -> list[str]:
        """Read the whole file and return what is damaged; empty when it is sound."""
        return self._database.check()

    # Speakers

    def create_speaker(
        self,
        tenant: str,
        id: str | None = None,
        name: str | None = None,
        groups: Iterable[str] = (),
        metadata: Mapping[str, object] | None = None,
    ) -> Speaker:
        """Add a speaker; without an id one is made. Raises SpeakerExists or InvalidField."""
        speaker_id = fields.new_id("spk") if id is None else fields.checked_id("id", id)
        given = (fields.checked_name(name), fields.metadata_json(metadata))
        group_names = fields.checked_groups(groups)
        now = clock.stamp(clock.now())
        with self._database.write() as connection:
            if rows.exists(connection, tenant, speaker_id):
                raise SpeakerExists(speaker_id)
            number = connection.execute(
                "INSERT INTO speakers (tenant, id, name, metadata, revision, created_at, updated_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING number",
                (tenant, speaker_id, *given, rows.next_revision(connection, tenant), now, now),
            ).fetchone()[0]
            rows.set_groups(connection, number, group_names)
            return self._speaker(connection, tenant, speaker_id)

    def speaker(self, tenant: str, speaker_id: str) -> Speaker:
        """Return one speaker. Raises SpeakerNotFound."""
        with self._database.read() as connection:
            return self._speaker(connection, tenant, speaker_id)

    def speakers(
        self, tenant: str, limit: int = 100, cursor: str | None = None, group: str | None = None
    ) -> Page[Speaker]:
        """Return up to `limit` (1 to 1000) speakers in the order they were created, from `cursor` on.

        Raises InvalidField for a limit out of range or a cursor this method did not give.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidField("limit", f"use 1 to {MAX_PAGE}")
        after = 0 if cursor is None else rows.read_cursor(cursor)
        with self._database.read() as connection:
            found = rows.speaker_rows(connection, tenant, group, after, limit + 1)
        items = tuple(rows.as_speaker(row, self.required_speech_s) for row in found[:limit])
        return Page(items, rows.write_cursor(found[limit - 1]["number"]) if len(found) > limit else None)

    def update_speaker(self, tenant: str, speaker_id: str, **changes: Unpack[SpeakerChanges]) -> Speaker:
        """Change what is given. Raises SpeakerNotFound or InvalidField."""
        columns: dict[str, object] = {}
        if "name" in changes:
            columns["name"] = fields.checked_name(changes["name"])
        if "metadata" in changes:
            columns["metadata"] = fields.metadata_json(changes["metadata"])
        if "status" in changes:
            if changes["status"] not in get_args(Status):
                raise InvalidField("status", f"use one of {', '.join(get_args(Status))}")
            columns["opted_out"] = changes["status"] == "opted_out"
        group_names = fields.checked_groups(changes["groups"]) if "groups" in changes else None
        with self._database.write() as connection:
            row = rows.speaker_row(connection, tenant, speaker_id)
            connection.execute(
                "UPDATE speakers SET name = :name, metadata = :metadata, opted_out = :opted_out"
                " WHERE number = :number",
                {**dict(row), **columns},
            )
            if group_names is not None:
                rows.set_groups(connection, row["number"], group_names)
            if changes:
                rows.touch(connection, tenant, row["number"])
            return self._speaker(connection, tenant, speaker_id)

    def delete_speaker(self, tenant: str, speaker_id: str) -> None:
        """Remove a speaker with everything that names them, bytes included. Raises SpeakerNotFound."""
        with self._database.write() as connection:
            number = rows.speaker_row(connection, tenant, speaker_id)["number"]
            connection.execute("DELETE FROM speakers WHERE number = ?", (number,))
            forget_answers(connection, tenant, speaker_id)
            revision = rows.next_revision(connection, tenant)
            connection.execute("UPDATE tenants SET deleted_revision = ? WHERE tenant = ?", (revision, tenant))
        self._database.purge()

    # Enrolments

    def add_enrollment(
        self, tenant: str, speaker_id: str, new: NewEnrollment, enrollment_id: str | None = None
    ) -> tuple[Speaker, Enrollment]:
        """Add a recording's vectors and make the speaker's templates again.

        An `enrollment_id` the speaker has already adds nothing and returns what is stored. Raises
        SpeakerNotFound, SpeakerOptedOut, InvalidField or InvalidEmbedding; then nothing is stored.
        """
        wanted = fields.new_id("enr") if enrollment_id is None else fields.checked_id("id", enrollment_id)
        fields.check_report(new)
        if not new.embeddings:
            raise InvalidEmbedding("An enrolment needs an embedding of at least one model.")
        vectors = {model: checked_vector(vector) for model, vector in new.embeddings.items()}
        with self._database.write() as connection:
            speaker = rows.speaker_row(connection, tenant, speaker_id)
            stored = rows.enrollment_row(connection, speaker["number"], wanted)
            if stored is None:
                if speaker["opted_out"]:
                    raise SpeakerOptedOut(speaker_id)
                stored = _insert_enrollment(connection, speaker["number"], wanted, new, vectors)
                templates.recompute(connection, speaker["number"])
                rows.touch(connection, tenant, speaker["number"])
            enrollment = rows.as_enrollment(stored, speaker_id)
            return self._speaker(connection, tenant, speaker_id), enrollment

    def enrollments(self, tenant: str, speaker_id: str) -> tuple[Enrollment, ...]:
        """Return a speaker's enrolments, oldest first. Raises SpeakerNotFound."""
        with self._database.read() as connection:
            number = rows.speaker_row(connection, tenant, speaker_id)["number"]
            found = connection.execute(
                "SELECT * FROM enrollments WHERE speaker = ? ORDER BY number", (number,)
            )
            return tuple(rows.as_enrollment(row, speaker_id) for row in found)

    def delete_enrollment(self, tenant: str, speaker_id: str, enrollment_id: str) -> Speaker:
        """Remove one recording's vectors, bytes included, and make the templates without it.

        Raises SpeakerNotFound or EnrollmentNotFound.
        """
        with self._database.write() as connection:
            number = rows.speaker_row(connection, tenant, speaker_id)["number"]
            row = rows.enrollment_row(connection, number, enrollment_id)
            if row is None:
                raise EnrollmentNotFound(speaker_id, enrollment_id)
            connection.execute("DELETE FROM enrollments WHERE number = ?", (row["number"],))
            forget_answers(connection, tenant, enrollment_id)
            templates.recompute(connection, number)
            rows.touch(connection, tenant, number)
            speaker = self._speaker(connection, tenant, speaker_id)
        self._database.purge()
        return speaker

    def template(self, tenant: str, speaker_id: str, model_sha256: str) -> Template:
        """Return what the speaker is compared with under this model.

        Raises SpeakerNotFound, SpeakerOptedOut, SpeakerNotEnrolled (too little speech) or ModelMismatch
        (enough speech, but not with this model).
        """
        with self._database.read() as connection:
            row = rows.speaker_row(connection, tenant, speaker_id)
            stored = connection.execute(
                "SELECT * FROM templates WHERE speaker = ? AND model_sha256 = ?",
                (row["number"], model_sha256),
            ).fetchone()
        speaker = rows.as_speaker(row, self.required_speech_s)
        if speaker.status == "opted_out":
            raise SpeakerOptedOut(speaker_id)
        if speaker.status == "enrolling":
            raise SpeakerNotEnrolled(speaker_id, speaker.remaining_speech_s)
        if stored is None or stored["net_speech_s"] < self.required_speech_s:
            raise ModelMismatch(speaker_id, model_sha256)
        vector = from_blob(stored["vector"])
        return Template(vector, stored["enrollments"], stored["net_speech_s"], model_sha256)

    def _speaker(self, connection: sqlite3.Connection, tenant: str, speaker_id: str) -> Speaker:
        return rows.as_speaker(rows.speaker_row(connection, tenant, speaker_id), self.required_speech_s)


def _insert_enrollment(
    connection: sqlite3.Connection,
    speaker: int,
    enrollment_id: str,
    new: NewEnrollment,
    vectors: Mapping[str, Vector],
) -> sqlite3.Row:
    row: sqlite3.Row = connection.execute(
        "INSERT INTO enrollments"
        " (speaker, id, net_speech_s, duration_s, snr_db, clipping, cohesion, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
        (
            speaker,
            enrollment_id,
            new.net_speech_s,
            new.duration_s,
            new.snr_db,
            new.clipping,
            templates.cohesion(connection, speaker, vectors),
            clock.stamp(clock.now()),
        ),
    ).fetchone()
    templates.store_embeddings(connection, row["number"], vectors)
    return row
