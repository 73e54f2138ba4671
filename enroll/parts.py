"""What the parts of one store share."""

from dataclasses import dataclass

from sayso.enroll.secrets.audit import AuditLog
from sayso.enroll.secrets.vault import Vault


@dataclass(frozen=True)
class Shared:
    """The vault and the audit log of one store, and the seconds of speech that its speakers need."""

    vault: Vault
    audit: AuditLog
    required_speech_s: float
