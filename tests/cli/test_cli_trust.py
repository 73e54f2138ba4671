"""The operator's commands: backups, keys, tenants, speakers' rights, the audit log."""

import json
from pathlib import Path

import pytest
from process import Run

from sayso.enroll.secrets.master_key import KeyFile
from sayso.enroll.store import Store
from sayso.enroll.types import NewEnrollment

MODEL = "a" * 64


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """The data folder with two speakers of `default` in it."""
    with Store(tmp_path / "data" / "sayso.db", 10.0) as store:
        for name in ("ann", "bob"):
            store.create_speaker("default", name)
            vectors = {MODEL: [0.6, 0.8] if name == "ann" else [0.8, 0.6]}
            store.add_enrollment("default", name, NewEnrollment(12.0, 13.0, None, 0.0, vectors))  # type: ignore[arg-type]
    return tmp_path / "data"


def test_backup_delete_and_restore(run: Run, filled: Path, tmp_path: Path) -> None:
    made = json.loads(run("backup", "b.db", "--json").stdout)
    assert made["master_key"] == KeyFile(filled / "master.key").first().id
    assert run("backup", "b.db", check=False).returncode == 1
    deleted = run("speakers", "delete", "ann").stdout
    assert "Backups made before still hold this" in deleted
    assert str(tmp_path / "b.db") in deleted
    run("tenants", "delete", "default", "--yes")
    (filled / "sayso.db").unlink()
    assert "restored 2 speakers" in run("restore", "b.db").stdout
    assert run("check").stdout == "sound\n"
    (tmp_path / "noise").write_bytes(b"\xff" * 4096)
    refused = run("restore", "noise", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)


def test_check_finds_and_repairs(run: Run, filled: Path) -> None:
    with Store(filled / "sayso.db", 10.0) as store, store._database.write() as connection:
        connection.execute("DELETE FROM templates WHERE speaker = 1")
    found = run("check", check=False)
    assert found.returncode == 1
    assert "the template is missing" in found.stdout
    assert run("check", "--repair").stdout == "sound\n"


def test_keys_are_rotated(run: Run, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = KeyFile(filled / "master.key").first()
    assert f"master.key.{old.id}" in run("keys", "rotate-master").stdout
    assert KeyFile(filled / "master.key").first() != old
    assert "4 values" in run("tenants", "rotate-key", "default").stdout
    assert "SAYSO_MASTER_KEY_FILE" in run("keys", "rotate-master", "--new-file", "mine.key").stdout
    assert "is master key" in run("check", check=False).stderr
    monkeypatch.setenv("SAYSO_MASTER_KEY_FILE", "mine.key")
    assert run("check").stdout == "sound\n"
    text = (tmp_path / "mine.key").read_text().strip()
    monkeypatch.delenv("SAYSO_MASTER_KEY_FILE")
    monkeypatch.setenv("SAYSO_MASTER_KEY", text)
    assert run("check").stdout == "sound\n"
    assert "--new-file" in run("keys", "rotate-master", check=False).stderr


def test_tenants_are_listed_changed_and_deleted(run: Run, filled: Path) -> None:
    run("tenants", "keep-recordings", "default", "--yes")
    (tenant,) = json.loads(run("tenants", "list", "--json").stdout)
    assert (tenant["name"], tenant["speakers"], tenant["keep_recordings"]) == ("default", 2, True)
    run("tenants", "keep-recordings", "default", "--no")
    assert run("tenants", "delete", "nobody", "--yes", check=False).returncode == 1
    assert "2 speakers" in run("tenants", "delete", "default", "--yes").stdout
    assert run("speakers", "list").stdout == "no speakers\n"


def test_a_speakers_rights(run: Run, filled: Path, tmp_path: Path) -> None:
    run("speakers", "disclose", "ann", "--out", "ann.json")
    assert json.loads((tmp_path / "ann.json").read_text())["templates"][0]["vector"] == pytest.approx(
        [0.6, 0.8]
    )
    assert (tmp_path / "ann.json").stat().st_mode & 0o777 == 0o600
    assert run("speakers", "disclose", "ann", "--out", "ann.json", check=False).returncode == 1
    run("speakers", "opt-out", "ann")
    assert json.loads(run("speakers", "show", "ann", "--json").stdout)["status"] == "opted_out"
    run("speakers", "opt-in", "ann")
    assert json.loads(run("speakers", "show", "ann", "--json").stdout)["status"] == "enrolled"
    outdated = json.loads(run("speakers", "outdated", "--json").stdout)
    assert [o["speaker_id"] for o in outdated] == ["ann", "bob"]


def test_the_audit_log_is_read_and_verified(run: Run, filled: Path) -> None:
    run("speakers", "delete", "ann")
    events = json.loads(run("audit", "list", "--speaker", "ann", "--json").stdout)
    assert [e["event"] for e in events] == ["speaker.created", "enrollment.added", "speaker.deleted"]
    assert events[-1]["actor"].startswith("cli:")
    report = json.loads(run("audit", "verify", "--json").stdout)
    head = f"{report['entries']}:{report['head']}"
    assert head in run("audit", "verify", "--head", head).stdout
    broken = run("audit", "verify", "--head", f"{report['entries']}:{'0' * 64}", check=False)
    assert (broken.returncode, "BROKEN" in broken.stdout) == (1, True)
    assert run("audit", "verify", "--head", "x", check=False).returncode == 2
