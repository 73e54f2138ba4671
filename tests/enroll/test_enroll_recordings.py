"""A new model: who has to enrol again, and what can be made of the recordings that were kept."""

from dataclasses import replace

import numpy as np
import pytest
from enroll_samples import MODEL, OTHER_MODEL, REQUIRED_S, recording, unit

from sayso.enroll.errors import InvalidEmbedding, ModelMismatch
from sayso.enroll.recordings import Outdated
from sayso.enroll.search.index import index_of
from sayso.enroll.store import Store


def enrol(store: Store, tenant: str, name: str, seed: int, parts: int = 2) -> None:
    store.create_speaker(tenant, name)
    for part in range(parts):
        new = recording(seed + part, REQUIRED_S / parts)
        store.add_enrollment(tenant, name, replace(new, recording=f"{name}{part}".encode()))


@pytest.fixture
def enrolled(store: Store) -> Store:
    """Tenant `kept` keeps recordings, tenant `plain` does not."""
    store.tenants.keep_recordings("kept", True)
    enrol(store, "kept", "alice", 1)
    enrol(store, "kept", "bob", 3)
    enrol(store, "plain", "carol", 5)
    return store


def test_recordings_are_kept_only_where_that_was_chosen(enrolled: Store) -> None:
    assert {t.name: (t.keep_recordings, t.recordings) for t in enrolled.tenants.list()} == {
        "kept": (True, 4),
        "plain": (False, 0),
    }


def test_a_new_model_says_who_must_enrol_again(enrolled: Store) -> None:
    assert enrolled.recordings.outdated(MODEL) == []
    assert enrolled.recordings.outdated(OTHER_MODEL) == [
        Outdated("kept", "alice", True),
        Outdated("kept", "bob", True),
        Outdated("plain", "carol", False),
    ]
    enrolled.update_speaker("kept", "bob", status="opted_out")
    enrolled.create_speaker("kept", "new")
    assert [o.speaker_id for o in enrolled.recordings.outdated(OTHER_MODEL)] == ["alice", "carol"]


def test_kept_recordings_become_templates_of_the_new_model(enrolled: Store, rounding: float) -> None:
    index = index_of(enrolled)
    enrolled.update_speaker("kept", "bob", status="opted_out")
    todo = enrolled.recordings.to_embed(OTHER_MODEL)
    assert [enrolled.recordings.read(number) for number in todo] == [b"alice0", b"alice1"]
    assert enrolled.recordings.embedded(todo[0], OTHER_MODEL, unit(1, 8))
    with pytest.raises(ModelMismatch):  # half of the speech is not enough
        enrolled.template("kept", "alice", OTHER_MODEL)
    assert index.search("kept", OTHER_MODEL, unit(1, 8), 5) == ([], 0)
    assert enrolled.recordings.embedded(todo[1], OTHER_MODEL, unit(1, 8))
    assert not enrolled.recordings.embedded(todo[1], OTHER_MODEL, unit(2, 8))  # done already
    assert np.allclose(enrolled.template("kept", "alice", OTHER_MODEL).vector, unit(1, 8), atol=rounding)
    assert index.search("kept", OTHER_MODEL, unit(1, 8), 5)[0][0].speaker_id == "alice"
    assert enrolled.recordings.to_embed(OTHER_MODEL) == []
    assert enrolled.template("kept", "alice", MODEL).enrollments == 2
    assert index.check() == enrolled.check_templates() == []


def test_somebody_deleted_meanwhile_does_not_come_back(enrolled: Store) -> None:
    todo = enrolled.recordings.to_embed(OTHER_MODEL)
    enrolled.delete_speaker("kept", "alice")
    assert enrolled.recordings.read(todo[0]) is None
    assert not enrolled.recordings.embedded(todo[0], OTHER_MODEL, unit(1, 8))
    with pytest.raises(InvalidEmbedding):
        enrolled.recordings.embedded(todo[2], OTHER_MODEL, 2 * unit(1, 8))
    assert enrolled.check() == enrolled.check_templates() == []


def test_choosing_not_to_keep_them_deletes_them(enrolled: Store) -> None:
    enrolled.tenants.keep_recordings("kept", False)
    assert enrolled.recordings.to_embed(OTHER_MODEL) == []
    assert enrolled.recordings.outdated(OTHER_MODEL)[0] == Outdated("kept", "alice", False)
    assert enrolled.speaker("kept", "alice").enrollments == 2
