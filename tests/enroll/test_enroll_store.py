"""Speakers, enrolments and templates through the store's own calls."""

from collections.abc import Callable

import numpy as np
import pytest
from enroll_samples import MODEL, OTHER_MODEL, REQUIRED_S, normalised, recording, unit

from sayso.enroll.errors import (
    EnrollmentNotFound,
    InvalidEmbedding,
    InvalidField,
    ModelMismatch,
    SpeakerExists,
    SpeakerNotEnrolled,
    SpeakerNotFound,
    SpeakerOptedOut,
    TooManyEnrollments,
)
from sayso.enroll.store import Store
from sayso.service.access.answers import Answers

Opener = Callable[..., Store]


def test_a_new_speaker_is_what_was_given(store: Store) -> None:
    made = store.create_speaker("t", "alice", "Alice A.", ["staff", "board"], {"desk": 4})
    assert made == store.speaker("t", "alice")
    assert (made.name, made.groups, made.metadata) == ("Alice A.", ("board", "staff"), {"desk": 4})
    assert (made.status, made.enrollments, made.net_speech_s, made.remaining_speech_s) == (
        "enrolling",
        0,
        0,
        10,
    )
    assert made.created_at == made.updated_at
    assert made.created_at.endswith("Z")


def test_an_id_is_made_when_none_is_given(store: Store) -> None:
    assert store.create_speaker("t").id.startswith("spk_")


def test_an_id_is_taken_per_tenant(store: Store) -> None:
    store.create_speaker("t", "alice")
    with pytest.raises(SpeakerExists):
        store.create_speaker("t", "alice")
    store.create_speaker("u", "alice")


def test_tenants_do_not_see_each_other(store: Store) -> None:
    store.create_speaker("t", "alice")
    store.add_enrollment("t", "alice", recording(), "e1")
    for call in (
        lambda: store.speaker("u", "alice"),
        lambda: store.update_speaker("u", "alice", name="x"),
        lambda: store.delete_speaker("u", "alice"),
        lambda: store.add_enrollment("u", "alice", recording()),
        lambda: store.enrollments("u", "alice"),
        lambda: store.delete_enrollment("u", "alice", "e1"),
        lambda: store.template("u", "alice", MODEL),
    ):
        with pytest.raises(SpeakerNotFound, match="alice"):
            call()
    assert store.speakers("u").items == ()


def test_pages_walk_the_creation_order(store: Store) -> None:
    names = [store.create_speaker("t", f"s{9 - i}", groups=["odd"] if i % 2 else []).id for i in range(7)]
    store.create_speaker("u", "other")
    seen: list[str] = []
    cursor = None
    while True:
        page = store.speakers("t", limit=3, cursor=cursor)
        seen += [speaker.id for speaker in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == names
    assert [speaker.id for speaker in store.speakers("t", group="odd").items] == names[1::2]
    assert store.speakers("t", group="nobody").items == ()
    assert store.speakers("t", limit=7).next_cursor is None


def test_deleting_between_pages_skips_nobody(store: Store) -> None:
    for name in "abcd":
        store.create_speaker("t", name)
    first = store.speakers("t", limit=2)
    store.delete_speaker("t", "b")
    assert [speaker.id for speaker in store.speakers("t", cursor=first.next_cursor).items] == ["c", "d"]


@pytest.mark.parametrize(
    "cursor", ["", "x", "!!", "MA", "LTE", "MQ==", "MDE", "OTIyMzM3MjAzNjg1NDc3NTgwOA", "é"]
)
def test_a_cursor_of_ones_own_making_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidField) as caught:
        store.speakers("t", cursor=cursor)
    assert caught.value.field == "cursor"


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_range_is_refused(store: Store, limit: int) -> None:
    with pytest.raises(InvalidField):
        store.speakers("t", limit=limit)


def test_updates_change_what_is_given_only(store: Store) -> None:
    made = store.create_speaker("t", "alice", "Alice", ["g"], {"a": 1})
    assert store.update_speaker("t", "alice") == made
    assert store.update_speaker("t", "alice", name=None).name is None
    assert store.update_speaker("t", "alice", groups=["h", "g"]).groups == ("g", "h")
    assert store.update_speaker("t", "alice", metadata=None).metadata == {}
    changed = store.update_speaker("t", "alice", name="A", groups=[], metadata={"b": [1]})
    assert (changed.name, changed.groups, changed.metadata) == ("A", (), {"b": [1]})
    with pytest.raises(InvalidField):
        store.update_speaker("t", "alice", name="B", status="gone")  # type: ignore[arg-type]
    assert store.speaker("t", "alice") == changed


def test_enough_speech_enrols(store: Store) -> None:
    store.create_speaker("t", "alice")
    speaker, first = store.add_enrollment("t", "alice", recording(1, 6.0))
    assert (speaker.status, speaker.enrollments, speaker.remaining_speech_s) == ("enrolling", 1, 4.0)
    assert first.cohesion is None
    with pytest.raises(SpeakerNotEnrolled) as caught:
        store.template("t", "alice", MODEL)
    assert caught.value.remaining_speech_s == 4.0
    speaker, second = store.add_enrollment("t", "alice", recording(2, 4.0))
    assert (speaker.status, speaker.net_speech_s, speaker.remaining_speech_s) == ("enrolled", 10.0, 0.0)
    assert second.cohesion == pytest.approx(float(unit(1) @ unit(2)), abs=1e-6)
    assert store.enrollments("t", "alice") == (first, second)
    assert speaker.updated_at >= speaker.created_at


def test_a_template_is_the_mean_direction(store: Store, rounding: float) -> None:
    store.create_speaker("t", "alice")
    for seed in range(3):
        store.add_enrollment("t", "alice", recording(seed, 4.0))
    template = store.template("t", "alice", MODEL)
    assert np.allclose(template.vector, normalised(sum(unit(seed) for seed in range(3))), atol=rounding)
    assert (template.enrollments, template.net_speech_s, template.model_sha256) == (3, 12.0, MODEL)


def test_deleting_an_enrolment_undoes_it(store: Store) -> None:
    store.create_speaker("t", "alice")
    store.add_enrollment("t", "alice", recording(1, 10.0), "e1")
    before = store.template("t", "alice", MODEL)
    store.add_enrollment("t", "alice", recording(2, 10.0), "e2")
    speaker = store.delete_enrollment("t", "alice", "e2")
    assert (speaker.enrollments, speaker.net_speech_s) == (1, 10.0)
    after = store.template("t", "alice", MODEL)
    assert np.array_equal(after.vector, before.vector)
    assert store.delete_enrollment("t", "alice", "e1").status == "enrolling"
    with pytest.raises(EnrollmentNotFound, match="e1"):
        store.delete_enrollment("t", "alice", "e1")


def test_an_enrolment_id_counts_once(store: Store) -> None:
    store.create_speaker("t", "alice")
    once = store.add_enrollment("t", "alice", recording(1), "e1")
    assert store.add_enrollment("t", "alice", recording(2), "e1") == once
    store.update_speaker("t", "alice", status="opted_out")
    assert store.add_enrollment("t", "alice", recording(2), "e1")[1] == once[1]
    store.create_speaker("t", "bob")
    assert store.add_enrollment("t", "bob", recording(2), "e1")[1].speaker_id == "bob"


def test_opting_out_stops_everything_and_can_be_withdrawn(store: Store) -> None:
    store.create_speaker("t", "alice")
    store.add_enrollment("t", "alice", recording(1, 10.0))
    assert store.update_speaker("t", "alice", status="opted_out").status == "opted_out"
    with pytest.raises(SpeakerOptedOut):
        store.template("t", "alice", MODEL)
    with pytest.raises(SpeakerOptedOut):
        store.add_enrollment("t", "alice", recording(2))
    assert store.update_speaker("t", "alice", status="enrolling").status == "enrolled"
    assert store.template("t", "alice", MODEL).enrollments == 1


def test_models_never_mix(store: Store, rounding: float) -> None:
    store.create_speaker("t", "alice")
    store.add_enrollment("t", "alice", recording(1, 10.0))
    with pytest.raises(ModelMismatch, match="bbbbbbbbbbbb"):
        store.template("t", "alice", OTHER_MODEL)
    both = {MODEL: unit(2), OTHER_MODEL: unit(3, 8)}
    speaker, added = store.add_enrollment("t", "alice", recording(0, 3.0, both))
    assert added.cohesion == pytest.approx(float(unit(1) @ unit(2)), abs=1e-6)
    assert speaker.status == "enrolled"
    with pytest.raises(ModelMismatch):  # 3 s under that model are too few, whatever the other one has
        store.template("t", "alice", OTHER_MODEL)
    store.add_enrollment("t", "alice", recording(0, 7.0, {OTHER_MODEL: unit(4, 8)}))
    template = store.template("t", "alice", OTHER_MODEL)
    assert np.allclose(template.vector, normalised(unit(3, 8) + unit(4, 8)), atol=rounding)
    assert (template.enrollments, template.net_speech_s) == (2, 10.0)


def test_a_model_keeps_its_dimension(store: Store) -> None:
    for name in ("alice", "bob"):
        store.create_speaker("t", name)
    store.add_enrollment("t", "alice", recording(1, 10.0))
    for name in ("alice", "bob"):
        before = store.speaker("t", name)
        with pytest.raises(InvalidEmbedding):
            store.add_enrollment("t", name, recording(0, 10.0, {MODEL: unit(2, 8)}))
        assert store.speaker("t", name) == before


def test_an_enrolment_needs_sound_vectors(store: Store) -> None:
    store.create_speaker("t", "alice")
    for embeddings in ({}, {MODEL: 2 * unit(1)}, {MODEL: unit(1), OTHER_MODEL: np.zeros(4, np.float32)}):
        with pytest.raises(InvalidEmbedding):
            store.add_enrollment("t", "alice", recording(0, 10.0, embeddings))
    assert store.enrollments("t", "alice") == ()


def test_recordings_that_cancel_out_make_no_template(store: Store, rounding: float) -> None:
    store.create_speaker("t", "alice")
    store.add_enrollment("t", "alice", recording(0, 10.0, {MODEL: unit(1)}))
    _, opposite = store.add_enrollment("t", "alice", recording(0, 10.0, {MODEL: -unit(1)}), "e2")
    assert opposite.cohesion == -1.0
    with pytest.raises(ModelMismatch):
        store.template("t", "alice", MODEL)
    store.delete_enrollment("t", "alice", "e2")
    assert np.allclose(store.template("t", "alice", MODEL).vector, unit(1), atol=rounding)


def test_without_a_required_length_one_recording_is_still_needed(opened: Opener) -> None:
    with opened(0.0) as store:
        assert store.create_speaker("t", "alice").status == "enrolling"
        with pytest.raises(SpeakerNotEnrolled):
            store.template("t", "alice", MODEL)
        assert store.add_enrollment("t", "alice", recording())[0].status == "enrolled"


def test_deleting_a_speaker_leaves_no_row_that_names_them(store: Store) -> None:
    store.create_speaker("t", "alice", groups=["g"])
    store.add_enrollment("t", "alice", recording(1, 10.0))
    Answers(store.database).remember("t", "t", "k", "f", 200, b'{"speaker_id":"alice"}')
    store.delete_speaker("t", "alice")
    with store._database.read() as connection:
        tables = ("speakers", "speaker_groups", "enrollments", "embeddings", "templates", "answers")
        counts = {name: connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in tables}
    assert set(counts.values()) == {0}
    assert store.check() == []
    with pytest.raises(SpeakerNotFound):
        store.delete_speaker("t", "alice")
    assert store.create_speaker("t", "alice").enrollments == 0


def test_a_reopened_store_equals_the_one_before(store: Store, opened: Opener) -> None:
    store.create_speaker("t", "alice", "Alice", ["g"], {"a": None})
    store.add_enrollment("t", "alice", recording(1, 10.0))
    with opened() as again:
        assert again.speakers("t") == store.speakers("t")
        assert again.enrollments("t", "alice") == store.enrollments("t", "alice")


def test_a_speaker_has_so_many_enrolments_and_no_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sayso.enroll.store.MAX_ENROLLMENTS", 2)
    store.create_speaker("t", "alice")
    for seed in range(2):
        store.add_enrollment("t", "alice", recording(seed, REQUIRED_S), f"e{seed}")
    with pytest.raises(TooManyEnrollments, match="Delete some"):
        store.add_enrollment("t", "alice", recording(2, REQUIRED_S), "e2")
    assert store.add_enrollment("t", "alice", recording(0, REQUIRED_S), "e0")[0].enrollments == 2  # a retry
    store.delete_enrollment("t", "alice", "e0")
    assert store.add_enrollment("t", "alice", recording(2, REQUIRED_S), "e2")[0].enrollments == 2
