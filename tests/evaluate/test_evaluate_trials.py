import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from sayso.evaluate import trials as module
from sayso.evaluate.trials import TrialListError, read_trials

LIST = """1 a/1.wav a/2.wav
0 a/1.wav b/1.wav
1 a/2.wav a/3.wav
0 c/1.wav b/1.wav
"""


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "list.trials"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_reads_a_list(tmp_path: Path) -> None:
    trials = read_trials(written(tmp_path, LIST))
    assert trials.labels.tolist() == [True, False, True, False]
    assert trials.recordings == ("a/1.wav", "a/2.wav", "b/1.wav", "a/3.wav", "c/1.wav")
    assert trials.first.tolist() == [0, 0, 1, 4]
    assert trials.second.tolist() == [1, 2, 3, 2]
    assert trials.name == "list.trials"
    assert trials.sha256 == hashlib.sha256(LIST.encode()).hexdigest()
    identity = trials.identity()
    assert (identity.targets, identity.nontargets, identity.speakers) == (2, 2, 3)


PAIRS = [line.split() for line in LIST.splitlines()]
WORDS = {
    "1": ("target", "Target", "tgt", "true", "TRUE"),
    "0": ("nontarget", "Nontarget", "imp", "false", "FALSE"),
}


def lines(order: str, words: int | None = None, separator: str = " ", header: str = "") -> str:
    """The list with its columns in another order (label, a, b), other labels, another separator."""
    columns = {"label": 0, "a": 1, "b": 2}
    rows = [[WORDS[row[0]][words] if words is not None else row[0], *row[1:]] for row in PAIRS]
    text = [separator.join(row[columns[name]] for name in order.split()) for row in rows]
    return "\n".join([header, *text] if header else text) + "\n"


SPELLINGS = {
    "Kaldi": lines("a b label", 0),
    "Kaldi with tabs": lines("a b label", 0, "\t"),
    "label last": lines("a b label"),
    "words first": lines("label a b", 0),
    "capitals": lines("a b label", 1),
    "target and impostor": lines("label a b", 2),
    "true and false": lines("a b label", 4),
    "comments": "# vox1-O\n" + LIST.replace("\n", "\n  # more\n"),
    "comments at the ends of lines": LIST.replace("\n", " # so\n"),
    "CSV": lines("label a b", None, ",", "label,enrol,test"),
    "CSV without a header": lines("a b label", None, ","),
    "semicolons": lines("a b label", 0, ";", "Enroll_Path;Test_Path;Label"),
    "pandas": lines("a b label", 4, ",", "file1,file2,is_same"),
    "unknown names of three columns": lines("a label b", None, ",", "left,label,right"),
    "spaces behind commas": lines("label a b", None, ", ", "label, path_1, path_2"),
    "quotes": "\n".join(['"label","enrol","test"', *(f'"{x}","{a}","{b}"' for x, a, b in PAIRS)]),
    "NIST": "\n".join(
        ["modelid\tsegmentid\tside\ttargettype", *(f"{a}\t{b}\ta\t{WORDS[x][0]}" for x, a, b in PAIRS)]
    ),
    "a header and white space": lines("a b label", 0, " ", "enrol test label"),
    "a comment above the header": "# made by hand\n" + lines("label a b", None, ",", "label,enrol,test"),
}


@pytest.mark.parametrize("content", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_is_the_same_list(tmp_path: Path, content: str) -> None:
    plain, other = read_trials(written(tmp_path, LIST)), read_trials(written(tmp_path, content))
    assert other.recordings == plain.recordings
    assert other.labels.tolist() == plain.labels.tolist()
    assert (other.first.tolist(), other.second.tolist()) == (plain.first.tolist(), plain.second.tolist())


def test_a_csv_may_hold_paths_with_spaces_and_commas(tmp_path: Path) -> None:
    content = 'label,enrol,test\n1,Tom Jones/1.wav,"Tom Jones/2, loud.wav"\n0,Tom Jones/1.wav,b.wav\n'
    read = read_trials(written(tmp_path, content))
    assert read.recordings == ("Tom Jones/1.wav", "Tom Jones/2, loud.wav", "b.wav")
    plain = read_trials(written(tmp_path, "1 a,x.wav b;y,z.wav\n0 a,x.wav c.wav\n"))
    assert plain.recordings == ("a,x.wav", "b;y,z.wav", "c.wav")


def test_recordings_may_be_called_like_labels_and_columns(tmp_path: Path) -> None:
    """What one line leaves open the others say."""
    read = read_trials(written(tmp_path, "key 1 1\n0 1 target\ntest a 0\n"))
    assert read.labels.tolist() == [True, True, False]
    assert read.recordings == ("key", "1", "0", "test", "a")


def test_two_ways_to_read_a_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrialListError, match=r"first and the last column both hold labels only.*header line"):
        read_trials(written(tmp_path, "1 a 0\n0 b 1\n"))
    told = read_trials(written(tmp_path, "enrol test label\n1 a 0\n0 b 1\n"))
    assert told.recordings == ("1", "a", "0", "b")
    assert told.labels.tolist() == [False, True]
    # Both ways give the same trials.
    assert read_trials(written(tmp_path, "1\ta\tb\n0\ta\tc\n")).labels.tolist() == [True, False]


@pytest.mark.parametrize(
    ("content", "place", "advice"),
    [
        ("1 a b\n0 a c\nb c 1\n", ":3:", "label 'b'; it must be 1 or target"),
        ("a b target\na c nontraget\n", ":2:", "label 'nontraget'"),
        ("label,enrol,test\n1,a,b\n0,a\n", ":3:", "2 fields, not 3 as in the header"),
        ("label,enrol,test\n1,a,b\n2,a,c\n", ":3:", "label '2'"),
        ("label,enrol,test\n1,a,\n0,a,b\n", ":2:", "a path is empty"),
        ("label,speaker,age,sex\n1,a,b,c\n", ":1:", "name them label, enrol and test"),
        ("label,enrol,test\n", "list.trials", "a header and no trials"),
        ("# nothing\n", "list.trials", "no trials"),
        ("a.wav b.wav\nc.wav d.wav\n", ":1:", "2 fields"),
        ("a.wav b.wav 0.73\nc.wav d.wav 0.11\n", ":1:", "label"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, content: str, place: str, advice: str) -> None:
    with pytest.raises(TrialListError) as caught:
        read_trials(written(tmp_path, content))
    assert place in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [LIST.replace("\n", "\r\n"), LIST.replace(" ", "\t"), "\ufeff" + LIST, LIST.replace("\n", "\n\n")],
    ids=["windows line ends", "tabs", "byte order mark", "blank lines"],
)
def test_other_editors_lists_read_the_same(tmp_path: Path, content: str) -> None:
    plain, other = read_trials(written(tmp_path, LIST)), read_trials(written(tmp_path, content))
    assert other.recordings == plain.recordings
    assert other.labels.tolist() == plain.labels.tolist()


@pytest.mark.parametrize(
    ("content", "place", "advice"),
    [
        ("1 a b\n2 a c\n", ":2:", "label '2'"),
        ("1 a b\n\n0 a\n", ":3:", "2 fields"),
        ("0 a b c\n", ":1:", "without spaces"),
        ("", "list.trials", "no trials"),
        ("\n \n", "list.trials", "no trials"),
        ("1 a b\n1 b c\n", "lines 1 to 2", "add non-targets (0)"),
        ("0 a b\n", "lines 1 to 1", "add targets (1)"),
        (b"1 a b\n0 a \xff\xfe\n", ":2:", "save the list as UTF-8"),
    ],
)
def test_a_bad_list_is_refused_with_its_place(
    tmp_path: Path, content: str | bytes, place: str, advice: str
) -> None:
    with pytest.raises(TrialListError) as caught:
        read_trials(written(tmp_path, content))
    assert str(tmp_path) in str(caught.value)
    assert place in str(caught.value)
    assert advice in str(caught.value)


def test_speakers_are_joined_by_target_trials_only(tmp_path: Path) -> None:
    content = "1 x/1 y/1\n1 y/2 z/1\n1 z/1 x/1\n0 x/1 x/9\n0 q/1 y/1\n"
    trials = read_trials(written(tmp_path, content))
    number = dict(zip(trials.recordings, trials.speakers().tolist(), strict=True))
    assert number["x/1"] == number["y/1"] == number["y/2"] == number["z/1"]
    assert len({number["x/1"], number["x/9"], number["q/1"]}) == 3
    assert sorted(set(number.values())) == [0, 1, 2]


def test_speaker_numbers_ignore_the_order_of_lines_and_pairs(tmp_path: Path) -> None:
    lines = ["1 d c", "0 c a", "1 a b", "0 e d"]
    shuffled = [" ".join([line[0], line[4], line[2]]) for line in reversed(lines)]
    plain, other = (read_trials(written(tmp_path, "\n".join(order))) for order in (lines, shuffled))
    assert plain.recordings != other.recordings
    assert dict(zip(plain.recordings, plain.speakers().tolist(), strict=True)) == dict(
        zip(other.recordings, other.speakers().tolist(), strict=True)
    )


def test_scores_are_cosines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCORING_BLOCK", 3)  # the four trials take two blocks
    trials = read_trials(written(tmp_path, LIST))
    embeddings = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = [unit[a] @ unit[b] for a, b in zip(trials.first, trials.second, strict=True)]
    np.testing.assert_allclose(trials.scores(unit), expected, atol=1e-6)
    np.testing.assert_allclose(trials.scores(3 * embeddings), expected, atol=1e-6)
    swapped = dataclasses.replace(trials, first=trials.second, second=trials.first)
    np.testing.assert_array_equal(swapped.scores(unit), trials.scores(unit))


def test_embeddings_without_a_direction_are_refused(tmp_path: Path) -> None:
    trials = read_trials(written(tmp_path, LIST))
    embeddings = np.ones((5, 4))
    with pytest.raises(ValueError, match=r"\[5, dim\]"):
        trials.scores(embeddings[:4])
    for value in (0.0, np.nan, np.inf):
        broken = embeddings.copy()
        broken[3] = value
        with pytest.raises(ValueError, match="a/3"):
            trials.scores(broken)
