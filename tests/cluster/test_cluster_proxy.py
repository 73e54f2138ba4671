"""The shipped nginx in front of real replicas: what it passes on, what it refuses, what it answers itself."""

import json
from pathlib import Path

import httpx2
from replicas import Nginx, Replica, answered, calling
from sounds import voice_of

from sayso.service.settings import Settings

VOICE = voice_of("ann", 1, 3.0)


def embed(client: httpx2.Client) -> httpx2.Response:
    return client.post("/v1/embeddings", content=VOICE)


def test_both_replicas_work_and_an_id_is_passed_on(nginx: Nginx, replicas: list[Replica]) -> None:
    with calling(nginx.url, embed, threads=4) as callers:
        callers.wait_for(20)
    assert not callers.failures
    for one in replicas:
        assert 'route="/v1/embeddings",status="200"' in one.client.get("/metrics").text
    answer = nginx.client.post("/v1/embeddings", content=VOICE, headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answered(answer)["request_id"] == "mine-1"
    made = nginx.client.get("/healthz", headers={"X-Request-Id": "a b"}).headers["x-request-id"]
    assert len(made) == 32  # nginx's own, as its log has it
    assert made in nginx.log.read_text()


def test_the_limits_are_the_services(nginx: Nginx) -> None:
    limit = Settings.model_fields["max_body_bytes"].default
    largest = nginx.client.post("/v1/embeddings", content=bytes(limit))
    assert largest.json()["code"] == "audio_undecodable"  # it got through
    over = nginx.client.post("/v1/embeddings", content=bytes(limit + 1))
    assert (over.status_code, over.json()["code"]) == (413, "body_too_large")
    assert over.headers["content-type"] == "application/problem+json"
    searched = nginx.client.post("/v1/identify?" + "&".join(["candidates=" + "x" * 200] * 300), content=VOICE)
    assert searched.json()["code"] == "speaker_not_found"


def test_metrics_stay_inside(nginx: Nginx) -> None:
    for path in ("/metrics", "//metrics", "/x/../metrics", "/%6detrics", "/metrics?x=1"):
        answer = httpx2.get(f"{nginx.url}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_without_replicas_it_is_a_503_to_try_again(tmp_path: Path, replicas: list[Replica]) -> None:
    class Nobody:
        port = 9  # discard: nothing listens

    proxy = Nginx(tmp_path / "nginx", [Nobody(), Nobody()])  # type: ignore[list-item]
    try:
        answer = proxy.client.post("/v1/embeddings", content=VOICE)
        assert (answer.status_code, answer.json()["code"]) == (503, "no_replica")
        assert answer.headers["retry-after"] == "2"
        logged = [line for line in proxy.log.read_text().splitlines() if line.startswith("{")]
        assert json.loads(logged[-1])["status"] == 503
    finally:
        proxy.close()
