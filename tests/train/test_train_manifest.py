"""A manifest is a CSV or a folder of speakers, read whole or refused with the row that is wrong."""

from pathlib import Path

import pytest

from sayso.train.manifest import DataError, Manifest

HEADER = "path,speaker,split\n"


def manifest(folder: Path, text: str | bytes) -> Manifest:
    path = folder / "manifest.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Manifest.read(path)


def test_a_manifest_is_read_whatever_its_order_and_editor(tmp_path: Path) -> None:
    text = 'split,speaker,path,corpus\ntrain,ann,"a, first.wav",x\ndev,bob,b.wav,y\ntrain,ann,c.wav,\n'
    for content in (text, "\ufeff" + text, text.replace("\n", "\r\n")):
        read = manifest(tmp_path, content)
        assert read.paths == ("a, first.wav", "b.wav", "c.wav")
        assert read.speakers == ("ann", "bob", "ann")
        assert read.train.tolist() == [True, False, True]
        assert read.corpora == ("x",)
        assert read.root == tmp_path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "lacks the columns path, speaker, split"),
        ("path,speaker\na.wav,ann\n", "lacks the columns split"),
        (HEADER, "lacks the columns"),
        (HEADER + "a.wav,ann,train\nb.wav,bob\n", "row 2"),
        (HEADER + "a.wav,ann,Train\n", "train or dev as split"),
        (HEADER + "a.wav,,train\n", "row 1"),
        (HEADER + ",ann,train\n", "row 1"),
        (HEADER + "a.wav,ann,dev\n", "no row whose split is train"),
        (b"path,speaker,split\n\xff\xfe,a,train\n", "cannot read the manifest"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(text: str | bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told) as caught:
        manifest(tmp_path, text)
    assert "manifest.csv" in str(caught.value)


def test_a_manifest_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the manifest"):
        Manifest.read(tmp_path / "manifest.csv")


@pytest.fixture
def voxceleb(tmp_path: Path) -> Path:
    """The layout of VoxCeleb: speaker, video, utterance."""
    for name in ("id10001/abc/00001.wav", "id10001/def/00001.wav", "id10002/abc/00001.m4a",
                 "id10003/ghi/00001.FLAC", "id10270/xyz/00001.wav", "id10270/xyz/notes.txt"):  # fmt: skip
        (tmp_path / "wav" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "wav" / name).touch()
    return tmp_path / "wav"


def test_a_folder_of_speakers_is_a_manifest(voxceleb: Path) -> None:
    read = Manifest.read(voxceleb, dev=("id10270/xyz/00001.wav",))
    assert read.paths == (
        "id10001/abc/00001.wav",
        "id10001/def/00001.wav",
        "id10003/ghi/00001.FLAC",
        "id10270/xyz/00001.wav",
    )
    assert read.speakers == ("id10001", "id10001", "id10003", "id10270")
    assert read.train.tolist() == [True, True, True, False]  # a trial list's speaker is never trained on
    assert read.root == voxceleb
    assert Manifest.read(voxceleb, dev=("id10270/xyz/00001.wav",)).sha256 == read.sha256


def test_a_folder_that_is_no_corpus_is_refused(voxceleb: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", voxceleb / "id10001" / "abc"):
        with pytest.raises(DataError, match="one folder a speaker"):
            Manifest.read(folder)
    everyone = tuple(f"id{i}/x/1.wav" for i in (10001, 10003, 10270))
    with pytest.raises(DataError, match="no speaker that the trial list leaves"):
        Manifest.read(voxceleb, everyone)


def test_some_of_the_speakers_are_drawn_the_same_each_time(voxceleb: Path) -> None:
    read = Manifest.read(voxceleb, dev=("id10270/xyz/00001.wav",))
    drawn = read.drawn(1)
    assert len({s for s, kept in zip(drawn.speakers, drawn.train, strict=True) if kept}) == 1
    assert not drawn.train[-1]  # who is held out stays so
    assert drawn.train.tolist() == read.drawn(1).train.tolist()
    assert drawn.paths == read.paths
    with pytest.raises(DataError, match="asks for 3 speakers; there are 2"):
        read.drawn(3)
