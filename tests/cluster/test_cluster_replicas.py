"""Replicas behind the shipped nginx, real processes under load: killed, restarted, asked for too much."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from replicas import Nginx, Replica, answered, calling, started
from sounds import voice_of
from tools import tool

from service.settings import Settings


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    tool("nginx")
    running = started(tmp_path_factory.mktemp("replicas"), 2)
    yield running
    for one in running:
        one.close()


@pytest.fixture(scope="module")
def nginx(replicas: list[Replica], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    proxy = Nginx(tmp_path_factory.mktemp("proxy") / "nginx", replicas)
    yield proxy
    proxy.close()


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


def test_a_killed_replica_fails_no_request(nginx: Nginx, replicas: list[Replica]) -> None:
    with calling(nginx.url, embed) as callers:
        for one in replicas:
            callers.wait_for(10)
            one.kill()
            callers.wait_for(20)
            one.start()
            callers.wait_for(20)
    assert callers.failures == []


def test_a_rolling_restart_fails_no_request(nginx: Nginx, replicas: list[Replica]) -> None:
    with calling(nginx.url, embed) as callers:
        for one in replicas:
            callers.wait_for(10)
            one.restart()
            callers.wait_for(10)
    assert callers.failures == []


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
