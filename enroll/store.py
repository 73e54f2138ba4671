"""Speakers and their enrolments in one database, by tenant; each change is one transaction."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Self, TypedDict, Unpack, get_args

from sayso.enroll import checks, clock, enrollments, erasure, fields, speakers, templates
from sayso.enroll.db.address import open_database
from sayso.enroll.db.sql import Database
from sayso.enroll.db.sqlite import Database as SqliteDatabase
from sayso.enroll.errors import (
    EnrollmentNotFound,
    InvalidEmbedding,
    InvalidField,
    MasterKeyUnusable,
    ModelMismatch,
    SpeakerExists,
    SpeakerNotEnrolled,
    SpeakerOptedOut,
    TooManyEnrollments,
)
from sayso.enroll.parts import Shared
from sayso.enroll.recordings import Recordings
from sayso.enroll.rights import Rights
from sayso.enroll.secrets.audit import AuditLog
from sayso.enroll.secrets.master_key import KeyFile, KeySource
from sayso.enroll.secrets.transaction import Transaction
from sayso.enroll.secrets.vault import Vault
from sayso.enroll.tenants import Tenants
from sayso.enroll.types import Enrollment, NewEnrollment, Page, Speaker, Status, Template, Vector
from sayso.enroll.vectors import checked_vector

MAX_PAGE = 1000
MAX_ENROLLMENTS = 100  # of a speaker: each is read again whenever their template is made
KEY_FILE = "master.key"


class SpeakerChanges(TypedDict, total=False):
    """What `update_speaker` can change; a key that is absent stays as it is.

    `status="opted_out"` opts the speaker out; any other status withdraws that, and what the speaker is
    then follows from the speech enrolled.
    """

    name: str | None
    groups: Iterable[str]
    metadata: Mapping[str, object] | None
    consent: Mapping[str, object] | None
    expires_at: datetime | None
    status: Status


class Store:
    """Everything kept about speakers. Thread-safe; several processes may open the same store.

    `path` is that of an SQLite file, or `postgresql://…`; with the latter, searches may be made on the
    `standby` of that address, and `patient` work on all of it has no time limit. A speaker is enrolled once
    `required_speech_s` seconds of net speech are stored. `audit`, `tenants`, `rights` and `recordings` are
    of the same database. What is sealed opens with the key of `key_source`, by default the file
    `master.key` beside an SQLite file, made with a new store. Any call may raise StoreError.
    """

    def __init__(
        self,
        path: Path | str,
        required_speech_s: float,
        key_source: KeySource | None = None,
        standby: str | None = None,
        patient: bool = False,
    ) -> None:
        self.required_speech_s = required_speech_s
        self._database = open_database(path, standby, patient)
        try:
            if key_source is None:
                if not isinstance(self._database, SqliteDatabase):
                    raise MasterKeyUnusable("A store on a server needs a master key: set SAYSO_MASTER_KEY.")
                key_source = KeyFile(Path(path).with_name(KEY_FILE))
            self._vault = Vault(self._database, key_source)
            self.audit = AuditLog(self._vault)
            shared = Shared(self._vault, self.audit, required_speech_s)
            self.tenants = Tenants(shared)
            self.rights = Rights(shared)
            self.recordings = Recordings(shared)
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what the audit log still holds and close the file; later calls raise StoreUnavailable."""
        try:
            self.audit.close()
        finally:
            self._database.close()

    @property
    def database(self) -> Database:
        """The database under the store, for what searches it or copies it as a whole."""
        return self._database

    @property
    def vault(self) -> Vault:
        """The keys that the store is sealed with."""
        return self._vault

    @property
    def problems(self) -> list[str]:
        """What fails in the background now, for readiness and metrics; empty when all goes well."""
        return [] if self.audit.problem is None else [self.audit.problem]

    def check(self) -> list[str]:
        """Read the whole file and return what is damaged; empty when it is sound."""
        return self._database.check()

    def check_templates(self) -> list[str]:
        """Open every sealed value and compare each template with its enrolments; returns what is wrong."""
        with self._vault.read() as transaction:
            return checks.template_problems(transaction)

    def rebuild_templates(self) -> int:
        """Make every template again from its enrolments; returns of how many speakers. Raises SealBroken."""
        with self._vault.write() as transaction:
            return checks.rebuild_templates(transaction)

    def backups(self) -> list[tuple[str, str]]:
        """Return (when, where) of the backups made, oldest first. A file may have been removed since."""
        with self._vault.read() as transaction:
            rows = transaction.execute("SELECT * FROM backups ORDER BY made_at").fetchall()
        return [(row["made_at"], row["path"]) for row in rows]

    # Speakers

    def create_speaker(
        self,
        tenant: str,
        id: str | None = None,
        name: str | None = None,
        groups: Iterable[str] = (),
        metadata: Mapping[str, object] | None = None,
        consent: Mapping[str, object] | None = None,
        expires_at: datetime | None = None,
    ) -> Speaker:
        """Add a speaker; without an id one is made. Raises SpeakerExists, SpeakerOptedOut or InvalidField.

        `consent` has `given_at` (an aware datetime) and, if wanted, a `reference`.
        """
        speaker_id = fields.new_id("spk") if id is None else fields.checked_id("id", id)
        given = (
            fields.checked_name(name),
            fields.metadata_json(metadata),
            fields.consent_json(consent),
            fields.checked_expiry(expires_at),
        )
        group_names = fields.checked_groups(groups)
        now = clock.stamp(clock.now())
        with self._vault.write(tenant) as transaction:
            if speakers.exists(transaction, tenant, speaker_id):
                raise SpeakerExists(speaker_id)
            self._erase_expired(transaction, tenant, speaker_id)
            if erasure.has_opted_out(transaction, tenant, speaker_id):
                raise SpeakerOptedOut(speaker_id)
            number = transaction.execute(
                "INSERT INTO speakers (tenant, id, name, metadata, consent, expires_at, revision, created_at,"
                " updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
                (tenant, speaker_id, *given, speakers.next_revision(transaction, tenant), now, now),
            ).fetchone()[0]
            speakers.set_groups(transaction, number, group_names)
            transaction.audit("speaker.created", tenant, speaker_id)
            return self._speaker(transaction, tenant, speaker_id)

    def speaker(self, tenant: str, speaker_id: str) -> Speaker:
        """Return one speaker. Raises SpeakerNotFound."""
        with self._vault.read(tenant) as transaction:
            return self._speaker(transaction, tenant, speaker_id)

    def speakers(
        self, tenant: str, limit: int = 100, cursor: str | None = None, group: str | None = None
    ) -> Page[Speaker]:
        """Return up to `limit` (1 to 1000) speakers in the order they were created, from `cursor` on.

        Raises InvalidField for a limit out of range or a cursor this method did not give.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidField("limit", f"use 1 to {MAX_PAGE}")
        after = 0 if cursor is None else speakers.read_cursor(cursor)
        with self._vault.read(tenant) as transaction:
            found = speakers.speaker_rows(transaction, tenant, group, after, limit + 1)
        items = tuple(speakers.as_speaker(row, self.required_speech_s) for row in found[:limit])
        return Page(items, speakers.write_cursor(found[limit - 1]["number"]) if len(found) > limit else None)

    def update_speaker(self, tenant: str, speaker_id: str, **changes: Unpack[SpeakerChanges]) -> Speaker:
        """Change what is given. Raises SpeakerNotFound or InvalidField."""
        columns: dict[str, object] = {}
        if "name" in changes:
            columns["name"] = fields.checked_name(changes["name"])
        if "metadata" in changes:
            columns["metadata"] = fields.metadata_json(changes["metadata"])
        if "consent" in changes:
            columns["consent"] = fields.consent_json(changes["consent"])
        if "expires_at" in changes:
            columns["expires_at"] = fields.checked_expiry(changes["expires_at"])
        if "status" in changes and changes["status"] not in get_args(Status):
            raise InvalidField("status", f"use one of {', '.join(get_args(Status))}")
        group_names = fields.checked_groups(changes["groups"]) if "groups" in changes else None
        with self._vault.write(tenant) as transaction:
            row = speakers.speaker_row(transaction, tenant, speaker_id)
            transaction.execute(
                "UPDATE speakers SET name = :name, metadata = :metadata, consent = :consent,"
                " expires_at = :expires_at WHERE number = :number",
                {**dict(row), **columns},
            )
            if "status" in changes:
                erasure.set_opted_out(transaction, tenant, speaker_id, changes["status"] == "opted_out")
            if group_names is not None:
                speakers.set_groups(transaction, row["number"], group_names)
            if changes:
                speakers.touch(transaction, tenant, row["number"])
                facts = {"status": changes["status"]} if "status" in changes else {}
                transaction.audit("speaker.updated", tenant, speaker_id, changed=sorted(changes), **facts)
            return self._speaker(transaction, tenant, speaker_id)

    def delete_speaker(self, tenant: str, speaker_id: str) -> list[tuple[str, str]]:
        """Remove a speaker with everything that names them, bytes included. Raises SpeakerNotFound.

        The id of one who had opted out stays blocked. Returns (when, where) of the backups made while the
        speaker was there: they still hold them, sealed, unless somebody has removed the file.
        """
        with self._vault.write(tenant) as transaction:
            row = speakers.speaker_row(transaction, tenant, speaker_id)
            erasure.erase_speaker(transaction, row)
            transaction.audit("speaker.deleted", tenant, speaker_id)
        self._database.purge()
        return [backup for backup in self.backups() if backup[0] >= row["created_at"]]

    def purge(self) -> None:
        """Clear what a long reader, in whichever process, kept in the write-ahead log so far."""
        self._database.purge_pending()

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
        with self._vault.write(tenant) as transaction:
            speaker = speakers.speaker_row(transaction, tenant, speaker_id)
            stored = enrollments.enrollment_row(transaction, speaker["number"], wanted)
            if stored is None:
                if speaker["opted_out"]:
                    raise SpeakerOptedOut(speaker_id)
                if speaker["enrollments"] >= MAX_ENROLLMENTS:
                    raise TooManyEnrollments(speaker_id, MAX_ENROLLMENTS)
                stored = enrollments.insert_enrollment(transaction, speaker, wanted, new, vectors)
                templates.recompute(transaction, tenant, speaker["number"])
                speakers.touch(transaction, tenant, speaker["number"])
                transaction.audit("enrollment.added", tenant, speaker_id)
            enrollment = enrollments.as_enrollment(stored, speaker_id)
            return self._speaker(transaction, tenant, speaker_id), enrollment

    def enrollments(self, tenant: str, speaker_id: str) -> tuple[Enrollment, ...]:
        """Return a speaker's enrolments, oldest first. Raises SpeakerNotFound."""
        with self._vault.read(tenant) as transaction:
            number = speakers.speaker_row(transaction, tenant, speaker_id)["number"]
            found = transaction.execute(
                "SELECT * FROM enrollments WHERE speaker = ? ORDER BY number", (number,)
            )
            return tuple(enrollments.as_enrollment(row, speaker_id) for row in found)

    def enrolled_vectors(self, tenant: str, speaker_id: str) -> dict[str, dict[str, Vector]]:
        """Return each enrolment's vectors by model sha256, to take elsewhere. Raises SpeakerNotFound."""
        found: dict[str, dict[str, Vector]] = {}
        with self._vault.read(tenant) as transaction:
            number = speakers.speaker_row(transaction, tenant, speaker_id)["number"]
            stored = transaction.execute(
                "SELECT id, number, model_sha256, sealed FROM enrollments JOIN embeddings"
                " ON enrollment = number WHERE speaker = ?",
                (number,),
            )
            for row in stored:
                vector = templates.read_embedding(
                    transaction, row["number"], row["model_sha256"], row["sealed"]
                )
                found.setdefault(row["id"], {})[row["model_sha256"]] = vector
        return found

    def delete_enrollment(self, tenant: str, speaker_id: str, enrollment_id: str) -> Speaker:
        """Remove one recording's vectors, bytes included, and make the templates without it.

        Raises SpeakerNotFound or EnrollmentNotFound.
        """
        with self._vault.write(tenant) as transaction:
            number = speakers.speaker_row(transaction, tenant, speaker_id)["number"]
            row = enrollments.enrollment_row(transaction, number, enrollment_id)
            if row is None:
                raise EnrollmentNotFound(speaker_id, enrollment_id)
            erasure.erase_enrollment(transaction, tenant, number, row)
            transaction.audit("enrollment.deleted", tenant, speaker_id)
            speaker = self._speaker(transaction, tenant, speaker_id)
        self._database.purge()
        return speaker

    def template(self, tenant: str, speaker_id: str, model_sha256: str) -> Template:
        """Return what the speaker is compared with under this model.

        Raises SpeakerNotFound, SpeakerOptedOut, SpeakerNotEnrolled (too little speech) or ModelMismatch
        (enough speech, but not with this model).
        """
        with self._vault.read(tenant) as transaction:
            row = speakers.speaker_row(transaction, tenant, speaker_id)
            stored = transaction.execute(
                "SELECT * FROM templates WHERE speaker = ? AND model_sha256 = ?",
                (row["number"], model_sha256),
            ).fetchone()
            vector = None
            if stored is not None:
                sealed = stored[templates.column(transaction)]
                vector = templates.read_template(transaction, row["number"], model_sha256, sealed)
        speaker = speakers.as_speaker(row, self.required_speech_s)
        if speaker.status == "opted_out":
            raise SpeakerOptedOut(speaker_id)
        if speaker.status == "enrolling":
            raise SpeakerNotEnrolled(speaker_id, speaker.remaining_speech_s)
        if vector is None or stored["net_speech_s"] < self.required_speech_s:
            raise ModelMismatch(speaker_id, model_sha256)
        return Template(vector, stored["enrollments"], stored["net_speech_s"], model_sha256)

    def _speaker(self, transaction: Transaction, tenant: str, speaker_id: str) -> Speaker:
        return speakers.as_speaker(
            speakers.speaker_row(transaction, tenant, speaker_id), self.required_speech_s
        )

    def _erase_expired(self, transaction: Transaction, tenant: str, speaker_id: str) -> None:
        """Make room for a speaker whose predecessor by id has expired and waits for its erasure."""
        for row in erasure.expired_rows(transaction):
            if (row["tenant"], row["id"]) == (tenant, speaker_id):
                erasure.erase_speaker(transaction, row)
                transaction.audit("speaker.expired", tenant, speaker_id)
