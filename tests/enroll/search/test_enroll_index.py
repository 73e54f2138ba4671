"""The index finds what the store holds, exactly, whoever changed it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from enroll_samples import MODEL, OTHER_MODEL, REQUIRED_S, normalised, recording, unit

from sayso.enroll.decision import score
from sayso.enroll.errors import InvalidEmbedding, SpeakerNotFound
from sayso.enroll.search.index import Index, SpeakerIndex, index_of
from sayso.enroll.search.matrix import Matrix
from sayso.enroll.store import Store

Opener = Callable[..., Store]


def enrol(store: Store, name: str, seed: int, tenant: str = "t", groups: tuple[str, ...] = ()) -> None:
    store.create_speaker(tenant, name, groups=groups)
    store.add_enrollment(tenant, name, recording(seed, REQUIRED_S))


def found(index: Index, seed: int, k: int = 10, tenant: str = "t") -> list[str]:
    candidates, _ = index.search(tenant, MODEL, unit(seed), k)
    return [candidate.speaker_id for candidate in candidates]


def test_an_acknowledged_enrolment_is_found_at_once(store: Store, index: Index) -> None:
    assert index.search("t", MODEL, unit(1), 5) == ([], 0)
    for seed in range(5):
        enrol(store, f"s{seed}", seed)
        candidates, searched = index.search("t", MODEL, unit(seed), 1)
        assert [candidate.speaker_id for candidate in candidates] == [f"s{seed}"]
        assert candidates[0].score == pytest.approx(1.0, abs=1e-6)
        assert searched == seed + 1
    assert index.check() == []


def test_what_was_deleted_is_not_found(store: Store, index: Index) -> None:
    for seed in range(4):
        enrol(store, f"s{seed}", seed)
    assert sorted(found(index, 0)) == ["s0", "s1", "s2", "s3"]
    store.delete_speaker("t", "s0")
    assert sorted(found(index, 0)) == ["s1", "s2", "s3"]
    store.update_speaker("t", "s1", status="opted_out")
    assert sorted(found(index, 0)) == ["s2", "s3"]
    store.delete_enrollment("t", "s2", store.enrollments("t", "s2")[0].id)
    assert found(index, 0) == ["s3"]
    store.update_speaker("t", "s1", status="enrolled")
    assert sorted(found(index, 0)) == ["s1", "s3"]
    store.delete_speaker("t", "s1")
    store.delete_speaker("t", "s3")
    assert index.search("t", MODEL, unit(0), 5) == ([], 0)
    enrol(store, "s0", 7)
    assert index.search("t", MODEL, unit(7), 5)[0][0].score == pytest.approx(1.0)
    assert index.check() == []


def test_a_new_recording_moves_the_template(store: Store, index: Index) -> None:
    enrol(store, "alice", 1)
    index.warm()
    store.add_enrollment("t", "alice", recording(2))
    mean = normalised(unit(1) + unit(2))
    assert index.search("t", MODEL, mean, 1)[0][0].score == pytest.approx(1.0, abs=1e-6)


def test_the_score_is_the_one_verification_gives(store: Store, index: Index) -> None:
    for seed in range(20):
        enrol(store, f"s{seed}", seed)
    candidates, _ = index.search("t", MODEL, unit(99), 20)
    for candidate in candidates:
        template = store.template("t", candidate.speaker_id, MODEL)
        assert candidate.score == score(unit(99), template.vector)


def test_only_the_enrolled_are_searched(store: Store, index: Index) -> None:
    enrol(store, "alice", 1)
    store.create_speaker("t", "bob")
    store.add_enrollment("t", "bob", recording(2, REQUIRED_S - 0.1))
    assert index.search("t", MODEL, unit(2), 5)[1] == 1
    store.add_enrollment("t", "bob", recording(2, 0.1))
    assert found(index, 2, k=1) == ["bob"]


def test_tenants_and_models_are_apart(store: Store, index: Index) -> None:
    enrol(store, "alice", 1)
    enrol(store, "bob", 1, tenant="u")
    store.add_enrollment("t", "alice", recording(0, REQUIRED_S, {OTHER_MODEL: unit(3, 8)}))
    index.warm()
    assert found(index, 1) == ["alice"]
    assert found(index, 1, tenant="u") == ["bob"]
    assert index.search("u", OTHER_MODEL, unit(3, 8), 5) == ([], 0)
    assert index.search("t", OTHER_MODEL, unit(3, 8), 5)[0][0].speaker_id == "alice"
    with pytest.raises(InvalidEmbedding, match="8 dimensions, not 16"):
        index.search("t", OTHER_MODEL, unit(3), 5)


def test_equal_scores_come_by_id_whatever_k(store: Store, index: Index) -> None:
    names = ["d", "b", "f", "a", "e", "c", "g"]
    for name in names:
        enrol(store, name, 5)
    enrol(store, "best", 6)
    for k in range(1, 9):
        near = normalised(unit(6) + 0.1 * unit(5))
        candidates, searched = index.search("t", MODEL, near, k)
        assert [candidate.speaker_id for candidate in candidates] == ["best", *sorted(names)][:k]
        assert searched == 8


def test_a_search_can_be_narrowed(store: Store, index: Index) -> None:
    for seed in range(6):
        enrol(store, f"s{seed}", seed, groups=("even",) if seed % 2 == 0 else ("odd", "few"))
    store.create_speaker("t", "new", groups=["even"])
    enrol(store, "elsewhere", 0, tenant="u", groups=("even",))

    def names(**narrowed: object) -> tuple[list[str], int]:
        candidates, searched = index.search("t", MODEL, unit(0), 10, **narrowed)  # type: ignore[arg-type]
        return sorted(candidate.speaker_id for candidate in candidates), searched

    assert names(group="even") == (["s0", "s2", "s4"], 3)
    assert names(group="nobody") == ([], 0)
    assert names(among=["s1", "s1", "s4", "new"]) == (["s1", "s4"], 2)
    assert names(among=["s1", "s4"], group="odd") == (["s1"], 1)
    assert names(among=[]) == ([], 0)
    with pytest.raises(SpeakerNotFound) as caught:
        names(among=["s1", "elsewhere", "nobody"])
    assert sorted(caught.value.speaker_ids) == ["elsewhere", "nobody"]
    store.update_speaker("t", "s0", groups=[])
    assert names(group="even") == (["s2", "s4"], 2)


@pytest.mark.parametrize("vector", [2 * unit(1), np.full(16, np.nan, np.float32), np.zeros(16, np.float32)])
def test_what_is_no_embedding_is_never_scored(store: Store, index: Index, vector: np.ndarray) -> None:
    enrol(store, "alice", 1)
    with pytest.raises(InvalidEmbedding):
        index.search("t", MODEL, vector, 1)


def test_no_candidates_wanted_is_a_mistake(index: Index) -> None:
    with pytest.raises(ValueError, match="k must be"):
        index.search("t", MODEL, unit(1), 0)


def test_two_stores_on_one_database_see_each_others_changes(store: Store, opened: Opener) -> None:
    server = index_of(store)
    enrol(store, "alice", 1)
    assert found(server, 1) == ["alice"]
    with opened() as other:  # the command line, while the server runs
        cli = index_of(other)
        assert found(cli, 1) == ["alice"]
        enrol(other, "bob", 2)
        assert found(server, 2) == ["bob", "alice"]
        store.delete_speaker("t", "alice")
        assert found(cli, 1) == ["bob"]
        other.delete_speaker("t", "bob")
        enrol(other, "bob", 3)
        assert found(server, 3) == ["bob"]
        assert server.check() == cli.check() == []


@pytest.mark.embedded
def test_check_names_what_is_out_of_step(store: Store, index: SpeakerIndex) -> None:
    for seed in range(3):
        enrol(store, f"s{seed}", seed)
    index.warm()
    roster = index._mirror("t", MODEL)._roster
    slot = roster._ids.index("s1")
    roster._ids[slot] = "stranger"
    assert any("s1 is missing" in line for line in index.check())
    roster._ids[slot] = "s1"
    roster.vectors.rows[slot] = unit(9)
    assert index.check() == [f"tenant t, model {MODEL[:12]}: s1 has another template"]
    roster.vectors.rows[slot] = unit(1)
    del roster._slots[roster._numbers[slot]]
    assert any("2 numbers for 3 speakers" in line for line in index.check())


@pytest.mark.embedded
def test_a_half_applied_change_is_made_good(
    store: Store, index: SpeakerIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(store, "alice", 1)
    index.warm()
    enrol(store, "bob", 2)

    append: Any = Matrix.append

    def fail_late(*arguments: object) -> None:
        append(*arguments)
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Matrix, "append", fail_late)
        with pytest.raises(MemoryError):
            index.search("t", MODEL, unit(2), 1)
    assert sorted(found(index, 2)) == ["alice", "bob"]
    assert index.check() == []
