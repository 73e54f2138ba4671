"""A tenant's cohort: whose templates comparisons are centred on, kept in step with every change."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from enroll_samples import MODEL, recording, unit

from sayso.domain.evidence import ANY, LlrModel, Regression
from sayso.enroll import clock
from sayso.enroll.search.cohorts import Cohorts
from sayso.enroll.search.feed import TemplateFeed
from sayso.enroll.store import Store
from sayso.enroll.types import NewEnrollment, Template

DIM = 8
ZERO = {"wide": (0.0,) * DIM, "narrow": (0.0,) * DIM}
MODEL_LLR = LlrModel({ANY: Regression(0.0, {"centred": 1.0})}, ZERO, centre_weight=2.0)


def voice(seed: int) -> NewEnrollment:
    return recording(net_speech_s=12.0, embeddings={MODEL: unit(seed, DIM)})


def enrol(store: Store, speaker_id: str, seed: int, tenant: str = "t", **facts: object) -> None:
    store.create_speaker(tenant, speaker_id, **facts)  # type: ignore[arg-type]
    store.add_enrollment(tenant, speaker_id, voice(seed))


def members(store: Store, cohorts: Cohorts) -> set[str]:
    return set(cohorts.of("t", MODEL).members)


def test_it_follows_every_change_at_once(store: Store) -> None:
    cohorts = Cohorts(TemplateFeed(store))
    assert members(store, cohorts) == set()
    enrol(store, "a", 1)
    enrol(store, "b", 2)
    enrol(store, "elsewhere", 3, tenant="u")
    assert members(store, cohorts) == {"a", "b"}
    store.update_speaker("t", "a", status="opted_out")
    assert members(store, cohorts) == {"b"}
    store.update_speaker("t", "a", status="enrolled")
    store.delete_speaker("t", "b")
    assert members(store, cohorts) == {"a"}


def test_its_sum_is_that_of_the_templates_without_the_claimed_one(store: Store, rounding: float) -> None:
    for number in range(5):
        enrol(store, f"s{number}", number)
    cohort = Cohorts(TemplateFeed(store)).of("t", MODEL)
    template = store.template("t", "s3", MODEL)
    difference, count = cohort.without("s3", template, MODEL_LLR)
    expected = np.sum([unit(n, DIM) for n in range(5) if n != 3], axis=0)
    assert count == 4
    assert difference == pytest.approx(expected, abs=5 * rounding)
    difference, count = cohort.without(None, template, MODEL_LLR)
    assert count == 5
    assert difference == pytest.approx(expected + unit(3, DIM), abs=5 * rounding)


def test_nobody_is_nobody_to_be_centred_on(store: Store) -> None:
    cohort = Cohorts(TemplateFeed(store)).of("t", MODEL)
    assert cohort.without("a", Template(unit(1, DIM), 1, 10.0, MODEL), MODEL_LLR) == (None, 0)


def test_only_the_oldest_count(store: Store) -> None:
    """Whoever enrols into a tenant of that size moves nobody's score; a free place is taken by the next."""
    cohorts = Cohorts(TemplateFeed(store), largest=3)
    for number in range(3):
        enrol(store, f"s{number}", number)
    before = cohorts.of("t", MODEL)
    for number in range(3, 6):
        enrol(store, f"s{number}", number)
    assert cohorts.of("t", MODEL) is before
    store.delete_speaker("t", "s1")
    assert members(store, cohorts) == {"s0", "s2", "s3"}
    store.add_enrollment("t", "s2", voice(77))
    after = cohorts.of("t", MODEL)
    assert after is not before
    assert members(store, cohorts) == {"s0", "s2", "s3"}


def test_a_speaker_who_expires_leaves_without_a_change(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cohorts = Cohorts(TemplateFeed(store))
    enrol(store, "a", 1)
    enrol(store, "b", 2, expires_at=clock.now() + timedelta(hours=1))
    assert members(store, cohorts) == {"a", "b"}
    later = clock.now() + timedelta(hours=2)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert members(store, cohorts) == {"a"}


def test_a_template_is_of_the_band_of_most_of_its_speech(store: Store) -> None:
    enrol(store, "a", 1)
    assert store.template("t", "a", MODEL).band == "wide"
    store.add_enrollment("t", "a", replace(voice(2), net_speech_s=50.0, band="narrow"))
    assert store.template("t", "a", MODEL).band == "narrow"
    assert store.templates("t", ["a", "nobody"], MODEL)["a"].band == "narrow"
    assert Cohorts(TemplateFeed(store)).of("t", MODEL).counts == {"narrow": 1}


def test_templates_of_those_who_can_be_compared(store: Store) -> None:
    enrol(store, "a", 1)
    enrol(store, "b", 2)
    store.create_speaker("t", "empty")
    store.update_speaker("t", "b", status="opted_out")
    assert set(store.templates("t", ["a", "b", "empty", "nobody"], MODEL)) == {"a"}
    assert store.templates("t", [], MODEL) == {}
    assert store.templates("u", ["a"], MODEL) == {}
