"""The errors of `sayso.enroll`, in one tree.

EnrollError
├── SpeakerNotFound, SpeakerExists
├── SpeakerNotEnrolled, SpeakerOptedOut, ModelMismatch    the speaker cannot be compared now
├── AttemptsDelayed, SpeakerLocked                        too many failures in a row
├── RecordingReplayed, SameRecording, UnlikeEarlier       the recording may not be used for this
├── EnrollmentNotFound, TooManyEnrollments
├── KeyNotFound
├── IdempotencyKeyReused
├── TransferRefused                                       a file of exported speakers
├── InvalidField                                          the caller's value
├── InvalidEmbedding                                      the model's value
├── TenantNotFound
└── StoreError
    ├── StoreForeign, StoreTooNew, StoreCorrupt           the file cannot be used as it is
    ├── StoreIncomplete, CopyRefused                      copying to another database
    ├── MasterKeyUnusable, SealBroken                     what is sealed cannot be opened
    ├── BackupRefused                                     a backup cannot be made or restored there
    ├── StoreInUse                                        another server has it
    └── StoreBusy, StoreUnavailable                       it may work later

Each class has a stable `code`; each message is a sentence that says what to do.
"""

from collections.abc import Sequence

from sayso.domain.errors import SaysoError


class EnrollError(SaysoError):
    """Base of this tree; `code` is stable, `str(error)` is for people."""

    code = "enroll_error"


class SpeakerNotFound(EnrollError):
    """No such speaker in this tenant."""

    code = "speaker_not_found"

    def __init__(self, *speaker_ids: str) -> None:
        self.speaker_ids = speaker_ids
        super().__init__(f"No speaker {_quoted(speaker_ids)}. Check the id, or create the speaker first.")


class SpeakerExists(EnrollError):
    """The id is taken in this tenant."""

    code = "speaker_exists"

    def __init__(self, speaker_id: str) -> None:
        super().__init__(f'Speaker "{speaker_id}" exists already. Use it, or choose another id.')


class SpeakerNotEnrolled(EnrollError):
    """Too little speech has been enrolled for a comparison."""

    code = "speaker_not_enrolled"

    def __init__(self, speaker_id: str, remaining_speech_s: float) -> None:
        self.remaining_speech_s = remaining_speech_s
        super().__init__(
            f'Speaker "{speaker_id}" needs {remaining_speech_s:.1f} s more speech. '
            "Add enrolment recordings, then try again."
        )


class SpeakerOptedOut(EnrollError):
    """The speaker opted out of being compared or enrolled."""

    code = "speaker_opted_out"

    def __init__(self, speaker_id: str) -> None:
        super().__init__(
            f'Speaker "{speaker_id}" has opted out. Use another way to identify them, '
            "or withdraw the opt-out with their consent."
        )


class UnlikeEarlier(EnrollError):
    """The recording's voice is too unlike the speaker's earlier enrolments."""

    code = "unlike_earlier"

    def __init__(self, speaker_id: str) -> None:
        super().__init__(
            f'The recording does not sound like the earlier ones of speaker "{speaker_id}". '
            "Check whose it is, and the id."
        )


class SameRecording(EnrollError):
    """The same recording is already an enrolment of the speaker."""

    code = "same_recording"

    def __init__(self, speaker_id: str, enrollment_id: str) -> None:
        super().__init__(
            f'This very recording is the enrolment "{enrollment_id}" of speaker "{speaker_id}" already. '
            "Send another recording."
        )


class AttemptsDelayed(EnrollError):
    """Too many attempts on the speaker failed in a row; the next may be made after `retry_after_s`."""

    code = "attempts_delayed"

    def __init__(self, speaker_id: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(
            f'Attempts on speaker "{speaker_id}" failed too often in a row. '
            f"Wait {retry_after_s:.0f} s, or use another way to identify them."
        )


class SpeakerLocked(EnrollError):
    """Far too many attempts on the speaker failed in a row; somebody has to unlock them."""

    code = "speaker_locked"

    def __init__(self, speaker_id: str) -> None:
        super().__init__(
            f'Speaker "{speaker_id}" is locked after too many failed attempts. Use another way to identify '
            "them, then unlock them."
        )


class RecordingReplayed(EnrollError):
    """The same recording was accepted for this speaker before, or is an enrolment of theirs."""

    code = "recording_replayed"

    def __init__(self, speaker_id: str) -> None:
        super().__init__(
            f'This very recording was used for speaker "{speaker_id}" before. Record the voice anew; '
            "a retry carries the first request's Idempotency-Key."
        )


class ModelMismatch(EnrollError):
    """The speaker is enrolled, but not (or not enough) with this model."""

    code = "model_mismatch"

    def __init__(self, speaker_id: str, model_sha256: str) -> None:
        super().__init__(
            f'Speaker "{speaker_id}" has no complete template for model {model_sha256[:12]}: they were '
            "enrolled before it was served. Enrol their recordings again, or name the model that they were "
            "enrolled with (?model=NAME)."
        )


class EnrollmentNotFound(EnrollError):
    """No such enrolment of this speaker."""

    code = "enrollment_not_found"

    def __init__(self, speaker_id: str, enrollment_id: str) -> None:
        super().__init__(
            f'Speaker "{speaker_id}" has no enrolment "{enrollment_id}". List them to see the ids.'
        )


class TooManyEnrollments(EnrollError):
    """The speaker has the largest number of enrolments allowed."""

    code = "too_many_enrollments"

    def __init__(self, speaker_id: str, limit: int) -> None:
        super().__init__(
            f'Speaker "{speaker_id}" has {limit} enrolments, the most there may be. Delete some.'
        )


class KeyNotFound(EnrollError):
    """No API key has this id."""

    code = "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(f'No API key "{key_id}". List the keys to see their ids.')


class TenantNotFound(EnrollError):
    """Nothing is kept for this tenant."""

    code = "tenant_not_found"

    def __init__(self, tenant: str) -> None:
        super().__init__(f'No tenant "{tenant}". List the tenants to see their names.')


class IdempotencyKeyReused(EnrollError):
    """One idempotency key came with two different requests."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used for a different request within the last 24 hours. Use a new key."
        )


class TransferRefused(EnrollError):
    """A file of exported speakers cannot be imported; nothing was changed."""

    code = "transfer_refused"

    def __init__(self, problem: str) -> None:
        super().__init__(f"The file cannot be imported: {problem}.")


class InvalidField(EnrollError):
    """A value given by the caller is not acceptable; `field` names it."""

    code = "invalid_field"

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        super().__init__(f"{field}: {problem}")


class InvalidEmbedding(EnrollError):
    """A vector is malformed or has another dimension than its model's; nothing was stored or compared."""

    code = "invalid_embedding"


class StoreError(EnrollError):
    """The database itself cannot answer."""

    code = "store_error"


class StoreForeign(StoreError):
    """The file is another program's database."""

    code = "store_foreign"

    def __init__(self, path: object) -> None:
        super().__init__(
            f"{path} is a database of another program; it was left untouched. Point Sayso at its own folder."
        )


class StoreTooNew(StoreError):
    """A newer Sayso has written the file."""

    code = "store_too_new"

    def __init__(self, path: object, version: int, known: int) -> None:
        super().__init__(
            f"{path} has format {version} and this Sayso knows up to {known}. "
            "Upgrade Sayso, or restore a backup made before the upgrade."
        )


class StoreCorrupt(StoreError):
    """The file is damaged."""

    code = "store_corrupt"

    def __init__(self, path: object, detail: object) -> None:
        super().__init__(
            f"{path} is damaged ({detail}). Stop Sayso, move the file aside and run "
            "`sayso restore` with a backup."
        )


class StoreIncomplete(StoreError):
    """A copy into the store was begun and not finished."""

    code = "store_incomplete"

    def __init__(self, path: object) -> None:
        super().__init__(
            f"{path} is half a copy of another store. Run `sayso store copy` again to finish it."
        )


class CopyRefused(StoreError):
    """A store cannot be copied there; what was there is untouched."""

    code = "copy_refused"


class MasterKeyUnusable(StoreError):
    """The master key is missing, malformed, or not the one that the store is sealed with."""

    code = "master_key_unusable"


class SealBroken(StoreError):
    """A sealed value does not open under its key: it was damaged, or moved from another row."""

    code = "seal_broken"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"The sealed {what} does not open: it was damaged or exchanged. Run `sayso check` and "
            "restore a backup, or delete what it names and enrol again."
        )


class BackupRefused(StoreError):
    """A backup cannot be written there, or does not belong to this store."""

    code = "backup_refused"


class StoreInUse(StoreError):
    """Another server has this store open."""

    code = "store_in_use"

    def __init__(self, path: object, holder: str) -> None:
        super().__init__(
            f"{path} is held by another server ({holder}). Stop it first, or give this one its own "
            "SAYSO_DATA_DIR."
        )


class StoreBusy(StoreError):
    """Another process kept the write lock for too long."""

    code = "store_busy"

    def __init__(self, path: object) -> None:
        super().__init__(f"{path} is being written by another process. Try again in a moment.")


class StoreUnavailable(StoreError):
    """The store cannot be read or written: disk full, server away, read-only, closed."""

    code = "store_unavailable"

    def __init__(
        self, path: object, detail: object, fix: str = "Check the disk's space and the file's permissions."
    ) -> None:
        super().__init__(f"{path} cannot be used ({detail}). {fix}")


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
