"""`sayso store` as an operator runs it: a store taken to PostgreSQL and back, and served from there."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from enroll_samples import MODEL, recording
from pgserver import MASTER_KEY, Server, serving
from process import Run

from sayso.enroll.secrets.master_key import KeyText
from sayso.enroll.store import Store


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from serving()


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAYSO_MASTER_KEY", MASTER_KEY)
    path = tmp_path / "data" / "sayso.db"
    with Store(path, 10.0, KeyText(MASTER_KEY)) as store:
        for seed in range(3):
            store.create_speaker("default", f"s{seed}")
            store.add_enrollment("default", f"s{seed}", recording(seed, 12.0))
    return path


def test_there_and_back_and_used_from_there(
    run: Run, filled: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = server.url(server.database())
    done = json.loads(run("store", "copy", f"sqlite:{filled}", address, "--json").stdout)
    assert (done["rows"]["speakers"], done["resumed"]) == (3, False)
    again = run("store", "copy", f"sqlite:{filled}", address, check=False)
    assert again.returncode == 1
    assert "holds a store already" in again.stderr
    back = tmp_path / "back" / "sayso.db"
    assert "searches agree" in run("store", "copy", address, f"sqlite:{back}").stdout
    assert [line.split()[0] for line in run("speakers", "list", data="back").stdout.splitlines()] == [
        "s0",
        "s1",
        "s2",
    ]
    monkeypatch.setenv("SAYSO_STORE", address)
    run("speakers", "delete", "s1", data="elsewhere")
    assert "s1" not in run("speakers", "list", data="elsewhere").stdout
    assert "had an index" not in run("store", "index", "--above", "1").stdout
    listed = json.loads(run("store", "index", "--above", "1", "--json").stdout)
    assert [(one["tenant"], one["model_sha256"], one["templates"], one["indexed"]) for one in listed] == [
        ("default", MODEL, 2, True)
    ]
    assert run("check", data="elsewhere").stdout.strip() == "sound"
    assert "unbroken" in run("audit", "verify", data="elsewhere").stdout
    for command in (("backup", str(tmp_path / "b")), ("restore", str(back))):
        refused = run(*command, check=False)
        assert refused.returncode == 1
        assert len(refused.stderr.splitlines()) == 1
        assert "PostgreSQL" in refused.stderr


def test_what_cannot_be_copied_says_why(run: Run, filled: Path, tmp_path: Path) -> None:
    missing = run("store", "copy", f"sqlite:{tmp_path}/none.db", "postgresql://x@127.0.0.1:1/x", check=False)
    assert missing.returncode == 1
    assert "is no file" in missing.stderr
    away = run("store", "copy", f"sqlite:{filled}", "postgresql://x:secret@127.0.0.1:1/x", check=False)
    assert away.returncode == 1
    assert "secret" not in away.stderr
    assert "127.0.0.1" in away.stderr
    assert run("store", "copy", str(filled), "postgresql://x@h/x", check=False).returncode == 2
    embedded = run("store", "index", check=False)
    assert embedded.returncode == 1
    assert "SAYSO_STORE" in embedded.stderr
