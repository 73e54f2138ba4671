"""Over HTTP: consent and expiry, export, the audit log, kept recordings, one server a store."""

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from process import Server
from sounds import voice_of

from sayso.enroll import clock
from sayso.enroll.moving.backup import make_backup
from sayso.service.access.keys import SCOPES
from sayso.service.settings import SHIPPED_MODELS, Settings, only_models
from sayso.service.upkeep import reembed

BOTH = {name: SHIPPED_MODELS / f"{name}.onnx" for name in ("baseline", "nested")}
ONE = only_models({"baseline": BOTH["baseline"]})


def in_years(years: int) -> str:
    return (datetime.now(UTC) + timedelta(days=365 * years)).isoformat()


def test_consent_and_expiry_are_kept_and_shown(service: Any) -> None:
    consent = {"given_at": "2026-01-02T03:04:05+01:00", "reference": "form 7"}
    made = service.post("/v1/speakers", json={"id": "ann", "consent": consent, "expires_at": in_years(1)})
    assert made.status_code == 201, made.text
    assert made.json()["consent"] == {"given_at": "2026-01-02T02:04:05.000Z", "reference": "form 7"}
    expires = made.json()["expires_at"]
    assert service.call("PATCH", "/v1/speakers/ann", json={"name": "Ann"}).json()["expires_at"] == expires
    changed = service.call("PATCH", "/v1/speakers/ann", json={"consent": None, "expires_at": None}).json()
    assert (changed["consent"], changed["expires_at"]) == (None, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2090-01-01T00:00:00"},
        {"expires_at": "soon"},
        {"consent": {}},
        {"consent": {"given_at": "2020-01-01"}},
        {"consent": {"given_at": "2090-01-01T00:00:00Z"}},
        {"consent": {"given_at": "2020-01-01T00:00:00Z", "by": "me"}},
    ],
)
def test_what_is_no_consent_or_expiry_is_refused(service: Any, fields: dict[str, Any]) -> None:
    assert service.post("/v1/speakers", json={"id": "ann", **fields}).status_code == 422
    assert service.get("/v1/speakers").json()["items"] == []


def test_an_expired_speaker_is_gone(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service.post("/v1/speakers", json={"id": "ann", "expires_at": in_years(1)})
    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + timedelta(days=366))
    assert service.get("/v1/speakers/ann").status_code == 404
    assert service.engine.store.rights.expire() == 1


def test_a_deletion_says_what_backups_hold(service: Any, tmp_path: Path) -> None:
    service.enrolled("ann", voice_of("ann", 1, 16))
    make_backup(service.engine.store, tmp_path / "b.db")
    service.post("/v1/speakers", json={"id": "bob"})
    held = [service.call("DELETE", f"/v1/speakers/{n}").headers["Sayso-Backups"] for n in ("ann", "bob")]
    assert held == ["1", "0"]
    mirrors = service.engine.index._mirrors.values()
    assert [mirror._roster._ids for mirror in mirrors if mirror._roster._ids] == []


def test_a_deleted_opt_out_stays_in_force(service: Any) -> None:
    service.post("/v1/speakers", json={"id": "ann"})
    service.call("PATCH", "/v1/speakers/ann", json={"status": "opted_out"})
    assert service.call("DELETE", "/v1/speakers/ann").status_code == 204
    again = service.post("/v1/speakers", json={"id": "ann"})
    assert (again.status_code, again.json()["code"]) == (409, "speaker_opted_out")


def test_everything_kept_is_exported_to_an_admin_only(service: Any) -> None:
    service.enrolled("ann", voice_of("ann", 1, 16))
    lesser = service.new_key("default", tuple(s for s in SCOPES if s != "admin"))
    assert service.get("/v1/speakers/ann/export", key=lesser).status_code == 403
    found = service.get("/v1/speakers/ann/export").json()
    assert len(next(iter(found["enrollments"][0]["embeddings"].values()))) == 512
    assert found["enrollments"][0]["recording"] is None
    assert [event["event"] for event in found["audit"]][:2] == ["speaker.created", "enrollment.added"]


def test_decisions_and_changes_are_logged_with_their_key(service: Any) -> None:
    service.enrolled("ann", voice_of("ann", 1, 16))
    verified = service.post("/v1/speakers/ann/verify", content=voice_of("ann", 2)).json()
    service.post("/v1/identify", content=voice_of("ann", 3))
    service.post("/v1/embeddings", content=voice_of("ann", 3))
    audit = service.engine.store.audit
    assert audit.verify().broken is None
    key = next(k.id for k in service.engine.keys.list_keys())
    events = [event for event in audit.events() if event.actor == f"key:{key}"]
    assert [event.event for event in events] == [
        "speaker.created",
        "enrollment.added",
        "verify",
        "identify",
        "embedding",
    ]
    assert events[2].facts["decision"] == verified["decision"]
    assert events[2].facts["request"] == verified["request_id"]
    assert events[2].speaker == events[0].speaker


def test_a_new_model_embeds_what_was_kept(make_service: Callable[..., Any]) -> None:
    before = make_service(models=ONE)
    before.engine.store.tenants.keep_recordings("default", True)
    before.enrolled("ann", voice_of("ann", 1, 16))
    before.client.__exit__(None, None, None)  # the service stops, and starts again with another model
    after = make_service(models=BOTH)
    nested = after.engine.model("nested").embedder.sha256
    while after.engine.store.recordings.to_embed(nested):
        time.sleep(0.01)
    found = after.post("/v1/speakers/ann/verify?model=nested", content=voice_of("ann", 2))
    assert found.status_code == 200, found.text
    (enrolled,) = after.get("/v1/speakers/ann/export").json()["enrollments"]
    again = after.post("/v1/embeddings?model=nested", content=voice_of("ann", 1, 16)).json()["embedding"]
    assert enrolled["embeddings"][nested] == pytest.approx(again, abs=1e-5)
    assert b'sayso_reembedding_recordings{model="nested"} 0.0' in after.client.get("/metrics").content


def test_a_model_without_recordings_is_refused_not_mixed(make_service: Callable[..., Any]) -> None:
    before = make_service(models=ONE)
    before.enrolled("ann", voice_of("ann", 1, 16))
    before.client.__exit__(None, None, None)
    after = make_service(models=BOTH)
    refused = after.post("/v1/speakers/ann/verify?model=nested", content=voice_of("ann", 2))
    assert (refused.status_code, refused.json()["code"]) == (409, "model_mismatch")
    found = after.post("/v1/identify?model=nested", content=voice_of("ann", 3)).json()
    assert (found["searched"], found["not_compared"]) == (0, 1)
    assert (found["decision"], found["reason"]) == ("no_match", "model_mismatch")
    found = after.post("/v1/identify?model=baseline", content=voice_of("ann", 4)).json()
    assert (found["searched"], found["not_compared"]) == (1, 0)
    assert after.post("/v1/speakers/ann/enrollments", content=voice_of("ann", 5, 16)).status_code == 201
    after.engine.lacking.refresh()
    found = after.post("/v1/identify?model=nested", content=voice_of("ann", 6)).json()
    assert (found["searched"], found["not_compared"]) == (1, 0)
    assert after.post("/v1/speakers/ann/verify", content=voice_of("ann", 2)).status_code == 200


def test_a_recording_that_cannot_be_embedded_is_left_as_it_is(make_service: Callable[..., Any]) -> None:
    service = make_service(models=BOTH)
    store = service.engine.store
    store.tenants.keep_recordings("default", True)
    service.enrolled("ann", voice_of("ann", 1, 16))
    with store._database.write() as connection:
        transaction = store.vault.transaction(connection)
        connection.execute(
            "DELETE FROM embeddings WHERE model_sha256 = ?", (service.engine.model("nested").embedder.sha256,)
        )
        broken = transaction.seal("default", "recording of enrolment 1", b"no audio")
        connection.execute("UPDATE recordings SET sealed = ?", (broken,))
    steps: list[tuple[int, int]] = []
    assert reembed(service.engine, lambda *step: steps.append(step)) == (0, 1)
    assert steps == [(1, 1)]


def test_a_second_server_on_the_store_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    try:
        second = subprocess.run(
            [sys.executable, "-m", "sayso", "serve", "--port", "0"],
            env=server.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        server.close()
    assert second.returncode == 1
    assert f"held by another server (process {server.process.pid} on" in second.stderr


def test_the_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    given = Settings(data_dir=tmp_path, master_key="0f" * 32)
    assert given.key_source.first().secret == bytes.fromhex("0f" * 32)
    assert "0f0f" not in repr(given)
    assert not list(tmp_path.iterdir())
    file = tmp_path / "elsewhere" / "key"
    assert Settings(data_dir=tmp_path, master_key_file=file).key_source.first() is not None
    assert file.stat().st_mode & 0o777 == 0o600
