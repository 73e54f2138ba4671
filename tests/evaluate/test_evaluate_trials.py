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
        ("1 a b\ntarget a c\n", ":2:", "start the line with 1"),
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
