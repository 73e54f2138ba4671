"""What was deleted is in no file of the folder, not even as a fragment."""

import random
from pathlib import Path

import numpy as np
from enroll_samples import MODEL, OTHER_MODEL, REQUIRED_S, recording, unit

from enroll.store import Store
from enroll.types import Vector
from enroll.vectors import to_blob

FRAGMENT = 16  # bytes: four numbers of a vector


def bytes_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


def traces(folder: Path, vectors: list[Vector]) -> int:
    """Count the vectors any fragment of which is in some file."""
    kept = bytes_in(folder)
    blobs = [to_blob(vector) for vector in vectors]
    return sum(any(blob[at : at + FRAGMENT] in kept for at in range(0, len(blob), 256)) for blob in blobs)


def test_a_deleted_speaker_leaves_no_bytes(store: Store, path: Path) -> None:
    vectors = {MODEL: unit(1, 512), OTHER_MODEL: unit(2, 192)}
    store.create_speaker("t", "alice", "Alice Anonymous", ["secretgroup"], {"note": "metadatanote"})
    store.add_enrollment("t", "alice", recording(0, REQUIRED_S, vectors), "enrollmentid")
    template = store.template("t", "alice", MODEL).vector
    store.answers.remember("t", "t", "k", "f", 200, b'{"speaker_id":"alice","name":"Alice Anonymous"}')
    words = [b"alice", b"Alice Anonymous", b"secretgroup", b"metadatanote", b"enrollmentid"]
    assert all(word in bytes_in(path.parent) for word in words)
    assert traces(path.parent, [*vectors.values(), template]) == 3
    store.delete_speaker("t", "alice")
    assert [word for word in words if word in bytes_in(path.parent)] == []
    assert traces(path.parent, [*vectors.values(), template]) == 0


def test_a_deleted_enrolment_leaves_no_bytes(store: Store, path: Path) -> None:
    store.create_speaker("t", "alice")
    store.add_enrollment("t", "alice", recording(0, 5.0, {MODEL: unit(1, 512)}), "e1")
    store.add_enrollment("t", "alice", recording(0, 5.0, {MODEL: unit(2, 512)}), "e2")
    mixed = store.template("t", "alice", MODEL).vector
    store.delete_enrollment("t", "alice", "e1")
    assert traces(path.parent, [unit(1, 512), mixed]) == 0
    assert traces(path.parent, [unit(2, 512)]) == 1


def test_no_bytes_after_much_coming_and_going(store: Store, path: Path) -> None:
    """Pages split and merge on the way; none may keep a copy of what it once held."""
    chance = random.Random(5)
    living: dict[str, Vector] = {}
    dead: list[Vector] = []
    for seed in range(150):
        if living and chance.random() < 0.45:
            name = chance.choice(sorted(living))
            dead.append(living.pop(name))
            store.delete_speaker("t", name)
        else:
            dim = 192
            vector = np.asarray(unit(seed, dim))
            speaker = store.create_speaker("t")
            store.add_enrollment("t", speaker.id, recording(0, 6.0, {MODEL: vector}))
            living[speaker.id] = vector
    assert len(dead) > 40
    assert traces(path.parent, dead) == 0
    assert traces(path.parent, list(living.values())) == len(living)
