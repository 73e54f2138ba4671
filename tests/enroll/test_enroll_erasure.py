"""What was deleted is in no file of the folder, not even as a fragment."""

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from enroll_samples import MODEL, OTHER_MODEL, REQUIRED_S, recording, unit

from sayso.enroll.store import Store
from sayso.enroll.types import Vector
from sayso.enroll.vectors import to_blob
from sayso.service.access.answers import Answers

FRAGMENT = 16  # bytes: four numbers of a vector


def bytes_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def traces(folder: Path, blobs: Iterable[bytes]) -> int:
    """Count the blobs any fragment of which is in some file."""
    kept = bytes_in(folder)
    return sum(any(blob[at : at + FRAGMENT] in kept for at in range(24, len(blob), 256)) for blob in blobs)


def plain(vectors: Iterable[Vector]) -> list[bytes]:
    return [to_blob(vector) for vector in vectors]


def sealed_in(store: Store) -> set[bytes]:
    """Every sealed value that the database holds, as it is stored."""
    with store._database.read() as connection:
        return {
            row[0]
            for table in ("embeddings", "templates", "recordings")
            for row in connection.execute(f"SELECT sealed FROM {table}")
        }


def test_a_deleted_speaker_leaves_no_bytes(store: Store, path: Path) -> None:
    vectors = {MODEL: unit(1, 512), OTHER_MODEL: unit(2, 192)}
    store.create_speaker("t", "alice", "Alice Anonymous", ["secretgroup"], {"note": "metadatanote"})
    store.add_enrollment("t", "alice", recording(0, REQUIRED_S, vectors), "enrollmentid")
    template = store.template("t", "alice", MODEL).vector
    Answers(store.database).remember(
        "t", "t", "k", "f", 200, b'{"speaker_id":"alice","name":"Alice Anonymous"}'
    )
    words = [b"alice", b"Alice Anonymous", b"secretgroup", b"metadatanote", b"enrollmentid"]
    assert all(word in bytes_in(path.parent) for word in words)
    sealed = sealed_in(store)
    assert traces(path.parent, sealed) == len(sealed) == 4  # two vectors and the templates of them
    assert traces(path.parent, plain([*vectors.values(), template])) == 0
    store.delete_speaker("t", "alice")
    assert [word for word in words if word in bytes_in(path.parent)] == []
    assert traces(path.parent, plain([*vectors.values(), template])) == 0
    assert traces(path.parent, sealed) == 0


def test_a_kept_recording_leaves_no_bytes_either(store: Store, path: Path) -> None:
    voice = random.Random(3).randbytes(100_000)
    store.tenants.keep_recordings("t", True)
    for name in ("alice", "bob"):
        store.create_speaker("t", name)
        store.add_enrollment("t", name, replace(recording(1, REQUIRED_S), recording=voice))
    sealed = sealed_in(store)
    assert traces(path.parent, sealed) == len(sealed) == 6
    store.delete_speaker("t", "alice")
    assert traces(path.parent, sealed) == 3
    store.tenants.keep_recordings("t", False)
    assert traces(path.parent, sealed) == 2
    assert store.tenants.delete("t") == 1
    assert traces(path.parent, [*sealed, voice, *plain([unit(1)])]) == 0


def test_a_deleted_enrolment_leaves_no_bytes(store: Store, path: Path) -> None:
    store.create_speaker("t", "alice")
    store.add_enrollment("t", "alice", recording(0, 5.0, {MODEL: unit(1, 512)}), "e1")
    store.add_enrollment("t", "alice", recording(0, 5.0, {MODEL: unit(2, 512)}), "e2")
    before = sealed_in(store)
    store.delete_enrollment("t", "alice", "e1")
    after = sealed_in(store)
    assert (len(before), len(after), len(before & after)) == (3, 2, 1)
    assert traces(path.parent, before - after) == 0
    assert traces(path.parent, after) == 2
    assert traces(path.parent, plain([unit(1, 512), unit(2, 512)])) == 0


def test_no_bytes_after_much_coming_and_going(store: Store, path: Path) -> None:
    """Pages split and merge on the way; none may keep a copy of what it once held."""
    chance = random.Random(5)
    living: set[str] = set()
    ever: set[bytes] = set()
    for seed in range(150):
        if living and chance.random() < 0.45:
            name = chance.choice(sorted(living))
            living.remove(name)
            store.delete_speaker("t", name)
        else:
            speaker = store.create_speaker("t")
            store.add_enrollment("t", speaker.id, recording(0, 6.0, {MODEL: unit(seed, 192)}))
            living.add(speaker.id)
            ever |= sealed_in(store)
    present = sealed_in(store)
    assert len(present) == 2 * len(living)
    assert len(ever - present) > 80
    assert traces(path.parent, ever - present) == 0
    assert traces(path.parent, present) == len(present)
    assert traces(path.parent, plain(unit(seed, 192) for seed in range(150))) == 0


def test_a_service_clears_what_another_process_could_not(store: Store, path: Path) -> None:
    """The command line deletes while somebody reads, and is gone before they have finished."""
    store.create_speaker("t", "alice")
    with store._database.read() as reader:
        reader.execute("SELECT COUNT(*) FROM speakers").fetchone()
        with Store(path, REQUIRED_S) as other:
            other.delete_speaker("t", "alice")
        assert b"alice" in bytes_in(path.parent)
    store.purge()
    assert b"alice" not in bytes_in(path.parent)
