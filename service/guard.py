"""Holds a call to what it may try: see `sayso.enroll.attempts` for the limits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sayso.enroll.attempts import AttemptLimits, Attempts, Heard
from sayso.enroll.errors import RecordingReplayed


@dataclass(frozen=True)
class Guard:
    """One attempt of a tenant's caller; an `attempt` of None is the operator, who is held to nothing."""

    attempts: Attempts
    tenant: str
    attempt: str | None
    limits: AttemptLimits

    def barred(self) -> frozenset[str]:
        """Speakers whom no attempt may be made on now."""
        return frozenset() if self.attempt is None else self._barred(self.attempt)

    def admit(self, speaker_ids: Collection[str]) -> frozenset[str]:
        """Nobody barred is left when it returns; raises AttemptsDelayed or SpeakerLocked for the first."""
        if self.attempt is not None:
            barred = self._barred(self.attempt)
            for speaker_id in speaker_ids:
                if speaker_id in barred:
                    self.attempts.admit(self.tenant, speaker_id, self.attempt, self.limits)
        return frozenset()

    def settle(self, call: Heard, speaker_id: str, success: bool, recording: bytes) -> None:
        """Write down how it ended; raises RecordingReplayed, a failure too, for a success used before."""
        if self.attempt is None:
            return
        if not success:
            self.attempts.failed(self.tenant, speaker_id, self.attempt)
            return
        try:
            self.attempts.succeeded(self.tenant, speaker_id, call, recording, self.attempt, self.limits)
        except RecordingReplayed:
            self.attempts.failed(self.tenant, speaker_id, self.attempt)
            raise

    def _barred(self, attempt: str) -> frozenset[str]:
        return self.attempts.barred(self.tenant, attempt, self.limits)
