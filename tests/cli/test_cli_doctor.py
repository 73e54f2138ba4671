"""`sayso doctor` tells what is well, what may surprise, and what keeps the service from its work."""

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from enroll_samples import recording
from process import Run

from sayso.cli import common, doctor
from sayso.cli.doctor import Finding, examine
from sayso.enroll import clock
from sayso.enroll.db.lock import only_server
from sayso.enroll.moving.backup import make_backup
from sayso.enroll.store import Store
from sayso.runtime.card import read_card, write_card
from sayso.service.access.keys import SCOPES, KeyRing
from sayso.service.settings import SHIPPED_MODELS, Settings, only_models

MODEL = SHIPPED_MODELS / "nested.onnx"


class Disk(NamedTuple):
    total: int
    used: int
    free: int


def look(folder: Path, **values: Any) -> dict[str, list[Finding]]:
    """What is found, by what was looked at."""
    chosen = Settings(**{"data_dir": folder, "models": only_models({"nested": MODEL}), **values})
    findings: dict[str, list[Finding]] = {}
    for finding in examine(chosen):
        findings.setdefault(finding.what, []).append(finding)
    return findings


def only(found: dict[str, list[Finding]], what: str) -> tuple[str, str, str | None]:
    (one,) = found[what]
    return one.state, one.told, one.fix


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "sayso.db", 10.0) as store:
        KeyRing(store.vault).create_key("default", SCOPES, "first")
        yield store


def test_a_new_machine_is_well(run: Run) -> None:
    said = run("doctor").stdout
    assert "broken" not in said
    for name in ("baseline on CPUExecutionProvider", "nested on CPUExecutionProvider", "none yet"):
        assert name in said
    assert "from this machine only" in said
    assert "campplus can be added: EER" in said
    assert "-> sayso models add campplus" in said


def test_what_is_broken_ends_with_1(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_text("no model")
    monkeypatch.setenv("SAYSO_MODELS", f'{{"mine": "{tmp_path}/mine.onnx"}}')
    done = run("doctor", "--json", check=False)
    assert done.returncode == 1
    (broken,) = [one for one in json.loads(done.stdout) if one["state"] == "broken"]
    assert broken["what"] == "models"
    assert "mine.onnx" in broken["told"]


def test_a_store_in_use_is_looked_into(store: Store, tmp_path: Path) -> None:
    make_backup(store, tmp_path / "backup.db")
    with only_server(tmp_path / "sayso.db", "http://127.0.0.1:8000"):
        found = look(tmp_path)
    states = {one.state for ones in found.values() for one in ones}
    assert states == {"ok"}
    assert "running: process" in only(found, "service")[1]
    assert only(found, "API keys")[1] == "1 valid"
    assert str(tmp_path / "backup.db") in only(found, "backup")[1]
    assert str(tmp_path / "master.key") in only(found, "master key")[1]
    assert only(look(tmp_path), "service")[1] == "not running on this store"


def test_keys_and_backups_that_need_somebody(store: Store, tmp_path: Path) -> None:
    soon = clock.now() + timedelta(days=3)
    key, _ = KeyRing(store.vault).create_key("default", ("verify",), "the door", expires_at=soon)
    (tmp_path / "master.key").chmod(0o644)
    found = look(tmp_path)
    assert found["API keys"][1].fix == f"sayso keys rotate {key.id} --hours 24"
    assert only(found, "backup") == ("look", "none was ever made of this store", "sayso backup FILE")
    assert only(found, "master key")[::2] == ("look", f"chmod 600 {tmp_path / 'master.key'}")


def test_a_store_that_nobody_may_call(tmp_path: Path) -> None:
    with Store(tmp_path / "sayso.db", 10.0):
        pass
    assert only(look(tmp_path), "API keys")[0] == "broken"
    assert only(look(tmp_path, admin_key="sixteen characters"), "API keys")[0] == "ok"


def test_stores_that_cannot_be_opened(store: Store, tmp_path: Path) -> None:
    state, told, _ = only(look(tmp_path, master_key="0" * 64), "store")
    assert state == "broken"
    assert "sealed with" in told
    other = tmp_path / "other"
    other.mkdir()
    (other / "sayso.db").write_bytes(b"SQLite format 3\x00" + b"\x00" * 4080)
    assert only(look(other), "store")[0] == "broken"


def test_speakers_enrolled_without_a_model_are_counted(store: Store, tmp_path: Path) -> None:
    store.create_speaker("default", "ann")
    store.add_enrollment("default", "ann", recording(net_speech_s=30.0))
    found = look(tmp_path)["store"]
    assert found[1].told == "speakers enrolled without the model nested: 1"
    assert found[1].fix == "sayso speakers outdated --model nested"


def test_a_model_without_calibration_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    path.write_bytes(MODEL.read_bytes())
    write_card(path, replace(read_card(path.read_bytes(), "bare"), calibration=None))
    state, told, fix = only(look(tmp_path, models=only_models({"bare": path})), "model")
    assert (state, fix) == ("look", "sayso calibrate bare --trials TRIALS --root FOLDER")
    assert "refuses to decide" in told
    assert (
        only(look(tmp_path, models=only_models({"bare": path}), thresholds={"bare": 0.5}), "model")[0] == "ok"
    )


def test_hardware_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cuda_driver_present", lambda: False)
    monkeypatch.setattr(doctor, "available_cores", lambda: 8)
    monkeypatch.setattr(doctor, "_CPU_QUOTA", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert only(look(tmp_path, provider="cuda"), "provider")[0] == "broken"
    assert look(tmp_path)["machine"][1].fix == "SAYSO_THREADS=2"
    assert len(look(tmp_path, threads=2)["machine"]) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert len(look(tmp_path)["machine"]) == 1


@pytest.mark.parametrize(("free", "state"), [(2**20, "broken"), (2**29, "look"), (2**40, "ok")])
def test_a_disk_that_fills(free: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Disk(2**41, 2**41 - free, free))
    assert only(look(tmp_path / "not" / "there" / "yet"), "data")[0] == state


def test_an_open_door_is_told(tmp_path: Path) -> None:
    found = look(tmp_path, host="0.0.0.0")
    assert [one.state for one in found["network"]] == ["look", "look"]
    assert "in the clear" in found["network"][0].told
    closed = look(tmp_path, host="0.0.0.0", metrics_key="sixteen characters")
    assert len(closed["network"]) == 1


CAPLESS = shutil.which("setpriv") is not None and hasattr(os, "getuid") and os.getuid() == 0


@pytest.mark.skipif(not CAPLESS, reason="needs root, to be without root's rights")
def test_a_store_of_another_user_is_reported(store: Store, tmp_path: Path) -> None:
    """As in a container or after `sudo`: one line is broken, the others are there."""
    data = tmp_path / "theirs"
    data.mkdir()
    (data / "sayso.db").touch()
    shutil.chown(data, 65534)
    data.chmod(0o700)
    words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "sayso", "doctor"]
    environment = {**os.environ, "SAYSO_DATA_DIR": str(data)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    (broken,) = [line for line in lines if line.startswith("broken  store")]
    owner = pwd.getpwuid(65534).pw_name
    assert f"belongs to {owner}, you are {pwd.getpwuid(0).pw_name}" in broken
    assert any(line.startswith("broken  data") and "cannot be written to" in line for line in lines)
    assert any(line.startswith("ok      machine") for line in lines)
    assert any("network" in line for line in lines)


def test_what_cannot_be_looked_at_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(chosen: Settings, served: Any) -> Iterator[Finding]:
        raise PermissionError(13, "Permission denied", str(tmp_path / "sayso.db"))
        yield

    monkeypatch.setattr(doctor, "_store", refuse)
    findings = look(tmp_path)
    state, told, fix = only(findings, "store")
    assert state == "broken"
    assert f"{tmp_path} belongs to {tmp_path.owner()}, you are " in told
    assert fix is not None
    assert f"sudo -u {tmp_path.owner()}" in fix
    assert "network" in findings


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert common.user() == str(os.getuid())
