"""Any sequence of operations: the store equals a model of it, the index equals brute force over the store."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from enroll_samples import MODEL, OTHER_MODEL, REQUIRED_S, normalised, recording, unit
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from pgserver import MASTER_KEY, Server

from sayso.enroll.decision import score
from sayso.enroll.errors import EnrollError, ModelMismatch, SpeakerNotEnrolled, SpeakerOptedOut
from sayso.enroll.search.index import index_of
from sayso.enroll.secrets.master_key import KeyText
from sayso.enroll.store import Store

TENANTS = ("t", "u")
speakers = st.tuples(st.sampled_from(TENANTS), st.sampled_from("abcd"))
enrollment_ids = st.sampled_from(["e1", "e2", "e3"])
models = st.sampled_from([(MODEL,), (MODEL, OTHER_MODEL), (OTHER_MODEL,)])
DIMS = {MODEL: 16, OTHER_MODEL: 8}

Enrolled = dict[str, tuple[float, dict[str, np.ndarray]]]


class StoreMachine(RuleBasedStateMachine):
    """Drives a store and, beside it, a dictionary that shows what the store should hold."""

    rounding = 1e-5

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.expected: dict[tuple[str, str], dict[str, Any]] = {}
        self._open()

    def _open(self) -> None:
        self.store = Store(self.folder / "sayso.db", REQUIRED_S)
        self.index = index_of(self.store)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    def _attempt(self, call: Callable[[], object], allowed: bool) -> None:
        try:
            call()
        except EnrollError:
            assert not allowed
        else:
            assert allowed

    @rule(speaker=speakers, groups=st.sets(st.sampled_from(["g", "h"])))
    def create(self, speaker: tuple[str, str], groups: set[str]) -> None:
        self._attempt(
            lambda: self.store.create_speaker(*speaker, groups=groups), speaker not in self.expected
        )
        self.expected.setdefault(speaker, {"groups": groups, "enrolled": {}, "opted_out": False})

    @rule(
        speaker=speakers,
        enrollment=enrollment_ids,
        used=models,
        seed=st.integers(0, 5),
        speech=st.sampled_from([2.5, 5.0, 10.0]),
    )
    def enrol(
        self, speaker: tuple[str, str], enrollment: str, used: tuple[str, ...], seed: int, speech: float
    ) -> None:
        vectors = {model: unit(seed, DIMS[model]) for model in used}
        known = self.expected.get(speaker)
        allowed = known is not None and (enrollment in known["enrolled"] or not known["opted_out"])
        new = recording(0, speech, vectors)
        self._attempt(lambda: self.store.add_enrollment(*speaker, new, enrollment), allowed)
        if known is not None and allowed:
            known["enrolled"].setdefault(enrollment, (speech, vectors))

    @rule(speaker=speakers, enrollment=enrollment_ids)
    def delete_enrollment(self, speaker: tuple[str, str], enrollment: str) -> None:
        enrolled: Enrolled = self.expected.get(speaker, {"enrolled": {}})["enrolled"]
        self._attempt(lambda: self.store.delete_enrollment(*speaker, enrollment), enrollment in enrolled)
        enrolled.pop(enrollment, None)

    @rule(speaker=speakers)
    def delete_speaker(self, speaker: tuple[str, str]) -> None:
        self._attempt(lambda: self.store.delete_speaker(*speaker), speaker in self.expected)
        self.expected.pop(speaker, None)

    @rule(speaker=speakers, out=st.booleans())
    def opt(self, speaker: tuple[str, str], out: bool) -> None:
        status = "opted_out" if out else "enrolled"
        self._attempt(
            lambda: self.store.update_speaker(*speaker, status=status),  # type: ignore[arg-type]
            speaker in self.expected,
        )
        if speaker in self.expected:
            self.expected[speaker]["opted_out"] = out

    @rule()
    def reopen(self) -> None:
        before = [self.store.speakers(tenant) for tenant in TENANTS]
        self.store.close()
        self._open()
        assert [self.store.speakers(tenant) for tenant in TENANTS] == before

    @rule(
        tenant=st.sampled_from(TENANTS), model=st.sampled_from([MODEL, OTHER_MODEL]), seed=st.integers(0, 9)
    )
    def search(self, tenant: str, model: str, seed: int) -> None:
        query = unit(seed, DIMS[model])
        among = [name for owner, name in self.expected if owner == tenant][:2]
        for k, group, listed in ((1, None, None), (3, None, None), (9, "g", None), (9, None, among)):
            candidates, searched = self.index.search(tenant, model, query, k, listed, group)
            names = self._comparable(tenant, model, group, listed)
            exact = sorted((-score(query, self.store.template(tenant, n, model).vector), n) for n in names)
            assert [(-c.score, c.speaker_id) for c in candidates] == exact[:k]
            assert searched == len(names)

    def _comparable(self, tenant: str, model: str, group: str | None, among: list[str] | None) -> list[str]:
        return [
            name
            for (owner, name), known in self.expected.items()
            if owner == tenant
            and not known["opted_out"]
            and self._speech(known, model) >= REQUIRED_S
            and (group is None or group in known["groups"])
            and (among is None or name in among)
        ]

    @staticmethod
    def _speech(known: dict[str, Any], model: str | None) -> float:
        enrolled: Enrolled = known["enrolled"]
        return sum(speech for speech, vectors in enrolled.values() if model is None or model in vectors)

    @invariant()
    def the_store_is_what_it_should_be(self) -> None:
        if not hasattr(self, "store"):
            return
        stored = {(t, s.id): s for t in TENANTS for s in self.store.speakers(t).items}
        assert stored.keys() == self.expected.keys()
        for (tenant, name), known in self.expected.items():
            speaker, speech = stored[tenant, name], self._speech(known, None)
            status = "enrolled" if speech >= REQUIRED_S else "enrolling"
            assert speaker.status == ("opted_out" if known["opted_out"] else status)
            assert (speaker.enrollments, speaker.net_speech_s) == (len(known["enrolled"]), speech)
            assert set(speaker.groups) == known["groups"]
            assert {e.id for e in self.store.enrollments(tenant, name)} == known["enrolled"].keys()
            for model in DIMS:
                self._template_is_what_it_should_be(tenant, name, model)

    def _template_is_what_it_should_be(self, tenant: str, name: str, model: str) -> None:
        known = self.expected[tenant, name]
        vectors = [vectors[model] for _, vectors in known["enrolled"].values() if model in vectors]
        try:
            template = self.store.template(tenant, name, model)
        except SpeakerOptedOut:
            assert known["opted_out"]
        except SpeakerNotEnrolled:
            assert self._speech(known, None) < REQUIRED_S
        except ModelMismatch:
            assert self._speech(known, model) < REQUIRED_S <= self._speech(known, None)
        else:
            assert np.allclose(template.vector, normalised(np.sum(vectors, axis=0)), atol=self.rounding)
            assert (template.enrollments, template.net_speech_s) == (len(vectors), self._speech(known, model))

    @invariant()
    def the_index_is_in_step(self) -> None:
        if hasattr(self, "store"):
            assert self.index.check() == []


BOUNDS = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = BOUNDS


def test_the_same_on_postgresql(server: Server) -> None:
    class PostgresMachine(StoreMachine):
        rounding = 1e-3

        def _open(self) -> None:
            if not hasattr(self, "address"):
                self.address = server.url(server.database())
            self.store = Store(self.address, REQUIRED_S, KeyText(MASTER_KEY))
            self.index = index_of(self.store)

    run_state_machine_as_test(PostgresMachine, settings=settings(BOUNDS, max_examples=6))
