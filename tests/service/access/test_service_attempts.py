"""Guesses at once are as few as guesses in a row; a recording is refused for as long as it is enrolled."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from enroll_samples import REQUIRED_S, recording

from sayso.enroll.errors import AttemptsDelayed, RecordingReplayed, SpeakerLocked
from sayso.enroll.store import Store
from sayso.service.access.attempts import AttemptLimits, Attempts

Opener = Callable[..., Store]
AT_ONCE = 16
LIMITS = AttemptLimits(delay_after=5, delay_s=3600.0, lock_after=50, replay_days=30.0)
LOCKING = AttemptLimits(delay_after=0, delay_s=0.0, lock_after=5, replay_days=30.0)


def outcomes(
    stores: tuple[Store, Store], limits: AttemptLimits, settle: Callable[[Store, int], None]
) -> list[str]:
    """Let many callers be admitted at once, then settle all of their guesses; returns how each ended."""
    admitted = threading.Barrier(AT_ONCE)

    def guess(turn: int) -> str:
        store = stores[turn % 2]
        Attempts(store.database).admit("t", ["alice"], f"guess {turn}", limits)
        admitted.wait(60)
        try:
            settle(store, turn)
        except (AttemptsDelayed, SpeakerLocked, RecordingReplayed) as error:
            return error.code
        return "told"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(guess, range(AT_ONCE)))


@pytest.mark.parametrize("failed_before", range(5))
@pytest.mark.parametrize(("limits", "refusal"), [(LIMITS, "attempts_delayed"), (LOCKING, "speaker_locked")])
def test_guesses_at_once_are_no_more_than_guesses_in_a_row(
    store: Store, opened: Opener, failed_before: int, limits: AttemptLimits, refusal: str
) -> None:
    store.create_speaker("t", "alice")
    for turn in range(failed_before):
        Attempts(store.database).failed("t", "alice", f"before {turn}", limits)
    with opened() as other:
        ends = outcomes(
            (store, other),
            limits,
            lambda one, turn: Attempts(one.database).failed("t", "alice", f"guess {turn}", limits),
        )
    assert ends.count("told") == 5 - failed_before
    assert ends.count(refusal) == AT_ONCE - (5 - failed_before)


def test_a_success_among_wrong_guesses_at_once_is_told_only_within_the_limit(
    store: Store, opened: Opener
) -> None:
    """After the fifth failure nobody learns that a voice was right, or the limit would be none."""
    store.create_speaker("t", "alice")
    for turn in range(5):
        Attempts(store.database).failed("t", "alice", f"before {turn}", LIMITS)
    with pytest.raises(AttemptsDelayed):
        Attempts(store.database).succeeded("t", "alice", "verify", b"right", "late", LIMITS)
    with pytest.raises(AttemptsDelayed):
        Attempts(store.database).admit("t", ["alice"], "next", LIMITS)


def test_right_voices_at_once_are_all_told(store: Store, opened: Opener) -> None:
    store.create_speaker("t", "alice")
    for turn in range(4):
        Attempts(store.database).failed("t", "alice", f"before {turn}", LIMITS)
    with opened() as other:

        def settle(one: Store, turn: int) -> None:
            Attempts(one.database).succeeded("t", "alice", "verify", bytes([turn]), f"guess {turn}", LIMITS)

        assert outcomes((store, other), LIMITS, settle) == ["told"] * AT_ONCE


def test_one_recording_at_once_is_accepted_once(store: Store, opened: Opener) -> None:
    store.create_speaker("t", "alice")
    limits = AttemptLimits(0, 0.0, 0, 30.0)
    with opened() as other:

        def settle(one: Store, turn: int) -> None:
            Attempts(one.database).succeeded("t", "alice", "verify", b"voice", f"guess {turn}", limits)

        ends = outcomes((store, other), limits, settle)
    assert (ends.count("told"), ends.count("recording_replayed")) == (1, AT_ONCE - 1)


@pytest.mark.parametrize("deleted", ["e1", "e2"])
def test_a_recording_enrolled_twice_is_refused_until_both_are_deleted(store: Store, deleted: str) -> None:
    store.create_speaker("t", "alice")
    for name in ("e1", "e2"):
        store.add_enrollment("t", "alice", recording(1, REQUIRED_S, digest=b"voice"), name)
    for remaining in (deleted, {"e1": "e2", "e2": "e1"}[deleted]):
        for call in ("verify", "identify"):
            with pytest.raises(RecordingReplayed):
                Attempts(store.database).succeeded("t", "alice", call, b"voice", "a", LIMITS)
        Attempts(store.database).unlock("t", "alice")
        store.delete_enrollment("t", "alice", remaining)
    Attempts(store.database).succeeded("t", "alice", "verify", b"voice", "a", LIMITS)


def test_an_enrolled_recording_is_nobody_elses(store: Store) -> None:
    for name in ("alice", "bob"):
        store.create_speaker("t", name)
    store.add_enrollment("t", "alice", recording(1, REQUIRED_S, digest=b"voice"))
    Attempts(store.database).succeeded("t", "bob", "verify", b"voice", "a", LIMITS)


def test_the_operator_is_held_to_nothing_and_counts_for_nothing(store: Store) -> None:
    store.create_speaker("t", "alice")
    for turn in range(9):
        Attempts(store.database).failed("t", "alice", f"{turn}", None)
    Attempts(store.database).admit("t", ["alice"], "next", LIMITS)
    for turn in range(5):
        Attempts(store.database).failed("t", "alice", f"{turn}", LIMITS)
    Attempts(store.database).admit("t", ["alice"], "next", None)
    assert Attempts(store.database).barred("t", "next", None) == frozenset()
    Attempts(store.database).succeeded("t", "alice", "verify", b"voice", "next", None)
    assert Attempts(store.database).barred("t", "next", LIMITS) == {"alice"}


def test_a_locked_and_a_waiting_speaker_are_barred_and_one_who_has_waited_is_not(store: Store) -> None:
    limits = AttemptLimits(delay_after=2, delay_s=3600.0, lock_after=3, replay_days=0)
    waited = AttemptLimits(delay_after=2, delay_s=0.0, lock_after=3, replay_days=0)
    for name, failures in (("none", 0), ("free", 1), ("waiting", 2), ("locked", 3)):
        store.create_speaker("t", name)
        for turn in range(failures):
            Attempts(store.database).failed("t", name, f"{name} {turn}", waited)
    assert Attempts(store.database).barred("t", "next", limits) == {"waiting", "locked"}
    assert Attempts(store.database).barred("t", "waiting 1", limits) == {"locked"}
    assert Attempts(store.database).barred("t", "next", waited) == {"locked"}
    store.delete_speaker("t", "locked")
    assert Attempts(store.database).barred("t", "next", limits) == {"waiting"}


def test_ids_that_cannot_be_are_no_ones_guess(store: Store) -> None:
    Attempts(store.database).admit(
        "t", ["a\x00", "\ud800", "x" * 200, *(f"s{n}" for n in range(1200))], "a", LIMITS
    )
