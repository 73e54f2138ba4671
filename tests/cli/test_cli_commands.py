"""The command line: it works, says what is wrong in a line, and scores what HTTP scores."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from process import Run, Server
from sounds import voice_of


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """ann1.wav, ann2.wav (enough to enrol) and three takes of two voices."""
    for name in ("ann", "bob"):
        for take in range(3):
            path = tmp_path / name / f"{take}.wav"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(voice_of(name, take, 16 if take == 0 else 5))
    return tmp_path


def test_scores_are_the_same_everywhere(run: Run, files: Path) -> None:
    """Command line, HTTP, evaluate and embed, for the same recordings."""
    run("enroll", "ann", "ann/0.wav")
    by_cli = json.loads(run("verify", "ann", "ann/1.wav", "--json").stdout)
    server = Server(files / "data")  # on the same store
    try:
        server.key = run("keys", "create").stdout.strip()
        server.client.headers["Authorization"] = f"Bearer {server.key}"
        by_http = server.post("/v1/speakers/ann/verify", (files / "ann/1.wav").read_bytes())
        found = server.post("/v1/identify", (files / "ann/1.wav").read_bytes())
        pair = [("audio", (n, (files / n).read_bytes())) for n in ("ann/0.wav", "ann/1.wav")]
        compared = server.client.post("/v1/compare", files=pair).json()
    finally:
        server.close()
    run("embed", "ann/0.wav", "ann/1.wav", "bob/1.wav", "--out", "x.npy")
    vectors = np.load(files / "x.npy")
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 512)
    embedded = float(vectors[0] @ vectors[1])
    same = [by_cli["score"], by_http["score"], found["score"], compared["score"]]
    assert same == pytest.approx([embedded] * 4, abs=1e-5)
    assert by_http["llr"] == pytest.approx(by_cli["llr"], abs=1e-3)
    assert by_http["decision"] == by_cli["decision"]

    trials = files / "x.trials"
    trials.write_text("1 ann/0.wav ann/1.wav\n0 ann/0.wav bob/1.wav\n")
    run("evaluate", "nested", "--trials", str(trials), "--root", ".", "--json", "e.json")
    result = json.loads((files / "e.json").read_text())
    expected = sorted([embedded, float(vectors[0] @ vectors[2])])
    assert result["eer_threshold"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert {"eer", "min_dcf", "cllr", "min_cllr", "targets", "nontargets", "eer_interval"} <= result.keys()


def test_enrol_identify_list_and_delete(run: Run, files: Path) -> None:
    for name in ("ann", "bob"):
        assert f"{name}: enrolled" in run("enroll", name, f"{name}/0.wav").stdout
    found = json.loads(run("identify", "ann/1.wav", "--json").stdout)
    assert found["candidates"][0]["speaker_id"] == "ann"
    assert found["searched"] == 2
    listed = json.loads(run("speakers", "list", "--json").stdout)
    assert [s["id"] for s in listed["items"]] == ["ann", "bob"]
    run("speakers", "delete", "ann")
    assert run("speakers", "show", "ann", check=False).returncode == 1
    assert json.loads(run("identify", "ann/1.wav", "--json").stdout)["searched"] == 1


def test_the_server_sees_what_the_command_line_enrols(run: Run, files: Path) -> None:
    server = Server(files / "data")
    try:
        assert server.post("/v1/identify", (files / "ann/1.wav").read_bytes())["searched"] == 0
        run("enroll", "ann", "ann/0.wav")
        assert server.post("/v1/identify", (files / "ann/1.wav").read_bytes())["searched"] == 1
    finally:
        server.close()


def test_keys_come_and_go(run: Run, files: Path) -> None:
    made = json.loads(run("keys", "create", "--scope", "verify", "--label", "door", "--json").stdout)
    assert made["scopes"] == ["verify"]
    listed = run("keys", "list").stdout
    assert "door" in listed
    assert made["key"] not in listed
    run("keys", "revoke", made["id"])
    assert "revoked" in run("keys", "list").stdout


def test_calibrate_keeps_the_models_identity(run: Run, files: Path) -> None:
    from sayso.service.settings import SHIPPED_MODELS

    path = files / "own.onnx"
    path.write_bytes((SHIPPED_MODELS / "baseline.onnx").read_bytes())
    before = json.loads(run("inspect", "own.onnx", "--json").stdout)
    trials = files / "own.trials"
    pairs = [(a, i, b, j) for a in ("ann", "bob") for i in range(3) for b in ("ann", "bob") for j in range(i)]
    trials.write_text("\n".join(f"{int(a == b)} {a}/{i}.wav {b}/{j}.wav" for a, i, b, j in pairs) + "\n")
    run("calibrate", "own.onnx", "--trials", str(trials), "--root", ".")
    run("evaluate", "own.onnx", "--trials", str(trials), "--root", ".", "--card", "--plots", "plots")
    after = json.loads(run("inspect", "own.onnx", "--json").stdout)
    assert [trials["name"] for trials in after["calibration"]["trials"]] == ["own.trials"]
    assert after["calibration"] != before["calibration"]
    assert after["evaluation"]["own.trials"]["targets"] == 6
    assert after["sha256"] == before["sha256"]
    assert {p.name for p in (files / "plots").iterdir()} == {"own-det.png", "own-scores.png"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("verify", "nobody", "ann/1.wav"), "nobody"),
        (("enroll", "ann", "missing.wav"), "missing.wav"),
        (("identify", "x.trials"), "no audio format that is read"),
        (("inspect", "nothing.onnx"), "no model 'nothing.onnx'"),
        (("inspect", "ann/1.wav"), "ONNX"),
        (("export", "ann/1.wav", "-o", "x.onnx"), "checkpoint"),
        (("evaluate", "baseline", "--trials", "x.trials", "--root", "."), "x.trials"),
        (("embed", "x.trials", "--out", "x.npy"), "x.trials"),
        (("speakers", "delete", "nobody"), "nobody"),
        (("keys", "revoke", "nothing"), "nothing"),
    ],
)
def test_failures_are_one_clear_line(run: Run, files: Path, words: tuple[str, ...], says: str) -> None:
    (files / "x.trials").write_text("1 only-one-path\n")
    done = run(*words, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("sayso: ")
    assert says in done.stderr


@pytest.mark.parametrize(("name", "value"), [("SAYSO_MAX_AUDIO_S", "soon"), ("SAYSO_MODELS", "{bad")])
def test_a_bad_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    done = run("serve", check=False)
    assert done.returncode == 2
    assert name in done.stderr


def test_enrolling_names_what_it_refuses_does_the_rest_and_is_repeatable(run: Run, files: Path) -> None:
    (files / "noise.wav").write_bytes(b"no recording at all")
    done = run("enroll", "ann", "ann/0.wav", "noise.wav", "missing.wav", "ann/1.wav", check=False)
    assert done.returncode == 1
    assert "ann: enrolled" in done.stdout
    assert "2 of 4 recordings taken" in done.stdout
    noise, missing = done.stderr.splitlines()
    assert noise.startswith("sayso: noise.wav: this is no audio format that is read")
    assert missing == "sayso: missing.wav: No such file or directory"
    # Nobody is created without a recording.
    done = run("enroll", "erin", "noise.wav", "missing.wav", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert run("speakers", "show", "erin", check=False).returncode == 1
    answers = json.loads(run("enroll", "ann", "noise.wav", "ann/0.wav", "--json", check=False).stdout)
    assert (answers[0]["outcome"], answers[0]["code"]) == ("refused", "audio_undecodable")
    assert answers[1]["status"] == "enrolled"
    for _ in range(2):
        run("enroll", "ann", "ann/0.wav", "ann/1.wav")
        assert json.loads(run("speakers", "show", "ann", "--json").stdout)["enrollments"] == 2


def test_a_new_admin_key_replaces_the_one_before(files: Path) -> None:
    statuses = []
    for key in ("first-admin-key-0123", "second-admin-key-0123"):
        server = Server(files / "data", SAYSO_ADMIN_KEY=key)
        try:
            for tried in ("first-admin-key-0123", "second-admin-key-0123"):
                headers = {"Authorization": f"Bearer {tried}"}
                statuses.append(server.client.get("/v1/speakers", headers=headers).status_code)
        finally:
            server.close()
    assert statuses == [200, 401, 401, 200]


def test_inspect_lists_the_levels_and_draws_them(run: Run, files: Path) -> None:
    told = run("inspect", "nested", "--draw", "nested.svg", "--draw", "nested.png").stdout
    assert "level 4" in told
    assert "sees level 1, level 2, level 3" in told
    assert "<svg" in (files / "nested.svg").read_text()
    card = json.loads(run("inspect", "baseline", "--json").stdout)
    assert [level["channels"] for level in card["levels"]] == [16, 32, 64, 128]


def test_bench_conditions_scores_both_models(run: Run, files: Path) -> None:
    (files / "t.trials").write_text(
        "1 ann/0.wav ann/1.wav\n1 bob/0.wav bob/2.wav\n0 ann/0.wav bob/1.wav\n0 bob/0.wav ann/2.wav\n"
    )
    rows = json.loads(run("bench", "conditions", "--trials", "t.trials", "--root", ".", "--json").stdout)
    assert {row["model"] for row in rows} == {"baseline", "nested"}
    assert {"whole", "1 s", "3 s", "8 kHz", "10 dB"} <= {row["condition"] for row in rows}


def test_the_serving_commands_never_load_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from sayso.cli import app; "
        "import sayso.service.app; "
        "assert CliRunner().invoke(app, ['inspect', 'baseline']).exit_code == 0; "
        "bad = {'torch', 'onnx', 'matplotlib', 'safetensors'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_templates_are_evaluated_and_few_speakers_said_so(run: Run, files: Path) -> None:
    """Lists of templates, the warning and the missing interval of two speakers, and --halves on them."""
    (files / "t.map").write_text("ann ann/0.wav ann/1.wav\nbob bob/0.wav\n")
    (files / "t.trials").write_text("ann ann/2.wav target\nann bob/1.wav nontarget\nbob bob/1.wav target\n")
    words = ("baseline", "--trials", "t.trials", "--root", ".")
    done = run("--json", "evaluate", *words, "--map", "t.map")
    result = json.loads(done.stdout)
    assert (result["targets"], result["nontargets"], result["speakers"]) == (2, 1, 2)
    assert result["eer_interval"] is None
    assert "t.trials has 2 speakers" in result["warnings"][0]
    assert "sayso: warning: t.trials has 2 speakers" in done.stderr
    assert "no interval: 2 speakers are too few" in run("evaluate", *words, "--map", "t.map").stdout

    refused = run("evaluate", *words, "--map", "t.map", "--halves", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "use a list of more speakers, or leave --halves out" in refused.stderr
    refused = run("evaluate", *words, check=False)
    assert refused.returncode == 1
    assert "2 files cannot be used" in refused.stderr
    assert "If these are templates, give their recordings with --map" in refused.stderr
