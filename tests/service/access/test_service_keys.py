"""API keys: shown once, kept as a hash, honoured until revoked or expired."""

import hashlib
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sayso.enroll import clock
from sayso.enroll.db.sqlite import Database
from sayso.enroll.db.sqlite_schema import MIGRATIONS
from sayso.enroll.errors import InvalidField, KeyNotFound
from sayso.enroll.store import Store
from sayso.service.access.keys import KeyRing

CHOSEN = "an operator's own long secret"


def test_a_made_key_works_and_is_not_in_the_file(store: Store, path: Path) -> None:
    key, text = KeyRing(store.vault).create_key("t", ["read", "verify"], "door")
    assert re.fullmatch(r"sayso_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", text)
    assert KeyRing(store.vault).authenticate(text) == key
    assert (key.tenant, key.label, key.revoked_at) == ("t", "door", None)
    assert key.scopes == {"read", "verify"}
    kept = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert text[-43:].encode() not in kept
    assert hashlib.sha256(text.encode()).digest() in kept


def test_other_texts_do_not_work(store: Store) -> None:
    _, text = KeyRing(store.vault).create_key("t", ["read"], "door")
    KeyRing(store.vault).install_key(CHOSEN, "t", ["admin"], "operator")
    changed = "B" if text[-1] == "A" else "A"
    for wrong in (
        "",
        "sayso_",
        text[:-1],
        text[:-1] + changed,
        text + "A",
        text.upper(),
        CHOSEN[:-1],
        "\ud800",
    ):
        assert KeyRing(store.vault).authenticate(wrong) is None


def test_scopes(store: Store) -> None:
    key, _ = KeyRing(store.vault).create_key("t", ["verify"], "door")
    assert key.allows("verify")
    assert not key.allows("enroll")
    admin, _ = KeyRing(store.vault).create_key("t", ["admin"], "me")
    assert all(admin.allows(scope) for scope in ("read", "enroll", "verify", "embed", "admin"))
    for scopes in ([], ["everything"], ["read", "Read"]):
        with pytest.raises(InvalidField):
            KeyRing(store.vault).create_key("t", scopes, "door")


def test_revoked_keys_stop_working_for_good(store: Store) -> None:
    key, text = KeyRing(store.vault).create_key("t", ["read"], "door")
    revoked = KeyRing(store.vault).revoke_key(key.id)
    assert revoked.revoked_at is not None
    assert KeyRing(store.vault).revoke_key(key.id) == revoked
    assert KeyRing(store.vault).authenticate(text) is None
    with pytest.raises(KeyNotFound, match="nobody"):
        KeyRing(store.vault).revoke_key("nobody")


def test_keys_expire(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    start = datetime.now(UTC)
    key, text = KeyRing(store.vault).create_key("t", ["read"], "door", start + timedelta(hours=1))
    assert KeyRing(store.vault).authenticate(text) == key
    monkeypatch.setattr(clock, "now", lambda: start + timedelta(hours=1))
    assert KeyRing(store.vault).authenticate(text) is None
    with pytest.raises(InvalidField, match="time zone"):
        KeyRing(store.vault).create_key("t", ["read"], "door", datetime(2030, 1, 1))


def test_an_operators_key_is_installed_once(store: Store, path: Path) -> None:
    key = KeyRing(store.vault).install_key(CHOSEN, "t", ["admin"], "operator")
    assert KeyRing(store.vault).install_key(CHOSEN, "t", ["admin"], "again") == key
    assert KeyRing(store.vault).authenticate(CHOSEN) == key
    assert CHOSEN.encode() not in path.with_name("sayso.db-wal").read_bytes()
    KeyRing(store.vault).revoke_key(key.id)
    KeyRing(store.vault).install_key(CHOSEN, "t", ["admin"], "operator")
    assert KeyRing(store.vault).authenticate(CHOSEN) is None
    with pytest.raises(InvalidField):
        KeyRing(store.vault).install_key("x" * 15, "t", ["admin"], "short")


def test_a_made_key_can_be_installed_elsewhere(store: Store, tmp_path: Path) -> None:
    key, text = KeyRing(store.vault).create_key("t", ["admin"], "me")
    with Store(tmp_path / "other.db", 1.0) as other:
        KeyRing(other.vault).install_key(text, "t", ["admin"], "me")
        found = KeyRing(other.vault).authenticate(text)
    assert found is not None
    assert found.id == key.id


def test_a_key_cannot_take_anothers_id(store: Store) -> None:
    key, text = KeyRing(store.vault).create_key("t", ["read"], "door")
    with pytest.raises(InvalidField, match="collides"):
        KeyRing(store.vault).install_key(f"sayso_{key.id}_{'A' * 43}", "t", ["admin"], "thief")
    assert KeyRing(store.vault).authenticate(text) == key


def test_listing_and_the_first_start(store: Store) -> None:
    assert not KeyRing(store.vault).has_keys()
    key, _ = KeyRing(store.vault).create_key("t", ["read"], "door")
    assert KeyRing(store.vault).has_keys()
    revoked = KeyRing(store.vault).revoke_key(key.id)
    assert KeyRing(store.vault).has_keys()
    assert KeyRing(store.vault).list_keys() == [revoked]


def test_a_rotated_key_and_its_successor_work_side_by_side(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime.now(UTC)
    old, text = KeyRing(store.vault).create_key("t", ["read", "verify"], "door")
    new, successor = KeyRing(store.vault).rotate_key(old.id, timedelta(hours=2))
    assert (new.tenant, new.scopes, new.label, new.expires_at) == (old.tenant, old.scopes, old.label, None)
    assert new.id != old.id
    monkeypatch.setattr(clock, "now", lambda: start + timedelta(hours=1))
    assert KeyRing(store.vault).authenticate(text) is not None
    assert KeyRing(store.vault).authenticate(successor) == new
    monkeypatch.setattr(clock, "now", lambda: start + timedelta(hours=3))
    assert KeyRing(store.vault).authenticate(text) is None
    assert KeyRing(store.vault).authenticate(successor) == new
    with pytest.raises(InvalidField, match="revoked or expired"):
        KeyRing(store.vault).rotate_key(old.id, timedelta(hours=2))
    with pytest.raises(KeyNotFound):
        KeyRing(store.vault).rotate_key("nobody", timedelta(0))


def test_rotation_never_lengthens_a_key_and_passes_its_lifetime_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime.now(UTC)
    old, text = KeyRing(store.vault).create_key("t", ["read"], "door", start + timedelta(days=10))
    later = start + timedelta(days=9)
    monkeypatch.setattr(clock, "now", lambda: later)
    new, _ = KeyRing(store.vault).rotate_key(old.id, timedelta(days=7))
    kept = KeyRing(store.vault).authenticate(text)
    assert kept is not None
    assert kept.expires_at == old.expires_at
    lifetime = datetime.fromisoformat(new.expires_at or "") - later
    assert abs(lifetime - timedelta(days=10)) < timedelta(minutes=1)


def test_keys_of_before_go_on_seeing_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.db"
    with monkeypatch.context() as earlier:
        earlier.setattr("sayso.enroll.db.sqlite.MIGRATIONS", MIGRATIONS[:1])
        Database(path).close()
    with sqlite3.connect(path) as connection:
        for name, scopes in (("a", '["read","verify"]'), ("b", '["read"]')):
            values = (name, "t", scopes, "", b"x" * 32, "2026-01-01T00:00:00.000Z")
            connection.execute(
                "INSERT INTO api_keys (id, tenant, scopes, label, digest, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                values,
            )
    connection.close()
    with Store(path, 1.0) as store:
        found = {key.id: key.scopes for key in KeyRing(store.vault).list_keys()}
    assert found == {"a": {"read", "verify", "scores"}, "b": {"read"}}
