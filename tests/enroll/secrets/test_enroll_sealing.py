"""What the disk shows without the key, whose key opens what, and how keys are changed."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from enroll_samples import MODEL, OTHER_MODEL, REQUIRED_S, recording, unit

from sayso.enroll import tenants as tenants_module
from sayso.enroll.errors import MasterKeyUnusable, SealBroken, TenantNotFound
from sayso.enroll.search.index import SpeakerIndex
from sayso.enroll.secrets.master_key import KeyFile, KeyText
from sayso.enroll.store import Store
from sayso.enroll.vectors import to_blob

KEY, OTHER_KEY = "0f" * 32, "f0" * 32
VOICE = bytes(range(256)) * 40


def filled(store: Store, people: int = 3) -> None:
    for tenant in ("t", "u"):
        store.tenants.keep_recordings(tenant, tenant == "t")
        for seed in range(people):
            store.create_speaker(tenant, f"s{seed}")
            vectors = {MODEL: unit(seed, 64), OTHER_MODEL: unit(seed + 100, 32)}
            new = replace(recording(0, REQUIRED_S, vectors), recording=VOICE)
            store.add_enrollment(tenant, f"s{seed}", new)


def assert_whole(store: Store, people: int = 3) -> None:
    for tenant in ("t", "u"):
        for seed in range(people):
            assert np.allclose(store.template(tenant, f"s{seed}", MODEL).vector, unit(seed, 64), atol=1e-6)
    assert store.check_templates() == []
    assert SpeakerIndex(store).check() == []
    assert store.audit.verify().broken is None


def execute(path: Path, statement: str, *values: object) -> list[tuple[bytes, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


def test_the_database_alone_gives_no_vector_and_no_key(store: Store, path: Path) -> None:
    filled(store)
    store.close()
    kept = path.read_bytes()
    secret = bytes.fromhex(path.with_name("master.key").read_text())
    assert secret not in kept
    assert secret.hex().encode() not in kept
    hidden = [to_blob(unit(seed, 64)) for seed in range(3)] + [to_blob(unit(s + 100, 32)) for s in range(3)]
    for blob in [*hidden, VOICE]:
        assert not any(blob[at : at + 16] in kept for at in range(0, len(blob), 4))
    path.with_name("master.key").unlink()
    with pytest.raises(MasterKeyUnusable, match=r"master\.key is missing"):
        Store(path, REQUIRED_S)
    assert not path.with_name("master.key").exists()  # a new one would open nothing


def test_every_value_is_sealed_differently(store: Store, path: Path) -> None:
    """Equal vectors must not look equal, and nothing but the key number may repeat."""
    for name in ("alice", "bob"):
        store.create_speaker("t", name)
        store.add_enrollment("t", name, recording(1, REQUIRED_S))
    sealed = [
        row[0]
        for row in execute(path, "SELECT sealed FROM embeddings UNION ALL SELECT sealed FROM templates")
    ]
    assert len(sealed) == 4
    assert len({blob[:8] for blob in sealed}) == 1
    assert len({blob[at : at + 8] for blob in sealed for at in range(8, 24, 8)}) == 8
    assert len({blob[20:] for blob in sealed}) == 4


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE templates SET sealed = (SELECT sealed FROM templates WHERE speaker = 2)",
        "UPDATE templates SET sealed = (SELECT sealed FROM embeddings WHERE enrollment = 1)",
        "UPDATE templates SET sealed = CAST(substr(sealed, 1, length(sealed) - 1)"
        " || CASE WHEN substr(sealed, -1) = X'00' THEN X'01' ELSE X'00' END AS BLOB)",
        "UPDATE templates SET sealed = X''",
        "UPDATE templates SET sealed = X'FFFFFFFFFFFFFFFF00'",
        "DELETE FROM tenant_keys WHERE purpose = 'seal'",
        "UPDATE tenant_keys SET wrapped = (SELECT wrapped FROM tenant_keys WHERE purpose = 'pseudonym')",
    ],
)
def test_a_value_opens_only_in_its_place(store: Store, path: Path, tamper: str) -> None:
    for name in ("alice", "bob"):
        store.create_speaker("t", name)
        store.add_enrollment("t", name, recording(len(name), REQUIRED_S))
    execute(path, tamper)
    with pytest.raises(SealBroken, match="sayso check"):
        store.template("t", "alice", MODEL)
    with pytest.raises(SealBroken):
        SpeakerIndex(store).search("t", MODEL, unit(1), 1)
    assert store.check_templates() != []


def test_a_template_can_be_made_again_from_the_enrolments(store: Store, path: Path) -> None:
    filled(store)
    index = SpeakerIndex(store)
    index.warm()
    execute(path, "UPDATE templates SET sealed = X'00' WHERE speaker = 1 AND model_sha256 = ?", MODEL)
    execute(path, "DELETE FROM templates WHERE speaker = 2")
    assert len(store.check_templates()) == 3
    assert store.rebuild_templates() == 6
    assert_whole(store)
    assert index.check() == []


@pytest.mark.parametrize("text", ["", "x", "0f" * 31, "0f" * 33, "zz" * 32, "0f0f", "\N{SNOWMAN}" * 64])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MasterKeyUnusable, match="64 hex digits"):
        KeyText(text)
    file = tmp_path / "k"
    file.write_text(text)
    with pytest.raises(MasterKeyUnusable, match="64 hex digits"):
        Store(tmp_path / "sayso.db", REQUIRED_S, KeyFile(file))
    assert file.read_text() == text


def test_another_key_is_refused_and_named(path: Path) -> None:
    with Store(path, REQUIRED_S, KeyText(KEY)) as store:
        filled(store)
    assert not path.with_name("master.key").exists()
    with pytest.raises(MasterKeyUnusable, match=KeyText(OTHER_KEY).first().id):
        Store(path, REQUIRED_S, KeyText(OTHER_KEY))
    with pytest.raises(MasterKeyUnusable, match="missing"):
        Store(path, REQUIRED_S)
    with Store(path, REQUIRED_S, KeyText(f" {KEY.upper()}\n")) as store:
        assert_whole(store)


def test_a_key_is_not_shown_where_it_is_printed() -> None:
    assert KEY not in repr(KeyText(KEY).first())
    assert repr(bytes.fromhex(KEY)) not in repr(KeyText(KEY).first())


def test_rotating_a_tenants_key_seals_everything_anew(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenants_module, "_VALUES_AT_ONCE", 2)
    filled(store)
    everything = " UNION ALL ".join(
        f"SELECT sealed FROM {t}" for t in ("embeddings", "templates", "recordings")
    )
    before = {row[0] for row in execute(path, everything)}
    steps: list[int] = []
    assert store.tenants.rotate_key("t", steps.append) == sum(steps) == 15
    after = {row[0] for row in execute(path, everything)}
    assert len(before & after) == 12  # the other tenant's
    assert len({blob[:8] for blob in after}) == 2
    kept = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert not any(blob[24:40] in kept for blob in before - after)
    assert_whole(store)
    with pytest.raises(TenantNotFound):
        store.tenants.rotate_key("nobody")


def test_a_rotation_that_was_cut_short_leaves_everything_readable(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenants_module, "_VALUES_AT_ONCE", 2)
    filled(store)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.tenants.rotate_key("t", interrupt)
    assert_whole(store)
    store.tenants.rotate_key("t")
    assert execute(path, "SELECT COUNT(*) FROM tenant_keys WHERE tenant = 't' AND purpose = 'seal'") == [(1,)]
    assert_whole(store)


def rotate(store: Store, keys: KeyFile) -> None:
    new = keys.prepare()
    store.tenants.rotate_master(new)
    keys.promote(new.id)


def test_rotating_the_master_key_leaves_values_and_changes_wraps(store: Store, path: Path) -> None:
    filled(store)
    keys = KeyFile(path.with_name("master.key"))
    old = keys.first()
    sealed, wrapped = (
        execute(path, "SELECT sealed FROM embeddings"),
        execute(path, "SELECT wrapped FROM tenant_keys"),
    )
    with Store(path, REQUIRED_S) as other:  # a server that runs meanwhile
        other.template("t", "s1", MODEL)
        rotate(store, keys)
        assert_whole(other)
    assert_whole(store)
    assert execute(path, "SELECT sealed FROM embeddings") == sealed
    assert not set(execute(path, "SELECT wrapped FROM tenant_keys")) & set(wrapped)
    assert keys.first() != old
    assert keys.kept(old.id).stat().st_mode & 0o777 == 0o600
    keys.kept(old.id).unlink()
    with Store(path, REQUIRED_S) as again:
        assert_whole(again)
    with pytest.raises(MasterKeyUnusable):
        Store(path, REQUIRED_S, KeyText(old.secret.hex()))


def test_a_master_rotation_cut_short_at_any_step_is_finished_or_forgotten(path: Path) -> None:
    with Store(path, REQUIRED_S) as store:
        filled(store)
        keys = KeyFile(path.with_name("master.key"))
        old = keys.first()
        unused = keys.prepare()  # and killed: the database knows nothing of it
        assert_whole(store)
        with Store(path, REQUIRED_S) as again:
            assert_whole(again)
        assert keys.first() == old
        new = keys.prepare()
        store.tenants.rotate_master(new)  # and killed: the file is not in place yet
        assert keys.first() == old
    with Store(path, REQUIRED_S) as again:
        assert_whole(again)
    assert keys.first() == new
    assert keys.load(old.id) == old
    kept = {f"master.key.{key.id}" for key in (old, unused, new)}
    assert {file.name for file in path.parent.iterdir()} == {"master.key", "sayso.db", *kept}


def test_rotations_at_once_lose_no_key(path: Path) -> None:
    with Store(path, REQUIRED_S) as store, Store(path, REQUIRED_S) as other:
        filled(store)
        keys = KeyFile(path.with_name("master.key"))
        first, second = keys.prepare(), keys.prepare()
        store.tenants.rotate_master(first)
        other.tenants.rotate_master(second)
        keys.promote(second.id)
        keys.promote(first.id)  # too late: the database names the second one
        assert_whole(store)
        assert_whole(other)
    with Store(path, REQUIRED_S) as again:
        assert_whole(again)
    assert keys.first() == second


@pytest.mark.parametrize("call", ["first", "prepare"])
def test_a_key_that_cannot_be_written_whole_is_not_written(tmp_path: Path, call: str) -> None:
    """The disk takes a part of it: half a key would open nothing, and what it sealed would be lost."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from sayso.enroll.secrets.master_key import KeyFile\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))\n"
        f"KeyFile(Path(sys.argv[1])).{call}()"
    )
    folder = tmp_path / "keys"
    done = subprocess.run([sys.executable, "-c", code, folder / "master.key"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert list(folder.iterdir()) == []
