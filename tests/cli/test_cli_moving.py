"""Moving in and out: many people enrolled at once, and speakers taken to another instance."""

import csv
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from process import Run
from sounds import voice_of

from sayso.bulk import BulkError, read_source


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    """A folder a speaker: ann has enough speech, bob too little, cat a file that is no recording."""
    for name, take, seconds in (("ann", 0, 9), ("ann", 1, 9), ("bob", 0, 5), ("cat", 0, 16)):
        path = tmp_path / "voices" / name / f"{take}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(voice_of(name, take, seconds))
    (tmp_path / "voices" / "cat" / "notes.txt").write_text("not a voice")
    (tmp_path / "voices" / "empty").mkdir()
    return tmp_path / "voices"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_enrolled_with_a_report_and_doing_it_again_adds_nothing(run: Run, voices: Path) -> None:
    done = run("enroll", "--from", "voices", "--report", "report.csv", check=False)
    assert done.returncode == 1  # something was refused
    assert "4 of 5 recordings taken; 2 of 3 speakers enrolled" in done.stdout
    assert "notes.txt: this is no audio format that is read" in done.stdout
    report = rows(voices.parent / "report.csv")
    assert [(row["speaker"], row["outcome"], row["status"]) for row in report] == [
        ("ann", "added", "enrolling"),
        ("ann", "added", "enrolled"),
        ("bob", "added", "enrolling"),
        ("cat", "added", "enrolled"),
        ("cat", "refused", ""),
    ]
    assert report[4]["code"] == "audio_undecodable"
    assert float(report[2]["remaining_speech_s"]) > 0

    (voices / "cat" / "notes.txt").unlink()
    again = run("enroll", "--from", "voices", "--json")
    assert [row["outcome"] for row in json.loads(again.stdout)] == ["known"] * 4
    shown = json.loads(run("speakers", "show", "ann", "--json").stdout)
    assert shown["enrollments"] == 2


def test_a_csv_brings_names_and_groups(run: Run, voices: Path) -> None:
    lines = [
        "path,speaker,name,groups",
        "voices/ann/0.wav,a-1,Ann Ode,staff; night",
        "voices/ann/1.wav,a-1,,",
        "voices/missing.wav,b-2,,",
    ]
    (voices.parent / "people.csv").write_text("\ufeff" + "\n".join(lines))
    done = run("enroll", "--from", "people.csv", check=False)
    assert "missing.wav: No such file or directory" in done.stdout
    shown = json.loads(run("speakers", "show", "a-1", "--json").stdout)
    assert (shown["name"], shown["groups"], shown["status"]) == ("Ann Ode", ["night", "staff"], "enrolled")


def test_loose_recordings_are_reported_and_names_become_ids(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "v"
    for name in ("Tom Jones/1.wav", "J\u00fcrgen/1.wav", "anna.wav", ".DS_Store", ".hidden/1.wav", "b.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        who = "bob" if name.startswith("J") else "ann"
        (folder / name).write_bytes(voice_of(who, 0, 16 if "/" in name else 5))
    (folder / "noise").mkdir()
    (folder / "noise/1.wav").write_text("no recording")
    done = run("enroll", "--from", "v", "--report", "v/report.csv", check=False)
    assert done.returncode == 1
    assert "2 of 5 recordings taken; 2 of 3 speakers enrolled" in done.stdout
    by_file = {Path(row["path"]).name: row for row in rows(folder / "report.csv") if row["code"]}
    assert by_file["anna.wav"]["code"] == by_file["b.txt"]["code"] == "no_speaker"
    assert "put it into a folder named after its speaker" in by_file["anna.wav"]["detail"]
    speakers = json.loads(run("speakers", "list", "--json").stdout)["items"]
    assert {s["id"]: s["name"] for s in speakers} == {"Tom-Jones": "Tom Jones", "Jurgen": "J\u00fcrgen"}
    again = run("enroll", "--from", "v", "--report", "v/report.csv", "--json", check=False)
    assert [row["outcome"] for row in json.loads(again.stdout)].count("known") == 2


def test_two_names_never_become_one_speaker(tmp_path: Path) -> None:
    for name in ("Tom Jones", "Tom-Jones"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.wav").touch()
    with pytest.raises(BulkError, match="'Tom-Jones' and 'Tom Jones' would both get the id Tom-Jones"):
        read_source(tmp_path)
    people = tmp_path / "p.csv"
    people.write_text("path,speaker\n1.wav,Tom Jones\n2.wav,Tom  Jones\n")
    with pytest.raises(BulkError, match="would both get the id"):
        read_source(people)
    names = ("\u5c71\u7530", "\u5c71\u672c")  # two that no Latin letter is left of
    rows = [f"1.wav,{names[0]},Yamada", f"2.wav,{names[0]},", f"3.wav,{names[1]},"]
    people.write_text("\n".join(["path,speaker,name", *rows]))
    yamada, yamamoto = read_source(people).people
    assert (yamada.name, len(yamada.files), yamamoto.name) == ("Yamada", 2, names[1])
    assert yamada.id != yamamoto.id


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("file,who\n", "lacks the column `path`"),
        ("path,speaker\na.wav,\n", "line 2: path and speaker are both needed"),
        ("path,speaker\n", "holds nobody"),
        (b"\xff\xfe\x00", "not a CSV in UTF-8"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused_whole(
    run: Run, tmp_path: Path, content: str | bytes, problem: str
) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run("enroll", "--from", "people.csv", check=False)
    assert (done.returncode, problem in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("words", [["--from", "voices", "ann"], [], ["ann"]])
def test_ids_and_from_do_not_mix(run: Run, voices: Path, words: list[str]) -> None:
    assert run("enroll", *words, check=False).returncode == 2


def test_speakers_move_to_another_instance_and_score_the_same(run: Run, voices: Path) -> None:
    run("enroll", "--from", "voices", check=False)
    out = run("speakers", "export", "all.jsonl").stdout
    assert "3 speakers" in out
    path = voices.parent / "all.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    refused = run("speakers", "export", "all.jsonl", check=False)
    assert (refused.returncode, "exists already" in refused.stderr) == (1, True)

    first = json.loads(run("speakers", "import", "all.jsonl", "--json", data="there").stdout)
    assert (first["created"], first["enrollments"], first["refused"]) == (3, 4, [])
    second = json.loads(run("speakers", "import", "all.jsonl", "--json", data="there").stdout)
    assert (second["created"], second["known"], second["enrollments"], second["already_there"]) == (
        0,
        3,
        0,
        4,
    )

    probe = voices.parent / "probe.wav"
    probe.write_bytes(voice_of("ann", 5))
    here, there = (
        [
            json.loads(run("verify", "ann", "probe.wav", "--model", model, "--json", data=data).stdout)[
                "score"
            ]
            for model in ("baseline", "nested")
        ]
        for data in ("data", "there")
    )
    assert here == there
    assert json.loads(run("identify", "probe.wav", "--json", data="there").stdout)["searched"] == 2


def test_an_import_that_stopped_half_way_is_finished_by_doing_it_again(run: Run, voices: Path) -> None:
    run("enroll", "--from", "voices", check=False)
    run("speakers", "export", "all.jsonl")
    lines = (voices.parent / "all.jsonl").read_text().splitlines()
    ann = next(line for line in lines if '"id":"ann"' in line)
    (voices.parent / "part.jsonl").write_text("\n".join([lines[0], ann, '{"end": 1}']))
    run("speakers", "import", "part.jsonl", data="there")
    done = json.loads(run("speakers", "import", "all.jsonl", "--json", data="there").stdout)
    assert (done["created"], done["known"], done["already_there"]) == (2, 1, 2)


def test_opting_out_moves_along_and_is_respected(run: Run, voices: Path, tmp_path: Path) -> None:
    run("enroll", "--from", "voices", check=False)
    run("speakers", "export", "all.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    ann = next(line for line in lines if line.get("id") == "ann")
    ann["status"] = "opted_out"
    (tmp_path / "out.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    run("speakers", "import", "out.jsonl", data="there")
    shown = json.loads(run("speakers", "show", "ann", "--json", data="there").stdout)
    assert (shown["status"], shown["enrollments"]) == ("opted_out", 2)
    run("speakers", "delete", "bob", data="there")
    ann["enrollments"][0]["id"] = "enr_another"
    (tmp_path / "more.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    more = run("speakers", "import", "more.jsonl", data="there", check=False)
    assert (more.returncode, "has opted out" in more.stdout) == (1, True)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda lines: lines[:-1], "cut off"),
        (lambda lines: lines[:2] + lines[-1:], "cut off"),
        (lambda lines: ["hello"], "not JSON"),
        (lambda lines: [], "not an export"),
        (lambda lines: [lines[0].replace('"format":1', '"format":9'), *lines[1:]], "has format 9"),
    ],
)
def test_a_file_that_is_not_whole_changes_nothing(
    run: Run, voices: Path, spoil: Callable[[list[str]], list[str]], problem: str
) -> None:
    run("enroll", "--from", "voices", check=False)
    run("speakers", "export", "all.jsonl")
    lines = (voices.parent / "all.jsonl").read_text().splitlines()
    (voices.parent / "bad.jsonl").write_text("\n".join(spoil(lines)))
    done = run("speakers", "import", "bad.jsonl", data="there", check=False)
    assert (done.returncode, problem in done.stderr) == (1, True), done.stderr
    assert run("speakers", "list", data="there").stdout.strip() == "no speakers"


def test_vectors_of_a_model_that_is_not_served_are_refused(run: Run, voices: Path, tmp_path: Path) -> None:
    run("enroll", "--from", "voices", check=False)
    run("speakers", "export", "all.jsonl")
    text = (tmp_path / "all.jsonl").read_text()
    for sha256 in json.loads(text.splitlines()[1])["enrollments"][0]["embeddings"]:
        text = text.replace(sha256, "0" * 64)
    (tmp_path / "other.jsonl").write_text(text)
    done = run("speakers", "import", "other.jsonl", data="there", check=False)
    assert (done.returncode, "none of which is served here" in done.stderr) == (1, True)
