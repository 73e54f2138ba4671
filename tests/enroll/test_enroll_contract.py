"""What any store does, beyond what each module's own tests say: attempts, several processes, restarts."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from enroll_samples import MODEL, REQUIRED_S, normalised, recording, unit

from sayso.enroll import clock
from sayso.enroll.decision import score
from sayso.enroll.errors import (
    AttemptsDelayed,
    RecordingReplayed,
    SpeakerExists,
    SpeakerLocked,
    SpeakerNotFound,
    TenantNotFound,
)
from sayso.enroll.search.index import Index, index_of
from sayso.enroll.store import Store
from sayso.service.access.answers import Answers
from sayso.service.access.attempts import AttemptLimits, Attempts
from sayso.service.access.keys import KeyRing

Opener = Callable[..., Store]
LIMITS = AttemptLimits(delay_after=2, delay_s=30.0, lock_after=4, replay_days=30.0)


def enrol(store: Store, name: str, seed: int, tenant: str = "t") -> None:
    store.create_speaker(tenant, name)
    store.add_enrollment(tenant, name, recording(seed, REQUIRED_S), f"e{seed}")


def test_a_search_equals_brute_force(store: Store, index: Index, rounding: float) -> None:
    means = {}
    for seed in range(60):
        name = f"s{seed:02}"
        store.create_speaker("t", name)
        for part in range(2):
            store.add_enrollment("t", name, recording(100 * part + seed, REQUIRED_S / 2))
        means[name] = normalised(unit(seed) + unit(100 + seed))
    for seed in range(500, 510):
        exact = sorted(((score(unit(seed), mean), name) for name, mean in means.items()), reverse=True)
        candidates, searched = index.search("t", MODEL, unit(seed), 10)
        assert searched == 60
        for candidate, (expected, _) in zip(candidates, exact, strict=False):
            assert candidate.score == pytest.approx(expected, abs=rounding)
            assert candidate.score == pytest.approx(
                score(unit(seed), means[candidate.speaker_id]), abs=rounding
            )


def test_failures_delay_and_then_lock_whichever_store_counts_them(
    store: Store, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime.now(UTC)
    enrol(store, "alice", 1)
    with opened() as other:
        for turn, counting in enumerate((store, other)):
            Attempts(counting.database).admit("t", ["alice"], "next", LIMITS)
            Attempts(counting.database).failed("t", "alice", f"a{turn}", LIMITS)
            Attempts(counting.database).failed(
                "t", "alice", f"a{turn}", LIMITS
            )  # the same attempt counts once
        with pytest.raises(AttemptsDelayed):
            Attempts(store.database).admit("t", ["alice"], "next", LIMITS)
        for turn in range(2, 4):
            later = start + timedelta(seconds=turn * LIMITS.delay_s)
            monkeypatch.setattr(clock, "now", lambda moment=later: moment)
            Attempts(other.database).failed("t", "alice", f"a{turn}", LIMITS)
        with pytest.raises(SpeakerLocked):
            Attempts(store.database).admit("t", ["alice"], "next", LIMITS)
        assert Attempts(other.database).barred("t", "next", LIMITS) == {"alice"}
        assert Attempts(store.database).barred("u", "next", LIMITS) == frozenset()
        Attempts(store.database).unlock("t", "alice")
        Attempts(other.database).admit("t", ["alice"], "next", LIMITS)


def test_a_recording_is_good_once_in_all_stores(store: Store, opened: Opener) -> None:
    enrol(store, "alice", 1)
    free = replace(LIMITS, delay_after=0, lock_after=0)
    with opened() as other:
        Attempts(store.database).succeeded("t", "alice", "verify", b"sound", "a1", free)
        Attempts(other.database).succeeded("t", "alice", "verify", b"sound", "a1", free)  # the same attempt
        Attempts(other.database).succeeded("t", "alice", "identify", b"sound", "a2", free)
        with pytest.raises(RecordingReplayed):
            Attempts(other.database).succeeded("t", "alice", "verify", b"sound", "a3", free)
        store.add_enrollment("t", "alice", recording(2, digest=b"enrolled"), "e2")
        with pytest.raises(RecordingReplayed):
            Attempts(other.database).succeeded("t", "alice", "verify", b"enrolled", "a4", free)
        store.delete_enrollment("t", "alice", "e2")
        Attempts(other.database).succeeded("t", "alice", "verify", b"enrolled", "a5", free)
        store.delete_speaker("t", "alice")
        Attempts(other.database).succeeded(
            "t", "alice", "verify", b"sound", "a6", free
        )  # nobody to remember it for


def test_one_of_many_writers_creates_a_speaker(store: Store, opened: Opener) -> None:
    with opened() as other, ThreadPoolExecutor(6) as pool:
        ready = threading.Barrier(6)

        def create(turn: int) -> bool:
            ready.wait(30)
            try:
                (store, other)[turn % 2].create_speaker("t", "alice")
            except SpeakerExists:
                return False
            return True

        assert sum(pool.map(create, range(6))) == 1


def test_a_tenants_first_enrolments_at_once_share_its_keys(store: Store, opened: Opener) -> None:
    """The first of them makes the tenant's keys; nobody may seal under another's."""
    with opened() as other, ThreadPoolExecutor(6) as pool:
        ready = threading.Barrier(6)

        def begin(turn: int) -> None:
            chosen = (store, other)[turn % 2]
            ready.wait(30)
            chosen.audit.note("verify", "new", f"s{turn}", decision="reject")
            enrol(chosen, f"s{turn}", turn, "new")
            chosen.audit.flush()

        list(pool.map(begin, range(6)))
        assert store.check_templates() == []
        assert store.audit.verify().broken is None
        assert store.audit.verify().entries == 18
        assert all(len(other.audit.events("new", f"s{turn}")) == 3 for turn in range(6))


def test_retries_of_one_enrolment_at_once_add_one(store: Store, opened: Opener) -> None:
    store.create_speaker("t", "alice")
    with opened() as other, ThreadPoolExecutor(6) as pool:

        def add(turn: int) -> str:
            return (store, other)[turn % 2].add_enrollment("t", "alice", recording(1), "same")[1].created_at

        assert len(set(pool.map(add, range(6)))) == 1
        assert store.speaker("t", "alice").enrollments == 1


def test_the_first_of_answers_given_at_once_stands(store: Store, opened: Opener) -> None:
    with opened() as other, ThreadPoolExecutor(6) as pool:

        def remember(turn: int) -> None:
            Answers((store, other)[turn % 2].database).remember("t", "k", "key", "f", 200, str(turn).encode())

        list(pool.map(remember, range(6)))
        first, second = (
            Answers(store.database).answer("k", "key", "f"),
            Answers(other.database).answer("k", "key", "f"),
        )
        assert first is not None
        assert first == second


def test_a_revoked_key_is_useless_everywhere_at_once(store: Store, opened: Opener) -> None:
    key, text = KeyRing(store.vault).create_key("t", ["read"], "one")
    with opened() as other:
        assert KeyRing(other.vault).authenticate(text) == key
        KeyRing(store.vault).revoke_key(key.id)
        assert KeyRing(other.vault).authenticate(text) is None


def test_a_restart_changes_nothing(opened: Opener) -> None:
    with opened() as store:
        for seed in range(5):
            enrol(store, f"s{seed}", seed)
        store.update_speaker("t", "s3", status="opted_out")
        Attempts(store.database).failed("t", "s1", "a", LIMITS)
        store.audit.note("verify", "t", "s1", decision="reject")
        before = store.speakers("t"), index_of(store).search("t", MODEL, unit(2), 5)
    with opened() as store:
        assert (store.speakers("t"), index_of(store).search("t", MODEL, unit(2), 5)) == before
        assert Attempts(store.database).barred("t", "b", AttemptLimits(1, 30.0, 0, 0)) == {"s1"}
        assert store.audit.verify().broken is None
        assert store.audit.events()[-1].event == "verify"
        assert store.check() == store.check_templates() == []


def test_a_deleted_tenant_leaves_the_others(store: Store, index: Index) -> None:
    enrol(store, "alice", 1)
    enrol(store, "bob", 2, "u")
    text = KeyRing(store.vault).create_key("t", ["read"], "one")[1]
    assert store.tenants.delete("t") == 1
    assert [tenant.name for tenant in store.tenants.list() if tenant.speakers] == ["u"]
    assert KeyRing(store.vault).authenticate(text) is None
    assert index.search("t", MODEL, unit(1), 5) == ([], 0)
    assert index.search("u", MODEL, unit(2), 5)[1] == 1
    with pytest.raises(TenantNotFound):
        store.tenants.delete("nobody")


def test_rotated_keys_change_no_answer(store: Store, index: Index) -> None:
    store.tenants.keep_recordings("t", True)
    enrol(store, "alice", 1)
    before = index.search("t", MODEL, unit(1), 5)
    assert store.tenants.rotate_key("t") >= 1
    assert index.search("t", MODEL, unit(1), 5) == before
    assert store.check_templates() == []
    made = {tenant.name: tenant.key_made_at for tenant in store.tenants.list()}
    assert made["t"] is not None


def test_rebuilt_templates_are_the_same(store: Store, index: Index) -> None:
    for seed in range(4):
        enrol(store, f"s{seed}", seed)
    before = store.template("t", "s1", MODEL).vector
    assert store.rebuild_templates() == 4
    assert np.allclose(store.template("t", "s1", MODEL).vector, before, atol=1e-6)
    assert store.check_templates() == index.check() == []


def test_what_no_id_can_be_is_not_found(store: Store, index: Index) -> None:
    enrol(store, "alice", 1)
    for odd in ("alice\x00", "\x00", "ä", "\ud800", "x" * 200, ""):
        with pytest.raises(SpeakerNotFound):
            store.speaker("t", odd)
        with pytest.raises(SpeakerNotFound):
            index.search("t", MODEL, unit(1), 1, among=[odd])
        assert index.search("t", MODEL, unit(1), 1, group=odd) == ([], 0)
        assert store.speakers("t", group=odd).items == ()


def test_text_in_every_script_comes_back_as_it_was(store: Store) -> None:
    made = store.create_speaker(
        "t", "alice", "Ålice 愛 %s ? :name", metadata={"%": "?", "a\u0000": ":x", "é": [1.5]}
    )
    assert store.speaker("t", "alice") == made
    assert made.name == "Ålice 愛 %s ? :name"
    assert made.metadata == {"%": "?", "a\u0000": ":x", "é": [1.5]}


def test_ids_and_cursors_follow_bytes_not_a_language(store: Store, index: Index) -> None:
    names = ["b", "B", "a", "A", "_0"[1:], "a.b", "a-b", "a_b"]
    for name in names:
        enrol(store, name, 7)
    found = [candidate.speaker_id for candidate in index.search("t", MODEL, unit(7), 20)[0]]
    assert found == sorted(names)


@pytest.mark.embedded
def test_the_package_is_not_needed_for_an_embedded_store() -> None:
    code = "import sayso.enroll.store, sayso.enroll.search.index, sys; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
