"""Speakers taken elsewhere are the same speakers there, with vectors sealed anew."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from enroll_samples import MODEL, REQUIRED_S, recording

from sayso.enroll.store import Store
from sayso.enroll.transfer import export_speakers, import_speakers


def test_facts_consent_expiry_and_vectors_arrive(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    now = datetime.now(UTC)
    consent = {"given_at": now, "reference": "form 7"}
    with (
        Store(tmp_path / "here.db", REQUIRED_S) as here,
        Store(tmp_path / "there" / "s.db", REQUIRED_S) as there,
    ):
        here.create_speaker("t", "ann", "Ann", ["crew"], {"k": 1}, consent, now + timedelta(days=3))
        here.add_enrollment("t", "ann", recording(1, 12.0))
        done = import_speakers(there, "u", export_speakers(here, "t"), {MODEL})
        assert (done.created, done.enrollments, done.refused) == (1, 1, [])
        before, after = here.speaker("t", "ann"), there.speaker("u", "ann")
        for field in ("name", "groups", "metadata", "status", "net_speech_s", "consent", "expires_at"):
            assert getattr(before, field) == getattr(after, field), field
        vectors = [
            store.template(tenant, "ann", MODEL).vector for store, tenant in ((here, "t"), (there, "u"))
        ]
        np.testing.assert_array_equal(*vectors)
