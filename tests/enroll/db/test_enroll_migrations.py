"""A store written by any earlier version opens as this one, and loses nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from enroll_samples import MODEL, OTHER_MODEL, REQUIRED_S, normalised, unit

from sayso.enroll import clock
from sayso.enroll.db.sqlite_schema import MIGRATIONS
from sayso.enroll.enrollments import salted_digest
from sayso.enroll.errors import RecordingReplayed, SpeakerOptedOut
from sayso.enroll.search.index import SpeakerIndex
from sayso.enroll.store import Store
from sayso.enroll.vectors import to_blob
from sayso.service.access.attempts import AttemptLimits, Attempts
from sayso.service.access.keys import KeyRing

STORES = Path(__file__).parent / "stores"  # <version>.sql: a file that a release of that version wrote
VERSIONS = range(1, len(MIGRATIONS))


def written_by(version: int, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    released = max(int(file.stem) for file in STORES.glob("*.sql") if int(file.stem) <= version)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript((STORES / f"{released}.sql").read_text())
        for migration in MIGRATIONS[released:version]:  # versions in between were in no release
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_it_opens_with_everything_in_it(version: int, path: Path) -> None:
    with Store(written_by(version, path), REQUIRED_S) as store:
        alice = store.speaker("t", "alice")
        assert (alice.name, alice.groups, alice.metadata) == ("Alice", ("g", "h"), {"note": 1})
        assert (alice.status, alice.enrollments, alice.net_speech_s) == ("enrolled", 2, 12.0)
        assert (alice.consent, alice.expires_at) == (None, None)
        assert [e.id for e in store.enrollments("t", "alice")] == ["e1", "e2"]
        vector = store.template("t", "alice", MODEL).vector
        assert np.allclose(vector, normalised(unit(1) + unit(2)), atol=1e-6)
        assert store.template("t", "alice", OTHER_MODEL).vector.shape == (8,)
        with pytest.raises(SpeakerOptedOut):
            store.template("t", "bob", MODEL)
        assert store.speaker("u", "alice").status == "enrolling"
        key = KeyRing(store.vault).authenticate("an-old-key-of-16-or-more")
        assert key is not None
        assert key.scopes >= {"read", "verify"}
        assert store.create_speaker("t", "new")
        assert store.check() == store.check_templates() == []
        index = SpeakerIndex(store)
        assert index.search("t", MODEL, vector, 5)[0][0].speaker_id == "alice"
        assert index.check() == []
        assert store.audit.verify().broken is None


@pytest.mark.parametrize("version", [v for v in VERSIONS if 3 <= v <= 6])
def test_locks_and_used_recordings_are_kept(version: int, path: Path) -> None:
    limits = AttemptLimits(0, 0.0, 3, 30.0)
    with closing(sqlite3.connect(written_by(version, path), isolation_level=None)) as connection:
        number, enrolled = connection.execute(
            "SELECT speakers.number, enrollments.number FROM speakers JOIN enrollments"
            " ON speaker = speakers.number WHERE tenant = 't' AND speakers.id = 'alice'"
        ).fetchone()
        bob = connection.execute("SELECT number FROM speakers WHERE tenant = 't' AND id = 'bob'").fetchone()
        now = clock.stamp(clock.now())
        digests = [salted_digest("t", "alice", sound) for sound in (b"enrolled", b"used")]
        connection.execute(
            "INSERT INTO heard VALUES (?, ?, 'enroll', 'e1', ?, '2020')", (number, digests[0], enrolled)
        )
        connection.execute(
            "INSERT INTO heard VALUES (?, ?, 'verify', 'a', NULL, ?)", (number, digests[1], now)
        )
        connection.execute("INSERT INTO attempts VALUES (?, 3, 'a', ?)", (*bob, now))
    with Store(path, REQUIRED_S) as store:
        for sound in (b"enrolled", b"used"):
            with pytest.raises(RecordingReplayed):
                Attempts(store.database).succeeded("t", "alice", "verify", sound, "b", limits)
        assert Attempts(store.database).barred("t", "b", limits) == {"bob"}


@pytest.mark.parametrize("version", VERSIONS)
def test_no_vector_stays_readable(version: int, path: Path) -> None:
    vectors = [unit(1), unit(2), unit(3), unit(5), unit(11, 8), unit(12, 8)]
    written_by(version, path)
    if version == 1:
        assert all(to_blob(vector) in path.read_bytes() for vector in vectors)
    with Store(path, REQUIRED_S):
        kept = b"".join(file.read_bytes() for file in path.parent.iterdir())
        assert [vector for vector in vectors if to_blob(vector)[:16] in kept] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_result_is_the_same_as_a_new_file(version: int, path: Path) -> None:
    def columns(file: Path) -> dict[str, list[str]]:
        with Store(file, REQUIRED_S), closing(sqlite3.connect(file)) as connection:
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema")]
            return {n: [c[1] for c in connection.execute(f"PRAGMA table_info({n})")] for n in names}

    assert columns(written_by(version, path)) == columns(path.with_name("new.db"))
