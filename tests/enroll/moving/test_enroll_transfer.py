"""Speakers taken elsewhere are the same speakers there, with vectors sealed anew."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enroll_samples import MODEL, REQUIRED_S, recording, unit

from sayso.enroll.errors import TransferRefused
from sayso.enroll.moving.transfer import Imported, export_speakers, import_speakers
from sayso.enroll.store import Store
from sayso.enroll.vectors import to_blob


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


def an_export() -> list[dict[str, Any]]:
    """A whole export of one speaker with everything a speaker can have."""
    vector = base64.b64encode(to_blob(unit(1))).decode()
    enrollment = {
        "id": "e1",
        "net_speech_s": 12,
        "duration_s": 13.5,
        "snr_db": 20.0,
        "clipping": 0.0,
        "embeddings": {MODEL: vector},
    }
    consent = {"given_at": "2026-01-01T00:00:00Z", "reference": "form 7"}
    speaker = {
        "id": "ann",
        "name": "Ann",
        "groups": ["crew"],
        "metadata": {"k": 1},
        "status": "enrolled",
        "consent": consent,
        "expires_at": "2999-01-01T00:00:00Z",
        "enrollments": [enrollment],
    }
    return [{"sayso": "speakers", "format": 1, "tenant": "t"}, speaker, {"end": 1}]


def imported(store: Store, lines: list[dict[str, Any]]) -> Imported:
    return import_speakers(store, "t", [json.dumps(line) for line in lines], {MODEL})


def test_a_whole_export_is_imported(store: Store) -> None:
    done = imported(store, an_export())
    assert (done.created, done.enrollments, done.refused) == (1, 1, [])


WRONG = (None, True, 5, "x", [], {}, [1], {"a": 1}, "2026-13-45", [{}], [[]], {MODEL: 5}, {MODEL: "%"})
PLACES = [
    (),
    *((field,) for field in an_export()[1]),
    *(("consent", field) for field in ("given_at", "reference")),
    *(("enrollments", 0, field) for field in an_export()[1]["enrollments"][0]),
    ("enrollments", 0),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_a_malformed_export_is_refused_and_changes_nothing(store: Store, place: tuple[Any, ...]) -> None:
    """A field that is missing or of another type: the error names it, and is never a traceback."""
    for value in ("missing", *WRONG):
        lines = an_export()
        owner: Any = lines
        for part in (1, *place)[:-1]:
            owner = owner[part]
        last = (1, *place)[-1]
        if value != "missing":
            owner[last] = value
        elif isinstance(owner, dict):
            del owner[last]
        try:
            done = imported(store, lines)
        except TransferRefused:
            assert store.speakers("t").items == ()
        else:  # of the right type: the speaker is taken over, or refused by itself
            assert done.refused or done.created == 1
        for speaker in store.speakers("t").items:
            store.delete_speaker("t", speaker.id)


def test_the_field_that_is_wrong_is_named(store: Store) -> None:
    lines = an_export()
    del lines[1]["enrollments"][0]["clipping"]
    with pytest.raises(TransferRefused, match=r"line 2: enrollments\[0\].clipping is missing"):
        imported(store, lines)
    lines[1]["enrollments"][0]["clipping"] = "none"
    with pytest.raises(TransferRefused, match=r"line 2: enrollments\[0\].clipping must be a number"):
        imported(store, lines)
