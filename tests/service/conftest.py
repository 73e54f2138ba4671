"""A service in this process, on a store of its own, with the shipped model."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from sayso.service.access.keys import SCOPES
from sayso.service.app import create_app
from sayso.service.engine import Engine
from sayso.service.metrics import Metrics
from sayso.service.settings import SHIPPED_MODELS, Settings, only_models

BASELINE = SHIPPED_MODELS / "baseline.onnx"


class Service:
    """A test client that sends the key of the default tenant unless told otherwise."""

    def __init__(self, engine: Engine, client: TestClient) -> None:
        self.engine, self.client = engine, client
        self.key = self.new_key("default")

    def new_key(self, tenant: str, scopes: tuple[str, ...] = SCOPES) -> str:
        return self.engine.keys.create_key(tenant, scopes, "test")[1]

    def call(self, method: str, path: str, key: str | None = "", **kwargs: Any) -> Any:
        headers = dict(kwargs.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key or self.key}"
        return self.client.request(method, path, headers=headers, **kwargs)

    def post(self, path: str, **kwargs: Any) -> Any:
        return self.call("POST", path, **kwargs)

    def get(self, path: str, **kwargs: Any) -> Any:
        return self.call("GET", path, **kwargs)

    def enrolled(self, speaker_id: str, *recordings: bytes) -> None:
        """Create and enrol a speaker."""
        assert self.post("/v1/speakers", json={"id": speaker_id}).status_code == 201
        for data in recordings:
            answer = self.post(f"/v1/speakers/{speaker_id}/enrollments", content=data)
            assert answer.status_code == 201, answer.text
        assert answer.json()["status"] == "enrolled"


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """`make_service(max_concurrency=1)`: a service with settings of its own."""
    clients = []

    def make(**values: Any) -> Service:
        settings = Settings(
            **{"data_dir": tmp_path / "data", "models": only_models({"baseline": BASELINE}), **values}
        )
        engine = Engine(settings, Metrics())
        client = TestClient(create_app(engine), raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return Service(engine, client)

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()
