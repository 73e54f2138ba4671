"""A small share of the fuzzing that docs/fuzzing.md tells about, each time the tests run."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hammer
import numpy as np
import pytest
import schemathesis
import seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from inprocess import Sent, Service

from sayso.runtime.audio import decode
from sayso.runtime.errors import InputError

AUDIO = seeds.audio()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.close()


def test_mutated_requests_get_proper_answers(tmp_path: Path) -> None:
    report = hammer.hammer(600, seed=7, folder=tmp_path)
    assert sum(report["statuses"].values()) == 600
    assert len(report["statuses"]) >= 8


@pytest.mark.parametrize("name", AUDIO)
def test_every_seed_decodes(name: str) -> None:
    assert decode(AUDIO[name], 5.0).duration_s > 0.2


@given(
    name=st.sampled_from(sorted(AUDIO)),
    changes=st.lists(st.tuples(st.integers(0, 4_000), st.binary(max_size=8)), max_size=6),
    length=st.integers(0, 30_000),
)
@settings(max_examples=250, deadline=None, derandomize=True)
def test_damaged_recordings_decode_or_are_refused(name: str, changes: list[Any], length: int) -> None:
    damaged = bytearray(AUDIO[name][:length])
    for at, value in changes:
        damaged[at : at + len(value)] = value
    with contextlib.suppress(InputError):
        decoded = decode(bytes(damaged), 1.0)
        assert 0 < len(decoded.samples) <= 16_064
        assert np.isfinite(decoded.samples).all()


BUGS = {
    # A query that is no UTF-8 failed while the refusal was written.
    "query bytes": Sent("GET", "/v1/speakers", b"cursor=\xff\xfe"),
    "query bytes of nowhere": Sent("GET", "/nowhere", b"\xff"),
    "query bytes behind a slash": Sent("GET", "/v1/speakers/", b"\xff"),
}


@pytest.mark.parametrize("name", BUGS)
def test_bugs_that_fuzzing_found_stay_fixed(service: Service, name: str) -> None:
    for retry in ([], [(b"idempotency-key", b"abc")]):
        for method in ("GET", "POST"):
            sent = Sent(method, BUGS[name].path, BUGS[name].query, service.good_headers("audio/wav") + retry)
            answer = service.call(sent)
            assert hammer.wrong(sent, answer) is None
            assert 400 <= answer.status < 500


def test_azures_calls_name_their_own_address_whatever_the_query(service: Service) -> None:
    """It was taken from the whole URL, which cannot be read when its query is no UTF-8."""
    profiles = "/speaker-recognition/verification/text-independent/profiles"
    headers = [
        *service.good_headers("application/json"),
        (b"ocp-apim-subscription-key", service.key.encode()),
    ]

    def send(method: str, path: str, query: bytes, body: bytes = b"") -> Any:
        answer = service.call(Sent(method, path, query, headers, [body]))
        assert answer.status < 300, answer.body
        return json.loads(answer.body)

    for _ in range(2):
        made = send("POST", profiles, b"x=\xff", b'{"locale": "en-us"}')
    send("POST", f"{profiles}/{made['profileId']}:reset", b"\xff")
    assert profiles in send("GET", profiles, b"maxpagesize=1&x=\xff")["nextLink"]


@pytest.mark.parametrize("path", ["/", "/docs", "/console/app.js"])
@pytest.mark.parametrize("length", [[(b"content-length", b"200000")], []])
def test_a_body_for_a_page_is_dropped(service: Service, path: str, length: list[tuple[bytes, bytes]]) -> None:
    """Pages listen to the client while they are sent, and a body over its limit failed in their midst."""
    headers = [(b"host", b"fuzz"), *length]
    answer = service.call(Sent("GET", path, headers=headers, parts=[b"x" * 50_000] * 4))
    assert answer.status == 200
    assert service.app.state.held.held == 0


def test_a_seek_before_the_start_is_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    """Damaged files made libsndfile's callback into Python raise, which printed a traceback for each."""
    for name in ("voice.flac", "voice.mp3", "alac.caf", "wave64.w64", "voice.aiff"):
        for at in range(0, min(len(AUDIO[name]), 400)):
            damaged = bytearray(AUDIO[name])
            damaged[at] ^= 0xFF
            with contextlib.suppress(InputError):
                decode(bytes(damaged), 1.0)
    assert "Traceback" not in capfd.readouterr().err


CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
    schemathesis.checks.status_code_conformance,
]
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "8"))


def test_the_api_is_what_its_document_says(service: Service) -> None:
    """schemathesis, over every operation: what fits the schema and what does not."""
    document = schemathesis.openapi.from_asgi("/openapi.json", service.app)
    tried = set()

    def check(case: Any) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {service.key}"})
        case.validate_response(answer, checks=CHECKS)
        tried.add(case.operation.label)

    some = settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for found in document.get_all_operations():
        for mode in schemathesis.GenerationMode:
            cases = found.ok().as_strategy(generation_mode=mode)
            with contextlib.suppress(Unsatisfiable):  # nothing can be wrong about a call without input
                some(given(cases)(check))()
    assert len(tried) == 19
