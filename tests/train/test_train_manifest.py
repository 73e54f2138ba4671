"""A manifest is a CSV or a folder of speakers, read whole or refused with the row that is wrong."""

from pathlib import Path

import pytest

from sayso.train.manifest import DataError, Manifest

HEADER = "path,speaker,split\n"


def manifest(folder: Path, text: str | bytes) -> Manifest:
    path = folder / "manifest.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Manifest.read([path])


def test_a_manifest_is_read_whatever_its_order_and_editor(tmp_path: Path) -> None:
    text = 'split,speaker,path,corpus\ntrain,ann,"a, first.wav",x\ndev,bob,b.wav,y\ntrain,ann,c.wav,\n'
    for content in (text, "\ufeff" + text, text.replace("\n", "\r\n")):
        read = manifest(tmp_path, content)
        assert read.paths == ("a, first.wav", "b.wav", "c.wav")
        assert read.speakers == ("ann", "bob", "ann")
        assert read.train.tolist() == [True, False, True]
        assert read.corpora == ("x",)
        assert read.corpus == ("x", "y", "")
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
        Manifest.read([tmp_path / "manifest.csv"])


@pytest.fixture
def voxceleb(tmp_path: Path) -> Path:
    """The layout of VoxCeleb: speaker, video, utterance."""
    for name in ("id10001/abc/00001.wav", "id10001/def/00001.wav", "id10002/abc/00001.m4a",
                 "id10003/ghi/00001.FLAC", "id10270/xyz/00001.wav", "id10270/xyz/notes.txt",
                 "id10001/abc/._00001.wav", ".trash/abc/1.wav", "id10002/.c/2.wav", "._1.wav"):  # fmt: skip
        (tmp_path / "wav" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "wav" / name).touch()
    return tmp_path / "wav"


def test_a_folder_of_speakers_is_a_manifest(voxceleb: Path) -> None:
    read = Manifest.read([voxceleb], dev=("id10270/xyz/00001.wav",))
    assert read.paths == (
        "id10001/abc/00001.wav",
        "id10001/def/00001.wav",
        "id10003/ghi/00001.FLAC",
        "id10270/xyz/00001.wav",
    )
    assert read.speakers == ("id10001", "id10001", "id10003", "id10270")
    assert read.train.tolist() == [True, True, True, False]  # a trial list's speaker is never trained on
    assert read.root == voxceleb
    assert Manifest.read([voxceleb], dev=("id10270/xyz/00001.wav",)).sha256 == read.sha256


def test_a_folder_that_is_no_corpus_is_refused(voxceleb: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", voxceleb / "id10001" / "abc"):
        with pytest.raises(DataError, match="one folder a speaker"):
            Manifest.read([folder])
    everyone = tuple(f"id{i}/x/1.wav" for i in (10001, 10003, 10270))
    with pytest.raises(DataError, match="no speaker that the trial list leaves"):
        Manifest.read([voxceleb], everyone)


def test_some_of_the_speakers_are_drawn_the_same_each_time(voxceleb: Path) -> None:
    read = Manifest.read([voxceleb], dev=("id10270/xyz/00001.wav",))
    drawn = read.drawn(1)
    assert len({s for s, kept in zip(drawn.speakers, drawn.train, strict=True) if kept}) == 1
    assert not drawn.train[-1]  # who is held out stays so
    assert drawn.train.tolist() == read.drawn(1).train.tolist()
    assert drawn.paths == read.paths
    with pytest.raises(DataError, match="asks for 3 speakers; there are 2"):
        read.drawn(3)


@pytest.fixture
def two_lists(tmp_path: Path) -> list[Path]:
    """A CSV and a folder of speakers, in folders of one parent."""
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "manifest.csv").write_text(
        "path,speaker,split,corpus\ndev/x.wav,eve,dev,sentences\na.wav,ann,train,words\nb.wav,bob,train,sentences\n"
    )
    for name in ("cat/1.wav", "dan/1.wav", "fay/1.wav"):
        (tmp_path / "told" / "wav" / name).parent.mkdir(parents=True)
        (tmp_path / "told" / "wav" / name).touch()
    return [tmp_path / "read" / "manifest.csv", tmp_path / "told" / "wav"]


@pytest.mark.parametrize("held_out", ["fay/1.wav", "told/wav/fay/1.wav"])
def test_several_manifests_are_one(two_lists: list[Path], held_out: str, tmp_path: Path) -> None:
    both = Manifest.read(two_lists, dev=(held_out,))
    assert both.root == tmp_path
    assert both.paths == (
        "read/dev/x.wav",
        "read/a.wav",
        "read/b.wav",
        "told/wav/cat/1.wav",
        "told/wav/dan/1.wav",
        "told/wav/fay/1.wav",
    )
    assert both.speakers == ("eve", "ann", "bob", "cat", "dan", "fay")
    assert both.train.tolist() == [False, True, True, True, True, False]
    assert both.corpora == ("sentences", "wav", "words")
    assert both.corpus == ("sentences", "words", "sentences", "wav", "wav", "wav")
    turned = Manifest.read(two_lists[::-1], dev=(held_out,))
    assert turned.speakers == ("cat", "dan", "fay", "eve", "ann", "bob")
    assert turned.sha256 != both.sha256


def test_trials_name_recordings_from_the_root_or_from_a_manifests_folder(two_lists: list[Path]) -> None:
    both = Manifest.read(two_lists)
    assert both.rows(["dev/x.wav", "told/wav/fay/1.wav"]).tolist() == [0, 5]
    assert both.rows(["../read/a.wav", "fay/1.wav"]).tolist() == [1, 5]
    assert Manifest.read(two_lists[:1]).rows(["./b.wav", "a.wav"]).tolist() == [2, 1]
    with pytest.raises(DataError, match=r"name 2 recordings that no manifest lists, such as eve\.wav"):
        both.rows(["a.wav", "eve.wav", "ann.wav"])


def test_recordings_that_cannot_be_told_apart_are_refused(two_lists: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "again"
    other.mkdir()
    (other / "manifest.csv").write_text(HEADER + "a.wav,gus,train\n")
    three = Manifest.read([*two_lists, other / "manifest.csv"])
    assert three.rows(["again/a.wav", "read/a.wav"]).tolist() == [6, 1]
    with pytest.raises(DataError, match=r"a\.wav is in 2 manifests: write its path relative to"):
        three.rows(["a.wav"])
    (other / "more.csv").write_text(HEADER + "b.wav,gus,train\n")
    with pytest.raises(DataError, match="two manifests lie in one folder"):
        Manifest.read([other / "manifest.csv", other / "more.csv"])


def test_corpora_are_left_out(two_lists: list[Path]) -> None:
    both = Manifest.read(two_lists)
    rest = both.without(("sentences",))
    assert rest.train.tolist() == [False, True, False, True, True, True]
    assert rest.corpora == ("wav", "words")
    assert rest.paths == both.paths  # rows keep their numbers, and so do a teacher's
    assert both.without(()) is both
    with pytest.raises(DataError, match="no manifest trains on: letters"):
        both.without(("words", "letters"))
    with pytest.raises(DataError, match="leaves out every corpus"):
        both.without(both.corpora)


@pytest.mark.parametrize("people", [["ann"], ["ann", "ann"]])
def test_one_speaker_cannot_be_told_from_others(people: list[str], tmp_path: Path) -> None:
    rows = "".join(f"{i}.wav,{name},train\n" for i, name in enumerate(people))
    read = manifest(tmp_path, HEADER + rows + "e.wav,eve,dev\n")
    with pytest.raises(DataError, match="only the speaker ann is left to train on"):
        read.check_speakers()
    manifest(tmp_path, HEADER + rows + "b.wav,bob,train\n").check_speakers()
